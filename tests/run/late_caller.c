/* late_caller: native threads that call back, and end when Python has ended. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

enum { most = 8 };
static pthread_t threads[most];
static int started;
static sem_t called, may_end;
static void (*callback)(void);

static void* call_twice(void* unused) {
  (void)unused;
  callback();
  callback();
  sem_post(&called);
  while (sem_wait(&may_end) != 0) {
  }
  return NULL;
}

static void end_and_join(void) {
  for (int at = 0; at < started; ++at) sem_post(&may_end);
  for (int at = 0; at < started; ++at) pthread_join(threads[at], NULL);
  static const char said[] = "joined\n";
  (void)!write(STDOUT_FILENO, said, sizeof said - 1);
}

void call_on_late_threads(void (*function)(void), int count) {
  callback = function;
  sem_init(&called, 0, 0);
  sem_init(&may_end, 0, 0);
  atexit(end_and_join);
  for (; started < count && started < most; ++started)
    if (pthread_create(&threads[started], NULL, call_twice, NULL) != 0) abort();
  for (int at = 0; at < started; ++at)
    while (sem_wait(&called) != 0) {
    }
}
