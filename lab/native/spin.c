/* libmoored_spin: a bounded spin before pthread_cond_timedwait really blocks. Preloaded into the
   lab's server only.

   What it does. The first wait on a condition variable unlocks the mutex, spins for at most
   MOORED_SPIN_US, locks the mutex again and returns 0: a spurious wake-up, which POSIX allows at
   any time. Every caller has to look at its predicate then, with the mutex held, and wait again if
   it must; that second wait is the real one. So no thread can miss a wake-up, whatever happens
   during the spin. A signal that passes through this library ends the spin early, as it would in a
   lock that spins: the waiter takes over at once.

   What it means for CPython. take_gil() is the only one that waits like this in CPython on Linux
   (its other locks are semaphores):

       while (gil->locked) {
           saved = gil->switch_number;
           timed_out = cond_timedwait(gil->cond, gil->mutex, now + interval);
           if (timed_out && gil->locked && gil->switch_number == saved) request_drop();
       }

   Our 0 reads as "not timed out": the loop looks at `locked` again, takes the GIL if it is free,
   and otherwise waits anew, with a new interval that starts now. So against a main thread that
   computes, the request to drop the GIL comes one spin later than without us; and after each
   interval that ends in a request we spin once more, while the holder drops it. Against an idle
   main thread the wait is short, or there is none, and the spin ends with the signal of drop_gil().

   The bound: at most one spurious return before each real wait. A return that followed a real
   signal is none, but after a row of those the real wait has its turn too, so that a storm of
   signals cannot hide a deadline. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int timedwait_function(pthread_cond_t*, pthread_mutex_t*, const struct timespec*);
typedef int signal_function(pthread_cond_t*);

enum { longest_us = 100000, slots = 256, longest_row = 64 };

static timedwait_function* real_timedwait;
static signal_function* real_signal;
static signal_function* real_broadcast;
static int64_t spin_ns;

/* Signals seen, per condition variable; two that share a slot only end each other's spin early. */
static atomic_uint signals[slots];

/* How often this thread's waits on a condition variable returned in a row without a real wait. A
   spurious return uses the row up; one that a signal ended counts once. */
static _Thread_local unsigned char row[slots];

/* The one of 2003, by name: x86-64 has an older pthread_cond_* of GLIBC_2.2.5 with another
   pthread_cond_t, and a plain dlsym(RTLD_NEXT) of some C libraries finds that one. Other
   architectures never had it and know only the plain name. */
static void look_up(const char* name, void* into) {
  void* found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
  if (found == NULL) found = dlsym(RTLD_NEXT, name);
  if (found == NULL) abort(); /* no C library without these */
  memcpy(into, &found, sizeof found);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void set_up(void) {
  look_up("pthread_cond_timedwait", &real_timedwait);
  look_up("pthread_cond_signal", &real_signal);
  look_up("pthread_cond_broadcast", &real_broadcast);
  /* No number, or one out of bounds: no spin. The Python side has refused it with a word. */
  const char* const asked = getenv("MOORED_SPIN_US");
  char* end = NULL;
  const long us = asked == NULL ? 0 : strtol(asked, &end, 10);
  if (asked != NULL && end != asked && *end == '\0' && us > 0 && us <= longest_us)
    spin_ns = us * 1000L;
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static size_t slot_of(const pthread_cond_t* cond) {
  return ((uintptr_t)cond / sizeof(pthread_cond_t)) % slots;
}

int pthread_cond_timedwait(pthread_cond_t* restrict cond, pthread_mutex_t* restrict mutex,
                           const struct timespec* restrict deadline) {
  pthread_once(&once, set_up);
  /* An invalid deadline is EINVAL, at once: not ours to delay. */
  const int valid = deadline->tv_nsec >= 0 && deadline->tv_nsec < 1000000000;
  const size_t slot = slot_of(cond);
  if (spin_ns == 0 || row[slot] == longest_row || !valid) {
    row[slot] = 0;
    return real_timedwait(cond, mutex, deadline);
  }
  const unsigned before = atomic_load_explicit(&signals[slot], memory_order_relaxed);
  if (pthread_mutex_unlock(mutex) != 0)
    return real_timedwait(cond, mutex, deadline); /* it has the right error */
  const int64_t end = now_ns() + spin_ns;
  int signalled = 0;
  do {
    relax();
    signalled = atomic_load_explicit(&signals[slot], memory_order_relaxed) != before;
  } while (!signalled && now_ns() < end);
  row[slot] = signalled ? (unsigned char)(row[slot] + 1) : longest_row;
  return pthread_mutex_lock(mutex);
}

int pthread_cond_signal(pthread_cond_t* cond) {
  pthread_once(&once, set_up);
  atomic_fetch_add_explicit(&signals[slot_of(cond)], 1, memory_order_relaxed);
  return real_signal(cond);
}

int pthread_cond_broadcast(pthread_cond_t* cond) {
  pthread_once(&once, set_up);
  atomic_fetch_add_explicit(&signals[slot_of(cond)], 1, memory_order_relaxed);
  return real_broadcast(cond);
}
