// moored/detail/cpython/attached.hpp: whether the calling thread is attached, where CPython does
// not say.
//
// Up to 3.11 the current thread state is that of the thread which holds the GIL, whichever that is.
// Callers ask thread_record.hpp's three questions, which come here.
#pragma once

#include <Python.h>

#include "calls.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

#if MOORED_CURRENT_IS_PER_THREAD

/// True when this thread is attached, by whatever state. Any thread.
[[nodiscard]] inline bool is_attached_by(const PyThreadState*) noexcept {
  return current() != nullptr;
}

#else

/// True when `state`, the current one, is this thread's own in another interpreter than the main
/// one: there PyGILState does not know a thread's state.
///
/// Another thread may hold the GIL with it, and delete it in this moment; what is read then is not
/// this thread's number, so that the answer is right all the same. Hence no sanitizer here.
[[nodiscard]] __attribute__((no_sanitize("address"), no_sanitize("thread"), noinline)) inline bool
is_own_state_elsewhere(const PyThreadState* state) noexcept {
  return *static_cast<PyInterpreterState* const volatile*>(&state->interp) !=
             PyInterpreterState_Main() &&
         *static_cast<const volatile unsigned long*>(&state->thread_id) ==
             PyThread_get_thread_ident();
}

/// True when this thread is attached: by `known`, by the state that PyGILState knows, or by one of
/// its own in a subinterpreter. Any thread.
[[nodiscard]] inline bool is_attached_by(const PyThreadState* known) noexcept {
  const PyThreadState* const attached = current();
  if (MOORED_LIKELY(attached == nullptr)) return false;
  return attached == known || attached == this_thread_state() || is_own_state_elsewhere(attached);
}

#endif

}  // namespace cpython
MOORED_NAMESPACE_END
