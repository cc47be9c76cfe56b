/* cancellable.c: see cancellable.h. Compiled without -fexceptions, so that pthread_cleanup_push is
   the C library's. */
#define _GNU_SOURCE
#include "cancellable.h"

#include <errno.h>
#include <stdint.h>

void* moored_run_thread(void* thread) {
  struct moored_thread* const me = thread;
  void* result = NULL;
  moored_begin_of_thread(me);
  pthread_cleanup_push(moored_end_of_thread, me);
  result = me->run(me->argument);
  pthread_cleanup_pop(1);
  return result;
}

int moored_run_c11_thread(void* thread) {
  struct moored_thread* const me = thread;
  int result = 0;
  moored_begin_of_thread(me);
  pthread_cleanup_push(moored_end_of_thread, me);
  result = me->run_c11(me->argument);
  pthread_cleanup_pop(1);
  return result;
}

unsigned long moored_bell_rings(struct moored_bell* bell) {
  pthread_mutex_lock(&bell->mutex);
  const unsigned long rings = bell->rings;
  pthread_mutex_unlock(&bell->mutex);
  return rings;
}

void moored_bell_ring(struct moored_bell* bell) {
  pthread_mutex_lock(&bell->mutex);
  ++bell->rings;
  pthread_cond_broadcast(&bell->rung);
  pthread_mutex_unlock(&bell->mutex);
}

struct waiting {
  pthread_mutex_t* mutex;
  void (*on_cancel)(void*);
  void* argument;
};

static void stop_waiting(void* given) {
  const struct waiting* const waiting = given;
  pthread_mutex_unlock(waiting->mutex);
  waiting->on_cancel(waiting->argument);
}

int moored_bell_wait(struct moored_bell* bell, unsigned long seen, clockid_t clock,
                     const struct timespec* due, void (*on_cancel)(void*), void* argument) {
  struct waiting waiting = {&bell->mutex, on_cancel, argument};
  int result = 0;
  pthread_mutex_lock(&bell->mutex);
  pthread_cleanup_push(stop_waiting, &waiting);
  while (bell->rings == seen && result == 0) {
    result = due == NULL ? pthread_cond_wait(&bell->rung, &bell->mutex)
                         : pthread_cond_clockwait(&bell->rung, &bell->mutex, clock, due);
  }
  pthread_cleanup_pop(0);
  pthread_mutex_unlock(&bell->mutex);
  return result;
}

int moored_clockjoin(int (*join)(pthread_t, void**, clockid_t, const struct timespec*),
                     pthread_t thread, void** result, clockid_t clock, const struct timespec* due,
                     void (*on_cancel)(void*), void* argument) {
  int failed = 0;
  pthread_cleanup_push(on_cancel, argument);
  failed = join(thread, result, clock, due);
  pthread_cleanup_pop(0);
  return failed;
}
