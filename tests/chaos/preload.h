/* The number that the suite sets while the process runs: 8 bytes at the start of the file $CHAOS_VALUE_FILE. It is 0
 * without the variable. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile long long *map_value(void) {
  static volatile long long none;
  const char *path = getenv("CHAOS_VALUE_FILE");
  int file = path ? open(path, O_RDONLY) : -1;
  if (file < 0) return &none;
  void *mapped = mmap(0, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  return mapped == MAP_FAILED ? &none : mapped;
}

static long long value(void) {
  static volatile long long *mapped;
  if (!mapped) mapped = map_value();
  return *mapped;
}
