// moored/detail/cpython/versions.hpp: what differs between CPython's versions, each fact once.
//
// Only the files of this folder look at PY_VERSION_HEX. Everything else asks these constants, or
// the functions beside them.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdlib>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// Interpreter views and guards (PEP 788).
#define MOORED_HAS_INTERPRETER_GUARDS (PY_VERSION_HEX >= 0x030F0000)
inline constexpr bool has_interpreter_guards = MOORED_HAS_INTERPRETER_GUARDS;

/// Without a GIL (PEP 703) a state has heaps of its own, which go by the number of the thread that
/// it was made on, so no other thread may use or clear it: a later thread gets that number, and
/// takes what is in the heaps for its own (Objects/mimalloc/page.c).
#ifdef Py_GIL_DISABLED
inline constexpr bool has_gil = false;
#else
inline constexpr bool has_gil = true;
#endif

/// Up to 3.11 the current thread state is the process's (of the thread that holds the GIL); from
/// 3.12 on each thread has its own.
#define MOORED_CURRENT_IS_PER_THREAD (PY_VERSION_HEX >= 0x030C0000)
inline constexpr bool current_is_per_thread = MOORED_CURRENT_IS_PER_THREAD;

/// What happens to a thread that waits for the GIL of a finalising interpreter (gh-87135): up to
/// 3.13.7 CPython ends it by unwinding it with pthread_exit; from 3.13.8 on it waits for ever. An
/// extension is compiled for all patches of 3.13, so that there the catch is always compiled in.
#define MOORED_FIRST_HANGING_VERSION 0x030D0800
inline constexpr bool unwinds_late_threads = PY_VERSION_HEX < 0x030E0000;

/// Up to 3.10 CPython frees the main interpreter under threads that still wait for its GIL.
#define MOORED_FREES_MAIN_UNDER_LATE_THREADS (PY_VERSION_HEX < 0x030B0000)

/// 3.11 alone goes on with the null that it gets when there is no memory for a thread state.
#define MOORED_CRASHES_WITHOUT_MEMORY_FOR_A_STATE \
  (PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030C0000)

/// After Py_FinalizeEx and a new Py_Initialize, 3.15 still hands a thread the freed state of the
/// interpreter's last epoch, and PyGILState_Ensure hangs on it; up to 3.14 the slot was made anew.
inline constexpr bool old_state_haunts_next_epoch = PY_VERSION_HEX >= 0x030F0000;

/// Up to early 3.12 a finaliser that enters Python while PyGILState_Release clears the state has
/// the state deleted twice (gh-119753).
#define MOORED_RELEASE_DELETES_TWICE (PY_VERSION_HEX < 0x030D0000)

/// The exception that is set is one object, not three.
#define MOORED_HAS_RAISED_EXCEPTION (PY_VERSION_HEX >= 0x030C0000)

/// The slot in which PyGILState keeps a thread's state: up to 3.14 a pthread key, from 3.15 on a
/// thread_local of libpython, which CPython alone writes.
#define MOORED_GILSTATE_IS_THREAD_LOCAL (PY_VERSION_HEX >= 0x030F0000)

/// From 3.12 on builds with assertions assert that a state is deleted on the thread whose
/// PyGILState slot it is in; that slot can be written up to 3.14.
inline constexpr bool deletes_by_slot =
    PY_VERSION_HEX >= 0x030C0000 && !MOORED_GILSTATE_IS_THREAD_LOCAL;

/// From 3.14 on a state remembers the C stack of the thread that made it.
inline constexpr bool protects_stacks = PY_VERSION_HEX >= 0x030E0000;

/// A busy main thread notices a pending call that a thread without a state added. Before 3.13 it
/// notices when something else stops it.
inline constexpr bool pending_calls_interrupt = PY_VERSION_HEX >= 0x030D0000;

/// From 3.13 on CPython publishes where its GIL is, for debuggers (_Py_DebugOffsets). In that
/// table of 64-bit numbers, 3.14 put threads_main before gil_runtime_state.
#define MOORED_PUBLISHES_GIL (PY_VERSION_HEX >= 0x030D0000)
inline constexpr std::size_t place_of_gil_offsets = PY_VERSION_HEX >= 0x030E0000 ? 16 : 15;

/// 3.12 moved the GIL into the interpreter and does not publish where: the threads that wait for it
/// are the ones that show it. Up to 3.11 the current thread state is the holder's.
#define MOORED_GIL_IS_SHOWN_BY_WAITERS (MOORED_CURRENT_IS_PER_THREAD && !MOORED_PUBLISHES_GIL)

/// From 3.13 on threading keeps a per-thread sentinel in a state, with which the thread's locals
/// are told of its end.
#define MOORED_HAS_LOCAL_SENTINEL (PY_VERSION_HEX >= 0x030D0000)

/// CPython's _PY_DATA_STACK_CHUNK_SIZE: what a state asks of the arena allocator for its first
/// frame. From 3.11.
inline constexpr std::size_t data_stack_chunk_bytes = 16 * 1024;

/// True when the Python that runs has data stacks, which need not be the one that this was compiled
/// for. Any thread, also before Py_Initialize.
[[nodiscard]] inline bool has_data_stacks() noexcept {
  char* rest = nullptr;
  const long major = std::strtol(Py_GetVersion(), &rest, 10);
  const long minor = *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0;
  return major > 3 || (major == 3 && minor >= 11);
}

}  // namespace cpython
MOORED_NAMESPACE_END
