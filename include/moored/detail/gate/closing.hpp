// moored/detail/gate/closing.hpp: how the gate opens and how it shuts.
#pragma once

#include <Python.h>

#include <pthread.h>

#include <cstdio>
#include <new>
#include <optional>

#include "../cpython/gil_hand_over.hpp"
#include "../cpython/gil_requests.hpp"
#include "../cpython/late_threads.hpp"
#include "../stay_loaded.hpp"
#include "gate.hpp"
#include "thread_record.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

inline PyObject* close_at_exit(PyObject*, PyObject*) noexcept {
  the_gate.close();
  Py_RETURN_NONE;
}

/// Whether Python is calling the exit handlers; nothing when that cannot be told: threading, which
/// knows, has not been imported. Attached; leaves no exception.
[[nodiscard]] inline std::optional<bool> is_calling_exit_handlers() {
  PyObject* const threading = PyDict_GetItemString(PyImport_GetModuleDict(), "threading");
  if (threading == nullptr) return std::nullopt;
  PyObject* const main = PyObject_CallMethod(threading, "main_thread", nullptr);
  PyObject* const lives = main ? PyObject_CallMethod(main, "is_alive", nullptr) : nullptr;
  const bool ended = lives == nullptr || PyObject_IsTrue(lives) != 1;
  PyErr_Clear();
  Py_XDECREF(lives);
  Py_XDECREF(main);
  return ended;
}

/// Has Python call close() at its end: by the atexit module, not Py_AtExit and not
/// PyUnstable_AtExit, which call when Python code no longer runs. False with an exception.
inline bool gate::register_callback() {
  static PyMethodDef method = {"moored_close", close_at_exit, METH_NOARGS,
                               "Refuse native threads and wait for those inside."};
  PyObject* const callback = PyCFunction_New(&method, nullptr);
  PyObject* const module = callback ? PyImport_ImportModule("atexit") : nullptr;
  PyObject* const done = module ? PyObject_CallMethod(module, "register", "O", callback) : nullptr;
  const bool registered = done != nullptr;
  if (registered) {
    const std::optional<bool> ending = is_calling_exit_handlers();
    ends_unseen_.store(ending.value_or(true), std::memory_order_relaxed);
    opened_at_exit_.store(ending.value_or(false), std::memory_order_relaxed);
  }
  Py_XDECREF(done);
  Py_XDECREF(module);
  Py_XDECREF(callback);
  return registered;
}

/// The interpreter's dict holds a mark for each gate of the process (each copy of moored has one).
/// It shows whether this interpreter is the one that the gate was opened for, and its end shuts the
/// gate where the callback did not.
struct interpreter_mark {
  char name[40];
  interpreter_mark() noexcept {
    (void)std::snprintf(name, sizeof name, "moored.gate.%p", static_cast<void*>(&the_gate));
  }
};

inline bool gate::has_marked_interpreter() const noexcept {
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Main());
  return dict != nullptr && PyDict_GetItemString(dict, interpreter_mark().name) != nullptr;
}

inline bool gate::mark_interpreter() {
  if (has_marked_interpreter()) return true;
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Main());
  PyObject* const mark =
      dict == nullptr
          ? PyErr_NoMemory()
          : PyCapsule_New(this, "moored.gate", [](PyObject*) { the_gate.interpreter_has_ended(); });
  const bool marked =
      mark != nullptr && PyDict_SetItemString(dict, interpreter_mark().name, mark) == 0;
  Py_XDECREF(mark);
  return marked;
}

inline bool gate::begin_attendance(epoch next) noexcept {
  if (next == phase::open) return true;  // the first life has what is in the gate
  auto* const fresh = new (std::nothrow) attendance;
  if (fresh == nullptr) return false;
  fresh->opened.store(next, std::memory_order_relaxed);
  fresh->previous = attendance_.load(std::memory_order_relaxed);
  attendance_.store(fresh, std::memory_order_release);
  return true;
}

inline void gate::change_to(epoch next) noexcept {
  const bool by_seats = is_open(next) && has_membarrier_ && !limits_states_;
  epoch_.store(next, std::memory_order_seq_cst);
  seat_epoch_.store(by_seats ? next : phase::no_seats, std::memory_order_seq_cst);
}

inline bool gate::open() {
  if (is_open(now())) return true;
  // A subinterpreter has atexit callbacks of its own, and ends before native threads lose the main
  // one.
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) return true;
  if (closing() && has_marked_interpreter()) return true;  // not again in this life
  stay_loaded();  // for the mark, the callback and the fork handler
  if (!mark_interpreter() || !register_callback()) return false;
  cpython::the_current_word.find();
  // Importing lets go of the GIL, and another thread may have been faster, or the end have come. A
  // lock, because without a GIL two may be here at once; no Python runs under it.
  bool done = true;
  {
    const locked lock(changing_);
    const epoch last = now();
    if (is_open(last)) return true;
    if (is_closing(last) && has_marked_interpreter()) return true;
    if (!hooked_) {
      hooked_ = pthread_atfork([] { the_keepers.before_fork(); },
                               [] { the_keepers.after_fork_in_parent(); },
                               [] {
                                 cpython::the_gil_requests.after_fork_in_child();
                                 cpython::gil_hand_over::after_fork_in_child();
                                 the_keepers.after_fork(this_thread.listed);
                                 the_gate.after_fork(this_thread.counted_in, this_thread.seat);
                                 this_thread.forget_all_after_fork();
                               }) == 0;
      done = hooked_;
    }
    has_membarrier_ = has_membarrier_ || register_membarrier();
    const epoch next = opened(is_closing(last) ? next_life(last) : last);
    done = done && begin_attendance(next);
    if (done) change_to(next);
  }
  return done || PyErr_NoMemory() != nullptr;
}

inline void gate::give_up(epoch which, std::uint64_t still) noexcept {
  given_up_.store(which | phase::mask, std::memory_order_seq_cst);
  // A thread that makes or deletes a state has looked before: it is waited for. It may want the
  // GIL.
  while (attendance_.load()->making.load(std::memory_order_seq_cst) != 0)
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  overdue.fetch_add(still, std::memory_order_relaxed);
}

inline void gate::shut(epoch current) noexcept {
  const locked lock(changing_);
  change_to(closed(current));
  if (has_membarrier_) membarrier_on_all_threads();
}

inline void gate::close() noexcept {
  const epoch current = now();
  if (!is_open(current)) return;
  deadline due(bound());
  if (auto* const prepare = before_closing.load(std::memory_order_acquire)) prepare(&due);
  shut(current);
  const attendance* const present = this_thread.counted_in;
  const std::uint64_t mine = present != nullptr && present->opened == current ? 1 : 0;
  PyThreadState* const me = PyEval_SaveThread();  // those inside may be waiting for the GIL
  const std::uint64_t still = wait_for_none([&] { return inside(current) - mine; }, due);
  if (still != 0) give_up(current, still);
  if (auto* const end = end_own_threads.load(std::memory_order_acquire)) end(due);
  PyEval_RestoreThread(me);
  if (auto* const finish = after_closing.load(std::memory_order_acquire)) finish(true);
  forgotten.fetch_add(shared.exchange(0));
  if (still == 0) return;
  cpython::end_after_late_threads();
  PySys_WriteStderr(
      "moored: shutdown goes on although %llu native call(s) did not leave Python within %lld ms\n",
      static_cast<unsigned long long>(still),
      static_cast<long long>(bound_ms_.load(std::memory_order_relaxed)));
}

inline void gate::interpreter_has_ended() noexcept {
  const epoch current = now();
  if (is_open(current)) {
    // The callback was not called: it was cleared, or registered by an atexit callback. No Python
    // can be run for those inside any more.
    if (auto* const prepare = before_closing.load(std::memory_order_acquire)) prepare(nullptr);
    shut(current);
    given_up_.store(current | phase::mask, std::memory_order_seq_cst);
    // A thread that is making a state has looked before, and must not find the interpreter without
    // states. CPython may have stopped it there for ever, with tracemalloc on: so not for long.
    const attendance& present = *attendance_.load();
    deadline due(std::chrono::milliseconds(100));
    look_until([&] { return present.making.load(std::memory_order_seq_cst) == 0; }, due);
    overdue.fetch_add(inside(current), std::memory_order_relaxed);
    if (auto* const finish = after_closing.load(std::memory_order_acquire)) finish(false);
    forgotten.fetch_add(shared.exchange(0));
  }
  const locked lock(changing_);
  change_to(next_life(current));
}

inline std::uint64_t gate::inside(epoch which) const noexcept {
  std::uint64_t calls = attendance_.load(std::memory_order_relaxed)->inside();
  for (const attendance* one = seats_.load(std::memory_order_acquire); one != nullptr;
       one = one->previous) {
    if (one->opened.load(std::memory_order_relaxed) == which) calls += one->inside();
  }
  return calls;
}

inline state_stats gate::stats() const noexcept {
  const auto read = [](const std::atomic<std::uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  state_stats now{};
  const std::uint64_t turned_back = read(turned_back_);  // first: attaches cannot become negative
  for (const attendance* one = attendance_.load(std::memory_order_acquire); one != nullptr;
       one = one->previous)
    now.attaches += read(one->entered);
  for (const attendance* one = seats_.load(std::memory_order_acquire); one != nullptr;
       one = one->previous)
    now.attaches += read(one->entered);
  now.attaches -= turned_back;
  now.refusals = read(refusals);
  now.states_made = read(made);
  now.states_adopted = read(adopted);
  now.states_kept = read(kept);
  now.states_freed = read(freed);
  now.states_forgotten = read(forgotten);
  now.overdue = read(overdue);
  now.states_over_limit = read(over_limit);
  now.states_freed_late = read(freed_late);
  now.references_forgotten = read(references_forgotten);
  now.urgent_requests = read(cpython::the_gil_requests.asked);
  now.urgent_requests_denied = read(cpython::the_gil_requests.denied);
  return now;
}

}  // namespace detail
MOORED_NAMESPACE_END
