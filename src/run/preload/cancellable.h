/* cancellable.h: the frames that a cancelled thread is unwound through, in C: glibc's cleanup
   handlers need no C++ runtime there, of which this library has one of its own. */
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(hidden)

/* A thread that was started through this library's pthread_create or thrd_create. */
struct moored_thread {
  void* (*run)(void*);
  int (*run_c11)(void*);
  void* argument;
  pthread_t thread;
  struct moored_thread* next; /* in its bucket of the table */
  int listed;
};

/* What such a thread runs, and int for thrd_create: the program's function, and then
   moored_end_of_thread, however that function ends. */
void* moored_run_thread(void* thread);
int moored_run_c11_thread(void* thread);
void moored_begin_of_thread(struct moored_thread* me);
void moored_end_of_thread(void* me);

/* A bell: each waiter that has seen fewer rings than there were is woken. */
struct moored_bell {
  pthread_mutex_t mutex;
  pthread_cond_t rung;
  unsigned long rings;
};

unsigned long moored_bell_rings(struct moored_bell* bell);
void moored_bell_ring(struct moored_bell* bell);

/* Waits for more than `seen` rings; a cancellation point, at which `on_cancel` is called without
   any lock. With `until`, a moment of that clock, returns ETIMEDOUT when that has come; otherwise
   0. */
int moored_bell_wait(struct moored_bell* bell, unsigned long seen, clockid_t clock,
                     const struct timespec* until, void (*on_cancel)(void*), void* argument);

/* `join`, which is pthread_clockjoin_np, with the same. */
int moored_clockjoin(int (*join)(pthread_t, void**, clockid_t, const struct timespec*),
                     pthread_t thread, void** result, clockid_t clock, const struct timespec* until,
                     void (*on_cancel)(void*), void* argument);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
