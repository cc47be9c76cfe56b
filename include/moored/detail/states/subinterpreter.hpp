// moored/detail/states/subinterpreter.hpp: a gate for each subinterpreter, and the states that
// threads keep in it.
//
// PyGILState knows the main interpreter alone. A subinterpreter gets a gate of its own, which its
// own atexit callback closes, and a thread keeps one state for each that it enters (visits.hpp).
#pragma once

#include <Python.h>

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "drops.hpp"
#include "slot_check.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Takes out of a vector what `matches`.
template <class Vector, class Matches>
void erase_where(Vector& all, Matches matches) {
  all.erase(std::remove_if(all.begin(), all.end(), matches), all.end());
}

/// One subinterpreter, from the first interpreter::current() in it to its end.
class subinterpreter : public std::enable_shared_from_this<subinterpreter> {
 public:
  explicit subinterpreter(PyInterpreterState* state)
      : state_(state), id_(PyInterpreterState_GetID(state)), of_(home::here()) {}
  subinterpreter(const subinterpreter&) = delete;
  subinterpreter& operator=(const subinterpreter&) = delete;
  ~subinterpreter() { dropped.forget_all(); }

  [[nodiscard]] std::int64_t id() const noexcept { return id_; }
  /// Any thread.
  [[nodiscard]] bool is_open() const noexcept {
    return open_.load(std::memory_order_acquire) && of_.is_of_this_life();
  }
  /// True when the calling thread is attached to it, by whatever state. Any thread.
  [[nodiscard]] bool is_here() const noexcept { return of_.is_here(); }

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

  /// A state for the calling thread, or null without memory. Counted in, not attached: with
  /// tracemalloc on, making it waits for the GIL.
  [[nodiscard]] PyThreadState* make_state() noexcept {
    expect_no_lock();
    PyThreadState* const made = cpython::make_state(state_);
    if (made == nullptr) return nullptr;
    the_gate.made.fetch_add(1, std::memory_order_relaxed);
    the_gate.kept.fetch_add(1, std::memory_order_relaxed);
    try {
      const locked lock(mutex_);
      states_.push_back(made);
    } catch (const std::bad_alloc&) {
      // It was never attached, so that nothing of Python's is in it.
      PyThreadState_Delete(made);
      the_gate.freed.fetch_add(1, std::memory_order_relaxed);
      the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
      return nullptr;
    }
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
    deadline due(the_gate.bound());
    PyThreadState* const me = PyEval_SaveThread();  // those inside may be waiting for the GIL
    const std::uint64_t still =
        wait_for_none([this] { return inside_.load(std::memory_order_seq_cst); }, due);
    PyEval_RestoreThread(me);
    dropped.empty();
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
      const locked lock(mutex_);
      left.swap(states_);
    }
    for (PyThreadState* const state : left) {
      cpython::clear(state);
      cpython::dead_state::remove(state);
    }
    cpython::gilstate_slot::show(mine);
    the_gate.freed.fetch_add(left.size());
    the_gate.kept.fetch_sub(left.size());
  }

  /// The child of a fork has no subinterpreters.
  void after_fork() noexcept {
    mutex_.renew();
    open_.store(false);
    inside_.store(0);
    dropped.forget_all();
  }

  /// Objects of this interpreter that were let go by threads which were not attached to it.
  drops dropped;

 private:
  void remove(PyThreadState* state, std::atomic<std::uint64_t>& counted) noexcept {
    const locked lock(mutex_);
    const auto found = std::find(states_.begin(), states_.end(), state);
    if (found == states_.end()) return;
    states_.erase(found);
    counted.fetch_add(1, std::memory_order_relaxed);
    the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
  }

  PyInterpreterState* const state_;
  const std::int64_t id_;
  const home of_;
  std::atomic<bool> open_{true};
  std::atomic<std::uint64_t> inside_{0};
  mutex mutex_;
  std::vector<PyThreadState*> states_ MOORED_GUARDED_BY(mutex_);
};

/// Those that are open. Any thread may call anything.
class subinterpreters {
 public:
  [[nodiscard]] static subinterpreters& the() noexcept { return *all; }

  [[nodiscard]] std::shared_ptr<subinterpreter> find(std::int64_t id) {
    const locked lock(mutex_);
    return find_locked(id);
  }
  [[nodiscard]] std::size_t open_ones() noexcept {
    const locked lock(mutex_);
    return static_cast<std::size_t>(
        std::count_if(all_.begin(), all_.end(), [](const auto& one) { return one->is_open(); }));
  }
  /// The one with this number that is known already, or `one`, which is known from now on. Throws
  /// std::bad_alloc.
  [[nodiscard]] std::shared_ptr<subinterpreter> add(std::shared_ptr<subinterpreter> one) {
    outlasting<std::vector<std::shared_ptr<subinterpreter>>> ended;  // the last of one may be here
    std::vector<std::shared_ptr<subinterpreter>> open;
    const locked lock(mutex_);
    if (!hook_forks()) throw std::bad_alloc();
    if (auto known = find_locked(one->id())) return known;
    open.reserve(all_.size() + 1);
    for (const auto& known : all_)
      if (known->is_open()) open.push_back(known);
    open.push_back(one);
    all_.swap(open);
    ended.take(open);
    return one;
  }
  /// Calls `visit` for each that is open and has objects to drop. No lock is held meanwhile.
  template <class Visit>
  void for_each_with_drops(Visit visit) noexcept {
    for (std::int64_t last = 0;;) {
      std::shared_ptr<subinterpreter> next;
      {
        const locked lock(mutex_);
        for (const auto& known : all_)
          if (known->id() > last && known->is_open() && known->dropped.any() &&
              (next == nullptr || known->id() < next->id()))
            next = known;
      }
      if (next == nullptr) return;
      last = next->id();
      visit(next);
    }
  }

 private:
  [[nodiscard]] std::shared_ptr<subinterpreter> find_locked(std::int64_t id)
      MOORED_REQUIRES(mutex_) {
    for (const auto& known : all_)
      if (known->id() == id && known->is_open()) return known;
    return nullptr;
  }

  [[nodiscard]] bool hook_forks() noexcept {
    if (!hooked_) {
      hooked_ = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0;
    }
    return hooked_;
  }
  static void before_fork() MOORED_UNCHECKED { the().mutex_.lock(); }
  static void after_fork_in_parent() MOORED_UNCHECKED { the().mutex_.unlock(); }
  static void after_fork_in_child() MOORED_UNCHECKED {
    for (const auto& known : the().all_) known->after_fork();
    the().mutex_.unlock();
  }

  static subinterpreters* const all;  // never destroyed
  mutex mutex_;
  std::vector<std::shared_ptr<subinterpreter>> all_ MOORED_GUARDED_BY(mutex_);
  bool hooked_ = false;
};
inline subinterpreters* const subinterpreters::all = new subinterpreters;

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
MOORED_NAMESPACE_END
