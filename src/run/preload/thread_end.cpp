// thread_end.cpp: what a foreign thread does between the end of its own code and that of its C++
// thread_locals.
#include "weak_python.hpp"

#include <moored/detail/states/adopted.hpp>

#include <pthread.h>
#include <threads.h>

#include <new>

#include "gil_wait.hpp"
#include "joiners.hpp"
#include "next.hpp"
#include "process.hpp"

namespace moored::run {

namespace {

using detail::adoption;
using detail::the_ended;
using detail::this_thread;

constinit next_function<int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>
    next_create{"pthread_create"};
constinit next_function<int(thrd_t*, thrd_start_t, void*)> next_c11_create{"thrd_create"};

[[gnu::tls_model("initial-exec")]] constinit thread_local moored_thread* this_entry = nullptr;

/// Frees the state on its own thread when the GIL can be had; a joiner that holds the GIL clears it
/// instead; and when neither happens in time it is left to the reaper. Counted in, not attached,
/// cancellation disabled.
void end_adoption(adoption& its) {
  const auto never = [] { return false; };
  for (;;) {
    if (its.cleared) return finish_adoption(its, false);
    bool is_over = false;
    if (the_joiners.any_idle()) {
      the_ended.offer(its, false);
      is_over = the_ended.wait(its, std::nullopt, [&its] {
        return its.stage == detail::ending::offered && !the_joiners.any_idle();
      });
      if (!is_over) {
        if (the_ended.withdraw(its)) continue;
        is_over = the_ended.wait(its, std::nullopt, never);
      }
    } else {
      switch (take_gil(its)) {
        case gil_outcome::taken:
          the_ended.clear(its);
          PyThreadState_DeleteCurrent();
          finish_adoption(its, true);
          return the_ended.tell();
        case gil_outcome::claimed:
          is_over = the_ended.wait(its, std::nullopt, never);
          break;
        case gil_outcome::bound:
          // Not yet left behind: PyGILState still shows the state to what ends on this thread.
          detail::the_reaper.note_stuck();
          if (detail::put_off_ending(its)) return;
          return finish_adoption(its, false);
        case gil_outcome::closed:
          return finish_adoption(its, false);
      }
    }
    detail::delete_ended(its);
    return the_ended.delete_left();
  }
}

void after_fork() noexcept {
  the_threads.after_fork(this_entry);
  the_joiners.after_fork();
  renew_gil_waits_after_fork();
}

/// True when threads are to be looked after: this process keeps states.
[[nodiscard]] bool looks_after_threads() noexcept {
  if (this_process().decided() != keeping::on) return false;
  static const bool ready = [] {
    the_ended.on_change.store([]() noexcept { the_joiners.wake(); }, std::memory_order_release);
    return pthread_atfork(nullptr, nullptr, after_fork) == 0;
  }();
  return ready;
}

[[nodiscard]] moored_thread* make_entry() noexcept {
  return looks_after_threads() ? new (std::nothrow) moored_thread{} : nullptr;
}

[[gnu::constructor]] void find() {
  (void)next_create.find();
  (void)next_c11_create.find();
}

}  // namespace

extern "C" {

void moored_begin_of_thread(moored_thread* me) {
  this_entry = me;
  me->thread = pthread_self();
  the_threads.add(*me);
}

/// Not noexcept, and nothing here has to be destroyed: see take_gil().
void moored_end_of_thread(void* given) {
  auto* const me = static_cast<moored_thread*>(given);
  int cancel_state = 0;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
  // What another binding keeps on this thread as well is ended later, among the pthread keys.
  if (detail::this_adoption != nullptr && cpython::has_gil &&
      !cpython::state_contents::is_ensured_by_others(detail::this_adoption->state, 1)) {
    if (adoption* const its = detail::begin_ending(this_thread)) end_adoption(*its);
  }
  the_threads.remove(*me);
  this_entry = nullptr;
  delete me;
  the_joiners.wake();
  pthread_setcancelstate(cancel_state, nullptr);
}

MOORED_EXPORT int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                 void* (*run)(void*), void* argument) noexcept {
  moored_thread* const entry = make_entry();
  if (entry == nullptr) return next_create.find()(thread, attributes, run, argument);
  entry->run = run;
  entry->argument = argument;
  const int failed = next_create.find()(thread, attributes, moored_run_thread, entry);
  if (failed != 0) delete entry;
  return failed;
}

MOORED_EXPORT int thrd_create(thrd_t* thread, thrd_start_t run, void* argument) {
  moored_thread* const entry = make_entry();
  if (entry == nullptr) return next_c11_create.find()(thread, run, argument);
  entry->run_c11 = run;
  entry->argument = argument;
  const int failed = next_c11_create.find()(thread, moored_run_c11_thread, entry);
  if (failed != thrd_success) delete entry;
  return failed;
}

}  // extern "C"

}  // namespace moored::run
