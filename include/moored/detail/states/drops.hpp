// moored/detail/states/drops.hpp: Python objects that were let go by threads which are not
// attached.
//
// To drop the last reference to an object takes the GIL, and its finaliser runs Python. A thread
// that is not attached must wait for neither: it may be joined with the GIL held. So it puts the
// object on a list, which the object's interpreter empties: main by one pending call, a
// subinterpreter at its next visit or its end.
#pragma once

#include <Python.h>

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <new>

#include "home.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

class drops {
 public:
  constexpr drops() noexcept = default;

  /// Any thread, attached or not. Never waits, runs no Python. An object for which there is no
  /// memory is forgotten, and counted.
  void add(PyObject* object, const home& of) noexcept {
    auto* const one = new (std::nothrow) drop{object, of, nullptr};
    if (one == nullptr) return forget(1);
    one->next = first_.load(std::memory_order_relaxed);
    while (!first_.compare_exchange_weak(one->next, one, std::memory_order_release,
                                         std::memory_order_relaxed)) {
    }
  }

  [[nodiscard]] bool any() const noexcept {
    return first_.load(std::memory_order_relaxed) != nullptr;
  }

  /// Drops them all. Attached to the interpreter whose list this is. Objects of an earlier life are
  /// forgotten. An exception that is set stays set.
  void empty() noexcept {
    expect_no_lock();
    drop* one = first_.exchange(nullptr, std::memory_order_acquire);
    if (one == nullptr) return;
    PyObject* const pending = PyErr_Occurred() == nullptr ? nullptr : cpython::take_exception();
    one = in_order(one);
    while (one != nullptr) {
      drop* const done = one;
      one = done->next;
      if (done->of.is_here())
        cpython::drop(done->object);
      else
        forget(1);
      delete done;
    }
    if (pending != nullptr) cpython::set_exception(pending);
  }

  /// In the child of a fork, and when the interpreter has gone: the objects are not touched.
  void forget_all() noexcept {
    drop* one = first_.exchange(nullptr, std::memory_order_acquire);
    while (one != nullptr) {
      drop* const done = one;
      one = done->next;
      forget(1);
      delete done;
    }
  }

  static void forget(std::uint64_t objects) noexcept {
    the_gate.references_forgotten.fetch_add(objects, std::memory_order_relaxed);
  }

 private:
  struct drop {
    PyObject* object;
    home of;
    drop* next;
  };

  [[nodiscard]] static drop* in_order(drop* newest) noexcept {
    drop* oldest = nullptr;
    while (newest != nullptr) {
      drop* const next = newest->next;
      newest->next = oldest;
      oldest = newest;
      newest = next;
    }
    return oldest;
  }

  std::atomic<drop*> first_{nullptr};
};

/// Those of the main interpreter.
class main_drops {
 public:
  constexpr main_drops() noexcept = default;

  /// As drops::add, and asks main to empty the list at its next turn in Python. While it is counted
  /// in, the end of the epoch has not emptied the list for the last time. An object that comes
  /// later is forgotten.
  void add(PyObject* object, const home& of) noexcept {
    watch_for_ends();
    const passage inside;
    if (!inside) return drops::forget(1);
    list_.add(object, of);
    ask();
  }
  /// Asks main once. Any thread.
  void ask() noexcept {
    if (asked_.exchange(true, std::memory_order_acq_rel)) return;
    // While it is counted in, the interpreter is there to be asked.
    const passage inside;
    if (inside && Py_AddPendingCall(
                      [](void* self) noexcept {
                        static_cast<main_drops*>(self)->empty();
                        return 0;
                      },
                      this) == 0)
      return;
    asked_.store(false,
                 std::memory_order_release);  // CPython's places are full: the next drop asks
  }
  /// Attached to main.
  void empty() noexcept {
    asked_.store(false, std::memory_order_release);  // first: what is added from now on asks again
    list_.empty();
    if (auto* const others = empty_others.load(std::memory_order_acquire)) others();
  }
  /// In the child of a fork: what was let go there was let go in the parent, which finalises it.
  void after_fork() noexcept {
    list_.forget_all();
    asked_.store(false, std::memory_order_relaxed);
  }

  /// Empties the lists of the subinterpreters, see visits.hpp. Attached to main.
  std::atomic<void (*)() noexcept> empty_others{nullptr};

 private:
  /// The end of the epoch empties the list, and the child of a fork forgets it. Twice by two
  /// threads does no harm.
  void watch_for_ends() noexcept;

  drops list_;
  std::atomic<bool> asked_{false};
  std::atomic<bool> watching_{false};
};

MOORED_CONSTINIT inline main_drops the_main_drops;

inline void main_drops::watch_for_ends() noexcept {
  if (watching_.load(std::memory_order_acquire)) return;
  the_gate.after_closing.store([](bool is_attached) noexcept {
    if (is_attached)
      the_main_drops.empty();
    else
      the_main_drops.list_.forget_all();
  });
  if (pthread_atfork(nullptr, nullptr, [] { the_main_drops.after_fork(); }) == 0)
    watching_.store(true, std::memory_order_release);
}

}  // namespace detail
MOORED_NAMESPACE_END
