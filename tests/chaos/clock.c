/* A preloaded library that shifts the wall clock of a process by $CHAOS_CLOCK_OFFSET seconds. Monotonic clocks are
 * not shifted.
 *
 * libfaketime 0.9.10 cannot do this: if the monotonic clock is not shifted, Python's sleeps fail, and if it is, its
 * waits never end. A time namespace does not shift the wall clock at all.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void) {
  static long seconds, initialised;
  if (!initialised) {
    const char *value = getenv("CHAOS_CLOCK_OFFSET");
    seconds = value ? atol(value) : 0;
    initialised = 1;
  }
  return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *result) {
  long failed = syscall(SYS_clock_gettime, clock, result);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) result->tv_sec += offset();
  return (int)failed;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
  (void)zone;
  long failed = syscall(SYS_gettimeofday, result, 0);
  if (!failed) result->tv_sec += offset();
  return (int)failed;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}
