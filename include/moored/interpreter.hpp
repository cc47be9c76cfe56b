// moored/interpreter.hpp: which interpreter a thread enters, the opening of the gate, and what is
// counted.
#pragma once

#include <Python.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <utility>

#include "detail/states/visits.hpp"

MOORED_NAMESPACE_BEGIN

class attachment;

/// Which interpreter: the main one, or a subinterpreter. A handle that may be copied, kept and
/// given to any thread, also beyond the interpreter's end; attaching to it is then refused.
class MOORED_PUBLIC_TYPE interpreter {
 public:
  MOORED_HIDDEN [[nodiscard]] static interpreter main() noexcept { return interpreter(nullptr); }

  /// The one that the calling thread is attached to; opens its gate. From here on its end waits for
  /// native calls, refuses new ones, and deletes the states that threads have kept in it.
  ///
  /// Throws std::runtime_error when that cannot be made safe with this build of Python, or Python
  /// refused, also for lack of memory or of a thread; and std::bad_alloc. No exception is then set.
  MOORED_HIDDEN [[nodiscard]] static interpreter current();

  MOORED_HIDDEN [[nodiscard]] bool is_main() const noexcept { return sub_ == nullptr; }
  MOORED_HIDDEN [[nodiscard]] friend bool operator==(const interpreter& one,
                                                     const interpreter& other) noexcept {
    return one.sub_ == other.sub_;
  }
  MOORED_HIDDEN [[nodiscard]] friend bool operator!=(const interpreter& one,
                                                     const interpreter& other) noexcept {
    return !(one == other);
  }

 private:
  friend attachment try_attach(const interpreter& where) noexcept;
  friend attachment;
  friend class reference;
  MOORED_HIDDEN explicit interpreter(std::shared_ptr<detail::subinterpreter> sub) noexcept
      : sub_(std::move(sub)) {}
  /// The one that this thread's innermost visit is to.
  MOORED_HIDDEN [[nodiscard]] static interpreter visited() noexcept {
    return interpreter(detail::this_threads_visits.stack.back().where);
  }

  std::shared_ptr<detail::subinterpreter> sub_;
};

namespace detail {

/// A thread with no state opens the main gate and finds PyGILState's slot; another thread, because
/// the caller may be attached to an interpreter that has never heard of the main one. Not attached.
inline bool main_is_ready() noexcept {
  bool opened = false;
  const bool ran = on_a_thread_of_its_own([&opened] {
    const auto token = cpython::try_ensure();
    if (!token) return;
    opened = the_gate.open();
    PyErr_Clear();
    cpython::release(*token);
  });
  return ran && opened && against_shown_states(the_gate.now()) == refusal::none;
}

}  // namespace detail

inline interpreter interpreter::current() {
  PyInterpreterState* const state = PyInterpreterState_Get();
  if (state == PyInterpreterState_Main()) {
    if (!detail::the_gate.open()) {
      PyErr_Clear();
      throw std::runtime_error("Python did not register moored's callback");
    }
    return main();
  }
  detail::subinterpreters& all = detail::subinterpreters::the();
  if (auto known = all.find(PyInterpreterState_GetID(state))) return interpreter(std::move(known));
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
  // Another thread of the interpreter may have been faster; the gate that is known counts.
  return interpreter(all.add(std::move(found)));
}

/// Opens the closing gate: from here on shutdown waits for native calls, and refuses new ones.
///
/// Call it with the GIL held, as early as you can: in your module's init function, or right after
/// Py_Initialize. atexit callbacks run in reverse order, so those registered earlier than this one
/// run when attaching is refused already. Calling it again does nothing. A thread that attaches
/// first opens the gate by itself, but before 3.15 that first attach alone is not protected against
/// a shutdown in the same moment. False when Python could not register the callback; a Python
/// exception is then set.
inline bool open() {
  return detail::the_gate.open();
}

/// How long shutdown waits for native calls that are inside: one bound for the whole end. 5 seconds
/// unless set; a clock that stands still makes it no longer. Any thread.
inline void set_closing_bound(std::chrono::milliseconds bound) noexcept {
  detail::the_gate.set_bound(bound);
}

/// Any thread, attached or not.
[[nodiscard]] inline state_stats stats() noexcept {
  return detail::the_gate.stats();
}

MOORED_NAMESPACE_END
