/* Preloaded, it sets the wall clock of a process off by $CHAOS_CLOCK_OFF seconds. Clocks that measure, run right.
 *
 * libfaketime 0.9.10 cannot do that: with the monotonic clock left right, Python's sleeps fail, and with it shifted
 * too, its waits never end. A time namespace does not shift the wall clock at all.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long off(void) {
  static long seconds, known;
  if (!known) {
    const char *given = getenv("CHAOS_CLOCK_OFF");
    seconds = given ? atol(given) : 0;
    known = 1;
  }
  return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  long failed = syscall(SYS_clock_gettime, clock, at);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += off();
  return (int)failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  (void)zone;
  long failed = syscall(SYS_gettimeofday, at, 0);
  if (!failed) at->tv_sec += off();
  return (int)failed;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
