/* foreign_threads: native threads that call a callback without knowing Python, for the tests. */
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>

typedef void callback(void);

struct job {
  callback* call;
  int calls;
};

static void* work(void* argument) {
  const struct job* todo = argument;
  for (int i = 0; i < todo->calls; ++i) todo->call();
  return NULL;
}

/* So many threads at once, so many calls on each; returns when all have ended. */
int call_together(callback* call, int threads, int calls) {
  struct job todo = {call, calls};
  pthread_t started[64];
  int count = 0;
  while (count < threads && count < 64 && !pthread_create(&started[count], NULL, work, &todo))
    ++count;
  for (int i = 0; i < count; ++i) pthread_join(started[i], NULL);
  return count == threads ? 0 : 1;
}

/* One thread after the other, each for one call. */
int call_in_turn(callback* call, int threads) {
  for (int i = 0; i < threads; ++i) {
    if (call_together(call, 1, 1) != 0) return 1;
  }
  return 0;
}

static sem_t has_called;

static void* call_and_stay(void* argument) {
  const struct job* todo = argument;
  for (int i = 0; i < todo->calls; ++i) todo->call();
  sem_post(&has_called);
  sem_t never;
  sem_init(&never, 0, 0);
  for (;;) sem_wait(&never);
  return NULL;
}

/* A thread that calls, and then is there until the process ends. */
int call_on_thread_that_stays(callback* call, int calls) {
  static struct job todo;
  todo.call = call;
  todo.calls = calls;
  pthread_t thread;
  sem_init(&has_called, 0, 0);
  if (pthread_create(&thread, NULL, call_and_stay, &todo) != 0) return 1;
  while (sem_wait(&has_called) != 0) continue;
  return 0;
}
