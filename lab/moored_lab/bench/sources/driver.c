// driver.c: native threads that make callbacks, and a clock around them; the same for every
// binding.
//
// A binding gives a function and the context that the function wants. The function enters Python,
// calls, and leaves. Everything here but count_states is called without the GIL.
#include <Python.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

typedef void (*callback_function)(void* context);

/// One callback: what a binding's `make` gave.
struct callback {
  callback_function call;
  void* context;
};

/// What each thread does: `first` once, `each` unmeasured, then `each` measured.
struct order {
  struct callback first;
  struct callback each;
  long warm_calls;
  long calls;
  int by_hand;  ///< Whether the thread keeps its state itself: the least that keeping can cost.
};

struct worker {
  const struct order* order;
  pthread_barrier_t* barrier;
  pthread_t thread;
  int64_t begin;
  int64_t end;
};

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void repeat(struct callback callback, long calls) {
  for (long done = 0; done < calls; ++done) callback.call(callback.context);
}

static void* work(void* argument) {
  struct worker* const self = argument;
  const struct order* const order = self->order;
  PyGILState_STATE before = PyGILState_UNLOCKED;
  PyThreadState* kept = NULL;
  if (order->by_hand) {
    before = PyGILState_Ensure();
    kept = PyEval_SaveThread();
  }
  repeat(order->first, 1);
  repeat(order->each, order->warm_calls);
  if (self->barrier != NULL) pthread_barrier_wait(self->barrier);
  self->begin = now();
  repeat(order->each, order->calls);
  self->end = now();
  if (order->by_hand) {
    PyEval_RestoreThread(kept);
    PyGILState_Release(before);
  }
  return NULL;
}

/// Has `threads` threads (at most 64) work at once. Gives the ns from the start of the first to the
/// end of the last, or -1 when a thread cannot be made.
int64_t time_calls(const struct order* order, long threads) {
  struct worker workers[64];
  pthread_barrier_t barrier;
  if (threads < 1 || threads > 64) return -1;
  pthread_barrier_init(&barrier, NULL, (unsigned)threads);
  long made = 0;
  for (; made < threads; ++made) {
    struct worker* const one = &workers[made];
    *one = (struct worker){.order = order, .barrier = &barrier};
    if (pthread_create(&one->thread, NULL, work, one) != 0) return -1;
  }
  int64_t begin = INT64_MAX;
  int64_t end = 0;
  for (long at = 0; at < made; ++at) {
    pthread_join(workers[at].thread, NULL);
    if (workers[at].begin < begin) begin = workers[at].begin;
    if (workers[at].end > end) end = workers[at].end;
  }
  pthread_barrier_destroy(&barrier);
  return end - begin;
}

/// Has `threads` threads live one after the other, each for the first callback alone. Gives the ns
/// for all, or -1 when a thread cannot be made.
int64_t time_threads(const struct order* order, long threads) {
  const int64_t begin = now();
  for (long done = 0; done < threads; ++done) {
    struct worker one = {.order = order, .barrier = NULL};
    if (pthread_create(&one.thread, NULL, work, &one) != 0) return -1;
    pthread_join(one.thread, NULL);
  }
  return now() - begin;
}

/// Thread states that there are now, in the main interpreter. With the GIL.
long count_states(void) {
  long count = 0;
  PyThreadState* state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
  for (; state != NULL; state = PyThreadState_Next(state)) ++count;
  return count;
}
