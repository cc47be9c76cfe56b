// moored/subinterpreter.hpp: which interpreter a foreign thread enters; a gate and a kept state for
// each of them.
//
// PyGILState knows the main interpreter alone. A subinterpreter gets a gate of its own, which its
// own atexit callback closes, and a thread keeps one state for each that it enters. While a thread
// is inside, PyGILState is shown that state, so that a nested Ensure of another binding finds it.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "guest_state.hpp"
#include "interpreter.hpp"
#include "kept_state.hpp"

namespace moored::inline v0 {

namespace detail {

/// One subinterpreter, from the first interpreter::current() in it to its end.
class subinterpreter : public std::enable_shared_from_this<subinterpreter> {
 public:
  explicit subinterpreter(PyInterpreterState* state)
      : state_(state), id_(PyInterpreterState_GetID(state)) {}
  subinterpreter(const subinterpreter&) = delete;
  subinterpreter& operator=(const subinterpreter&) = delete;
  ~subinterpreter() = default;

  [[nodiscard]] std::int64_t id() const noexcept { return id_; }
  [[nodiscard]] bool is_open() const noexcept { return open_.load(std::memory_order_acquire); }

  /// As gate::enter(): counted first, and then looked. Looked before that as well, or a crowd that
  /// is refused again and again might never be seen to have left.
  [[nodiscard]] bool enter() noexcept {
    if (!is_open()) return false;
    inside_.fetch_add(1, std::memory_order_seq_cst);
    if (open_.load(std::memory_order_seq_cst)) return true;
    leave();
    return false;
  }
  void leave() noexcept { inside_.fetch_sub(1, std::memory_order_release); }

  /// A state for the calling thread, or null. Counted in, not attached. Throws std::bad_alloc.
  [[nodiscard]] PyThreadState* make_state() {
    const std::lock_guard lock(mutex_);
    states_.reserve(states_.size() + 1);  // before there is a state that it could lose
    PyThreadState* const made = cpython::make_state(state_);
    if (made == nullptr) return nullptr;
    states_.push_back(made);
    the_gate.made.fetch_add(1, std::memory_order_relaxed);
    the_gate.kept.fetch_add(1, std::memory_order_relaxed);
    return made;
  }
  /// Its thread is about to delete it.
  void release(PyThreadState* state) noexcept { remove(state, the_gate.freed); }
  /// The main interpreter is on its end, and takes it along.
  void forget(PyThreadState* state) noexcept { remove(state, the_gate.forgotten); }

  /// Refuses from now on, waits for those inside, and deletes the states of all threads: a
  /// subinterpreter that has any cannot be ended. Attached to it.
  void close() noexcept {
    open_.store(false, std::memory_order_seq_cst);
    PyThreadState* const me = PyEval_SaveThread();  // those inside may be waiting for the GIL
    const std::uint64_t still =
        wait_for_none([this] { return inside_.load(std::memory_order_seq_cst); }, the_gate.bound());
    PyEval_RestoreThread(me);
    if (still != 0) {
      the_gate.overdue.fetch_add(still);
      PySys_WriteStderr(
          "moored: %llu native call(s) did not leave a subinterpreter within %lld ms\n",
          static_cast<unsigned long long>(still), static_cast<long long>(the_gate.bound().count()));
      return;  // those states are in use
    }
    PyThreadState* const mine = cpython::this_thread_state();
    std::vector<PyThreadState*> left;
    {
      const std::lock_guard lock(mutex_);
      left.swap(states_);
    }
    for (PyThreadState* const state : left) {
      PyThreadState_Clear(state);
      cpython::dead_state::remove(state);
    }
    cpython::gilstate_slot::show(mine);
    the_gate.freed.fetch_add(left.size());
    the_gate.kept.fetch_sub(left.size());
  }

  /// The child of a fork has no subinterpreters.
  void after_fork() noexcept {
    new (&mutex_) std::mutex;
    open_.store(false);
    inside_.store(0);
  }

 private:
  void remove(PyThreadState* state, std::atomic<std::uint64_t>& counted) noexcept {
    const std::lock_guard lock(mutex_);
    if (std::erase(states_, state) == 0) return;
    counted.fetch_add(1, std::memory_order_relaxed);
    the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
  }

  PyInterpreterState* const state_;
  const std::int64_t id_;
  std::atomic<bool> open_{true};
  std::atomic<std::uint64_t> inside_{0};
  std::mutex mutex_;
  std::vector<PyThreadState*> states_;
};

/// Those that are open.
class subinterpreters {
 public:
  [[nodiscard]] std::shared_ptr<subinterpreter> find(std::int64_t id) {
    const std::lock_guard lock(mutex_);
    for (const auto& known : all_)
      if (known->id() == id && known->is_open()) return known;
    return nullptr;
  }
  /// Throws std::bad_alloc.
  void add(std::shared_ptr<subinterpreter> one) {
    const std::lock_guard lock(mutex_);
    if (!hook_forks()) throw std::bad_alloc();
    std::erase_if(all_, [](const auto& known) { return !known->is_open(); });
    all_.push_back(std::move(one));
  }
  [[nodiscard]] static subinterpreters& the() noexcept { return *all; }

 private:
  [[nodiscard]] bool hook_forks() noexcept {
    if (!hooked_) {
      hooked_ = pthread_atfork([] { the().mutex_.lock(); }, [] { the().mutex_.unlock(); },
                               [] {
                                 for (const auto& known : the().all_) known->after_fork();
                                 the().mutex_.unlock();
                               }) == 0;
    }
    return hooked_;
  }

  static subinterpreters* const all;  // never destroyed
  std::mutex mutex_;
  std::vector<std::shared_ptr<subinterpreter>> all_;
  bool hooked_ = false;
};
inline subinterpreters* const subinterpreters::all = new subinterpreters;

/// What a thread is doing in a subinterpreter.
struct visit {
  std::shared_ptr<subinterpreter> where;
  PyThreadState* state;
  PyThreadState* outer;  ///< Was attached before, and will be again; or null.
  PyThreadState* shown;  ///< Was in PyGILState's slot before.
  bool counted_in;       ///< At the gate of the main interpreter.
};

/// Shows PyGILState the state again that it saw before. Not attached.
inline void show_again(PyThreadState* shown) noexcept {
  cpython::gilstate_slot::show(shown);
  if (!cpython::gilstate_slot::goes_by_attaching || shown == nullptr) return;
  const passage through;  // of the main interpreter, whose state it is, or which outlives it
  if (!through) return;
  cpython::restore(shown);
  PyEval_SaveThread();
}

/// The states that one thread keeps in subinterpreters, and its visits, the innermost last.
class travels {
 public:
  struct own_state {
    std::shared_ptr<subinterpreter> in;
    PyThreadState* state;
  };

  travels() noexcept = default;
  travels(const travels&) = delete;
  travels& operator=(const travels&) = delete;
  ~travels() {
    over = true;
    for (const own_state& one : states_) let_go(one);
  }

  /// The thread's state there, made if it has none; null without memory. Counted in.
  [[nodiscard]] PyThreadState* state_in(const std::shared_ptr<subinterpreter>& where) {
    for (const own_state& one : states_)
      if (one.in == where) return one.state;
    std::erase_if(states_, [](const own_state& one) { return !one.in->is_open(); });
    states_.reserve(states_.size() + 1);
    PyThreadState* const made = where->make_state();
    if (made != nullptr) states_.push_back({where, made});
    return made;
  }

  std::vector<visit> visits;
  /// True when the thread is ending. It has no destructor.
  static inline constinit thread_local bool over = false;

 private:
  static void let_go(const own_state& one) noexcept {
    const passage through;
    if (!through) return one.in->forget(one.state);
    if (!one.in->enter()) return;  // its interpreter's end has deleted it
    PyThreadState* shown = cpython::this_thread_state();
    if (shown == one.state) shown = nullptr;  // there was no memory to unbind it
    cpython::restore(one.state);
    cpython::gilstate_slot::show(one.state);
    PyThreadState_Clear(one.state);
    one.in->release(one.state);
    PyThreadState_DeleteCurrent();
    show_again(shown);
    one.in->leave();
  }

  std::vector<own_state> states_;
};

inline thread_local travels this_threads_travels;

/// Attaches the thread to a subinterpreter. On success there is one more visit, and leave() ends
/// it.
[[nodiscard]] inline refusal visit_subinterpreter(thread_record& me,
                                                  const std::shared_ptr<subinterpreter>& where) {
  if (travels::over || me.lending || me.guest != nullptr) return refusal::unsupported;
  travels& mine = this_threads_travels;
  const bool counts_in = !me.inside;
  const life now = the_gate.now();
  if (counts_in && !(gate::is_open(now) && the_gate.enter(now))) return refusal::closing;
  const auto turn_back = [&](refusal why) {
    if (counts_in) the_gate.leave_unused();
    return why;
  };
  if (!where->enter()) return turn_back(refusal::closing);
  PyThreadState* const shown = cpython::this_thread_state();  // before a new one may be
  PyThreadState* state = nullptr;
  try {
    mine.visits.reserve(mine.visits.size() + 1);
    state = mine.state_in(where);
  } catch (const std::bad_alloc&) {
  }
  if (state == nullptr) {
    where->leave();
    return turn_back(refusal::no_memory);
  }
  PyThreadState* const outer = me.is_attached() ? PyEval_SaveThread() : nullptr;
  me.inside = me.abroad = true;
  cpython::restore(state);
  cpython::gilstate_slot::show(state);
  mine.visits.push_back({where, state, outer, shown, counts_in});
  return refusal::none;
}

/// True when the thread is attached to it already.
[[nodiscard]] inline bool is_visiting(const subinterpreter& where) noexcept {
  if (travels::over || this_threads_travels.visits.empty()) return false;
  const visit& innermost = this_threads_travels.visits.back();
  return innermost.where.get() == &where && cpython::current() == innermost.state;
}

/// Attaches a thread that let go of Python within a visit to the same interpreter again.
inline void resume_visit() noexcept {
  cpython::restore(this_threads_travels.visits.back().state);
}

inline void end_visit(thread_record& me) noexcept {
  const visit of = std::move(this_threads_travels.visits.back());
  this_threads_travels.visits.pop_back();
  me.abroad = !this_threads_travels.visits.empty();
  cpython::gilstate_slot::unbind_and_detach(of.state);
  if (of.outer == nullptr)
    show_again(of.shown);
  else
    cpython::gilstate_slot::show(of.shown);
  of.where->leave();
  if (of.outer != nullptr) cpython::restore(of.outer);
  if (!of.counted_in) return;
  me.inside = false;
  the_gate.leave();
}

/// A thread with no state opens the main gate and finds PyGILState's slot; another thread, because
/// the caller may be attached to an interpreter that has never heard of the main one.
inline bool main_is_ready() noexcept {
  bool opened = false;
  const bool ran = on_a_thread_of_its_own([&opened] {
    const auto token = cpython::try_ensure();
    if (!token) return;
    opened = the_gate.open();
    PyErr_Clear();
    PyGILState_Release(*token);
  });
  return ran && opened && against_guests(the_gate.now()) == refusal::none;
}

inline PyObject* close_subinterpreter(PyObject* capsule, PyObject*) noexcept {
  auto* const held = static_cast<std::shared_ptr<subinterpreter>*>(
      PyCapsule_GetPointer(capsule, "moored.subinterpreter"));
  if (held == nullptr) return nullptr;
  (*held)->close();
  Py_RETURN_NONE;
}

/// Has the subinterpreter close its gate at its end. Attached to it. False with an exception.
[[nodiscard]] inline bool register_closing(const std::shared_ptr<subinterpreter>& one) {
  static PyMethodDef method = {"moored_close", close_subinterpreter, METH_NOARGS, nullptr};
  auto held = std::make_unique<std::shared_ptr<subinterpreter>>(one);
  PyObject* const capsule = PyCapsule_New(held.get(), "moored.subinterpreter", [](PyObject* mine) {
    delete static_cast<std::shared_ptr<subinterpreter>*>(
        PyCapsule_GetPointer(mine, "moored.subinterpreter"));
  });
  if (capsule == nullptr) return false;
  (void)held.release();
  PyObject* const callback = PyCFunction_New(&method, capsule);
  PyObject* const module = callback ? PyImport_ImportModule("atexit") : nullptr;
  PyObject* const done = module ? PyObject_CallMethod(module, "register", "O", callback) : nullptr;
  Py_DECREF(capsule);
  Py_XDECREF(callback);
  Py_XDECREF(module);
  Py_XDECREF(done);
  return done != nullptr;
}

}  // namespace detail

class attachment;

/// Which interpreter: the main one, or a subinterpreter. A handle that may be copied, kept and
/// given to any thread, also beyond the interpreter's end; attaching to it is then refused.
class interpreter {
 public:
  [[nodiscard]] static interpreter main() noexcept { return interpreter(nullptr); }

  /// The one that the calling thread is attached to; opens its gate. From here on its end waits for
  /// native calls, refuses new ones, and deletes the states that threads have kept in it.
  ///
  /// Throws std::runtime_error when that cannot be made safe with this build of Python, or Python
  /// refused, also for lack of memory or of a thread; and std::bad_alloc. No exception is then set.
  [[nodiscard]] static interpreter current() {
    PyInterpreterState* const state = PyInterpreterState_Get();
    if (state == PyInterpreterState_Main()) {
      if (!detail::the_gate.open()) {
        PyErr_Clear();
        throw std::runtime_error("Python did not register moored's callback");
      }
      return main();
    }
    detail::subinterpreters& all = detail::subinterpreters::the();
    if (auto known = all.find(PyInterpreterState_GetID(state)))
      return interpreter(std::move(known));
    PyThreadState* const me = PyEval_SaveThread();
    const bool ready = detail::main_is_ready();
    PyEval_RestoreThread(me);
    if (!ready)
      throw std::runtime_error("subinterpreters cannot be made safe with this build of Python");
    auto found = std::make_shared<detail::subinterpreter>(state);
    if (!detail::register_closing(found)) {
      PyErr_Clear();
      throw std::runtime_error("Python did not register moored's callback");
    }
    all.add(found);
    return interpreter(std::move(found));
  }

  [[nodiscard]] bool is_main() const noexcept { return sub_ == nullptr; }
  [[nodiscard]] friend bool operator==(const interpreter&, const interpreter&) = default;

 private:
  friend attachment try_attach(const interpreter& where) noexcept;
  explicit interpreter(std::shared_ptr<detail::subinterpreter> sub) noexcept
      : sub_(std::move(sub)) {}

  std::shared_ptr<detail::subinterpreter> sub_;
};

}  // namespace moored::inline v0
