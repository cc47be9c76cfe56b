// moored/detail/cpython/state_contents.hpp: what a thread state refers to, and how often it was
// ensured.
//
// CPython has no call that tells this of a state which is not attached. So the fields are read, and
// first it is checked, by public calls on a state that is attached, that they are what they are
// taken for. Where they are not, nothing is read.
#pragma once

#include <Python.h>

#include <atomic>
#include <utility>

#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

class state_contents {
 public:
  /// Checks the fields once. Attached by `state`, without an exception; leaves none. Not noexcept:
  /// it runs Python code, under which a late thread may be unwound (see versions.hpp).
  static void find(PyThreadState* state) {
    if (found_.load(std::memory_order_relaxed) != found::unknown) return;
    const bool right =
        PyThreadState_GetDict() == state->dict && shows_context(state) && shows_sentinel(state);
    PyErr_Clear();
    found_.store(right ? found::yes : found::no, std::memory_order_release);
  }

  /// In the child of a fork, before CPython clears the states of the threads that are not there:
  /// what this one refers to is never finalised in this process. Called by the only thread that
  /// there is, which may be detached: then CPython clears nothing either.
  static void outlive_the_fork(PyThreadState* state) noexcept {
    if (found_.load(std::memory_order_acquire) != found::yes) return;
    Py_XINCREF(state->dict);
    Py_XINCREF(state->context);
#if MOORED_HAS_LOCAL_SENTINEL
    Py_XINCREF(state->threading_local_key);
    Py_XINCREF(state->threading_local_sentinel);
#endif
  }

  /// What threading.local objects hold for the thread of a state: its dict, and from 3.13 on a
  /// sentinel, with whose end they finalise it.
  struct thread_locals {
    PyObject* dict = nullptr;
    PyObject* key = nullptr;
    PyObject* sentinel = nullptr;
  };
  /// Takes them, as references that the caller owns, from the state of another thread, which is
  /// attached by nothing. Attached to the same interpreter. Runs no Python.
  [[nodiscard]] static thread_locals take_locals(PyThreadState* idle) noexcept {
    thread_locals its;
    if (found_.load(std::memory_order_acquire) != found::yes) return its;
    its.dict = Py_XNewRef(idle->dict);
#if MOORED_HAS_LOCAL_SENTINEL
    its.key = std::exchange(idle->threading_local_key, nullptr);
    its.sentinel = std::exchange(idle->threading_local_sentinel, nullptr);
#endif
    return its;
  }

  /// Calls of PyGILState_Ensure that have not been released, those of other bindings included.
  /// `mine` are those that the caller knows of. The thread of the state alone, attached or not.
  [[nodiscard]] static bool is_ensured_by_others(const PyThreadState* state, int mine) noexcept {
    return !counts_.load(std::memory_order_relaxed) || state->gilstate_counter != mine;
  }
  /// PyGILState_Ensure on a thread that is attached by `state`, which is how the count is checked.
  static void ensure(PyThreadState* state) {
    const int before = state->gilstate_counter;
    (void)PyGILState_Ensure();
    counts_.store(state->gilstate_counter == before + 1, std::memory_order_relaxed);
  }

 private:
  enum class found : char { unknown, yes, no };

  [[nodiscard]] static bool shows_context(const PyThreadState* state) {
    PyObject* const before = state->context;
    PyObject* const copy = PyContext_CopyCurrent();
    if (copy == nullptr) return false;
    const bool entered = PyContext_Enter(copy) == 0;
    const bool shown = entered && state->context == copy;
    const bool left = entered && PyContext_Exit(copy) == 0;
    const bool shown_again = left && (before == nullptr || state->context == before);
    Py_DECREF(copy);
    return shown && shown_again;
  }

#if MOORED_HAS_LOCAL_SENTINEL
  /// A threading.local has, for each thread that used it, a weak reference to that thread's
  /// sentinel, in a set.
  [[nodiscard]] static bool shows_sentinel(const PyThreadState* state) {
    PyObject* const thread = PyImport_ImportModule("_thread");
    PyObject* const local =
        thread != nullptr ? PyObject_CallMethod(thread, "_local", nullptr) : nullptr;
    PyObject* const gc = local != nullptr ? PyImport_ImportModule("gc") : nullptr;
    PyObject* const parts =
        gc != nullptr ? PyObject_CallMethod(gc, "get_referents", "O", local) : nullptr;
    bool shown = false;
    PyObject* const all = parts != nullptr ? PyObject_GetIter(parts) : nullptr;
    while (PyObject* const part = all != nullptr ? PyIter_Next(all) : nullptr) {
      if (Py_TYPE(part) == &PySet_Type) shown = shown || holds_sentinel_of(state, part);
      Py_DECREF(part);
    }
    for (PyObject* const one : {all, parts, gc, local, thread}) Py_XDECREF(one);
    return shown;
  }
  [[nodiscard]] static bool holds_sentinel_of(const PyThreadState* state, PyObject* set) {
    bool holds = false;
    PyObject* const all = PyObject_GetIter(set);
    while (PyObject* const reference = all != nullptr ? PyIter_Next(all) : nullptr) {
      PyObject* const target = PyObject_CallNoArgs(reference);
      holds = holds || (target != nullptr && target == state->threading_local_sentinel);
      Py_XDECREF(target);
      Py_DECREF(reference);
    }
    Py_XDECREF(all);
    return holds;
  }
#else
  [[nodiscard]] static bool shows_sentinel(const PyThreadState*) noexcept {
    return true;
  }
#endif

  static inline std::atomic<found> found_{found::unknown};
  static inline std::atomic<bool> counts_{false};
};

}  // namespace cpython
MOORED_NAMESPACE_END
