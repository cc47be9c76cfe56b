/* native_caller: a library that knows nothing of Python and calls a function pointer from threads
   of its own, as any C library with callbacks does. Used through ctypes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
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

static int (*is_initialized)(void);
static int code_after_the_end;

static void on_crash(int signal, siginfo_t* info, void* context) {
  (void)info;
  Dl_info where = {0};
#if defined(__x86_64__)
  const void* const at = (void*)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
  dladdr(at, &where);
#else
  (void)context;
#endif
  const int ours = where.dli_fname != NULL && strstr(where.dli_fname, "libmoored_") != NULL;
  if (!is_initialized() && !ours) _exit(code_after_the_end);
  sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
}

/* A native thread that enters Python when that has ended crashes by itself, stock too. Only such a
   crash, and only in code that is not moored's, ends the process with `code`. */
void forgive_late_crashes(int code) {
  is_initialized = (int (*)(void))dlsym(RTLD_DEFAULT, "Py_IsInitialized");
  code_after_the_end = code;
  const struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
  sigaction(SIGABRT, &action, NULL);
}
