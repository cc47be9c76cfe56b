/* known_parts: threads that call back a known number of times, for the doctor to count. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "known_times.h"

typedef void (*callback)(void);

struct job {
  callback call;
  int times;
  const char* name;
};

static void pause_ns(long ns) {
  const struct timespec gap = {0, ns};
  nanosleep(&gap, NULL);
}

__attribute__((noinline)) void read_sensor(callback call) {
  call();
  __asm__ volatile("");
}
__attribute__((noinline)) void read_audio(callback call) {
  call();
  __asm__ volatile("");
}

__attribute__((noinline)) void read_stream(callback call) {
  call();
  __asm__ volatile("");
}

static void* sense(void* given) {
  const struct job* job = given;
  pthread_setname_np(pthread_self(), job->name);
  for (int at = 0; at < job->times; ++at) {
    read_sensor(job->call);
    pause_ns(100000);
  }
  return NULL;
}

/* One thread, two native callers of the same callback. */
static void* sense_and_listen(void* given) {
  const struct job* job = given;
  pthread_setname_np(pthread_self(), job->name);
  for (int at = 0; at < job->times; ++at) {
    read_sensor(job->call);
    read_audio(job->call);
    read_audio(job->call);
  }
  return NULL;
}

static int run(void* (*start)(void*), callback call, int times, const char* name) {
  struct job job = {call, times, name};
  pthread_t thread;
  if (pthread_create(&thread, NULL, start, &job) != 0) return -1;
  return pthread_join(thread, NULL);
}

int run_sensor(callback call, int times) {
  return run(sense, call, times, "sensor");
}
int run_both(callback call, int times) {
  return run(sense_and_listen, call, times, "both");
}

static void* once(void* given) {
  ((callback)given)();
  return NULL;
}

int run_many(callback call, int threads) {
  for (int at = 0; at < threads; ++at) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, once, (void*)call) != 0) return -1;
    pthread_join(thread, NULL);
  }
  return 0;
}

/* What a callback of known length does, called with the GIL held: see run_timed(). */
static __thread uint64_t was_in, was_out;
static uint64_t seen;
void spend(void) {
  was_in = now_ns();
  ++seen;
  spin_until(was_in + INSIDE_NS);
  was_out = now_ns();
}
uint64_t times_spent(void) {
  return seen;
}

struct timed_job {
  callback call;
  int times;
  long gap_ns;
  void (*read)(callback call);
  struct known_times* sums;
};

static void* call_timed(void* given) {
  const struct timed_job* job = given;
  const uint64_t begun = now_ns();
  for (int at = 0; at < job->times; ++at) {
    sleep_until(begun + (uint64_t)at * (uint64_t)job->gap_ns);
    const uint64_t before = now_ns();
    job->read(job->call);
    add_call(job->sums, before, was_in, was_out, now_ns());
  }
  return NULL;
}

static int run_timed(struct timed_job job) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, call_timed, &job) != 0) return -1;
  return pthread_join(thread, NULL);
}

/* A callback of spend() every so many ns, and what it took by this library's own clock. */
int run_timed_sensor(callback call, int times, long gap_ns, struct known_times* sums) {
  return run_timed((struct timed_job){call, times, gap_ns, read_sensor, sums});
}
int run_timed_stream(callback call, int times, long gap_ns, struct known_times* sums) {
  return run_timed((struct timed_job){call, times, gap_ns, read_stream, sums});
}
