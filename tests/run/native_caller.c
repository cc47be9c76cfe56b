/* native_caller: a library that knows nothing of Python and calls a function pointer from threads
   of its own, as any C library with callbacks does. Used through ctypes. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

typedef void (*callback)(void);

struct work {
  callback call;
  long times;
};

static void* call_many(void* argument) {
  const struct work* work = argument;
  for (long at = 0; at < work->times; ++at) work->call();
  return NULL;
}

/* One thread that calls `times` times, joined before it returns. */
int call_on_a_thread(callback call, long times) {
  struct work work = {call, times};
  pthread_t thread;
  if (pthread_create(&thread, NULL, call_many, &work) != 0) return -1;
  return pthread_join(thread, NULL);
}

/* `threads` threads one after the other, each calling `times` times. */
int call_on_threads(callback call, long threads, long times) {
  for (long at = 0; at < threads; ++at) {
    if (call_on_a_thread(call, times) != 0) return -1;
  }
  return 0;
}

static void* call_for_ever(void* argument) {
  const callback call = (callback)argument;
  for (;;) call();
  return NULL;
}

/* Threads that never end by themselves. */
int hammer(callback call, long threads) {
  for (long at = 0; at < threads; ++at) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, call_for_ever, (void*)call) != 0) return -1;
    pthread_detach(thread);
  }
  return 0;
}

static pthread_t started;
static struct work started_work;

/* A thread to be joined by join_started. */
int start_thread(callback call, long times) {
  started_work.call = call;
  started_work.times = times;
  return pthread_create(&started, NULL, call_many, &started_work);
}

int join_started(void) {
  return pthread_join(started, NULL);
}

/* For Py_AtExit: a native thread that enters Python after its end crashes by itself, stock too. */
static void end_with_seven(void) {
  _exit(7);
}

void (*get_end_with_seven(void))(void) {
  return end_with_seven;
}
