// known_times.h: the clock of the known parts, which knows nothing of the recorder's.
#pragma once

#include <stdint.h>
#include <time.h>

#define INSIDE_NS 20000

/// What all calls took: to come in and to leave, and in between.
struct known_times {
  uint64_t calls, outside_ns, inside_ns;
};

static inline uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static inline void spin_until(uint64_t due_ns) {
  while (now_ns() < due_ns) {
  }
}

static inline void sleep_until(uint64_t due_ns) {
  const struct timespec due = {(time_t)(due_ns / 1000000000U), (long)(due_ns % 1000000000U)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0) {
  }
}

static inline void add_call(struct known_times* sums, uint64_t before, uint64_t in, uint64_t out,
                            uint64_t after) {
  ++sums->calls;
  sums->outside_ns += (in - before) + (after - out);
  sums->inside_ns += out - in;
}
