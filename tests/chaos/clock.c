/* A preloaded library that shifts the wall clock of a process: by $CHAOS_CLOCK_OFFSET seconds all the time, and by the
 * milliseconds that the suite sets. Monotonic clocks are not shifted.
 *
 * libfaketime 0.9.10 cannot do this: if the monotonic clock is not shifted, Python's sleeps fail, and if it is, its
 * waits never end. A time namespace does not shift the wall clock at all.
 */
#define _GNU_SOURCE
#include "preload.h"
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

static long long offset_ms(void) {
  static long seconds, initialised;
  if (!initialised) {
    const char *text = getenv("CHAOS_CLOCK_OFFSET");
    seconds = text ? atol(text) : 0;
    initialised = 1;
  }
  return seconds * 1000LL + value();
}

/* Add the offset to seconds and a fraction of `unit` parts a second. */
static void shift(time_t *seconds, long *fraction, long unit) {
  long long shifted = *seconds * 1000LL + offset_ms();
  long long parts = *fraction + shifted % 1000 * (unit / 1000);
  *seconds = shifted / 1000 + parts / unit;
  *fraction = parts % unit;
}

int clock_gettime(clockid_t clock, struct timespec *result) {
  long failed = syscall(SYS_clock_gettime, clock, result);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    shift(&result->tv_sec, &result->tv_nsec, 1000000000);
  return (int)failed;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
  (void)zone;
  long failed = syscall(SYS_gettimeofday, result, 0);
  if (!failed) shift(&result->tv_sec, (long *)&result->tv_usec, 1000000);
  return (int)failed;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}
