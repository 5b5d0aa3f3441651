/* A preloaded library with a slow disk: each sync of a file takes so many milliseconds longer as the suite sets.
 *
 * The wait is before the sync, so what is not confirmed is not on the disk either. A change takes effect within
 * 10 ms, also for a sync that waits: a disk that hung goes on.
 */
#define _GNU_SOURCE
#include "preload.h"
#include <sys/syscall.h>
#include <time.h>

static void wait_for_disk(void) {
  struct timespec step = {0, 10 * 1000 * 1000};
  for (long long waited = 0; waited < value(); waited += 10) nanosleep(&step, 0);
}

int fsync(int file) {
  wait_for_disk();
  return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
  wait_for_disk();
  return (int)syscall(SYS_fdatasync, file);
}
