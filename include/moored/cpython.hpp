// moored/cpython.hpp: the only file that knows Python versions, or anything of CPython beyond the
// limited API.
//
// Everything above asks these functions and never looks at PY_VERSION_HEX. Each states what the
// caller must hold.
#pragma once

#include <Python.h>

#include <cxxabi.h>
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <type_traits>

namespace moored::inline v0::cpython {

inline constexpr bool has_interpreter_guards = PY_VERSION_HEX >= 0x030F0000;

/// Without a GIL (PEP 703) a state has heaps of its own, which go by the number of the thread that
/// it was made on, so no other thread may use or clear it: a later thread gets that number, and
/// takes what is in the heaps for its own (Objects/mimalloc/page.c).
#ifdef Py_GIL_DISABLED
inline constexpr bool has_gil = false;
#else
inline constexpr bool has_gil = true;
#endif

/// The thread state that is attached, or null. Any thread.
///
/// Up to 3.11 the answer is for the whole process (whoever holds the GIL), from 3.12 on for this
/// thread.
[[nodiscard]] inline PyThreadState* current() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return PyThreadState_GetUnchecked();
#else
  return _PyThreadState_UncheckedGet();
#endif
}

/// This thread's state in the eyes of PyGILState, attached or not; null if it has none. Any thread.
[[nodiscard]] inline PyThreadState* this_thread_state() noexcept {
  return PyGILState_GetThisThreadState();
}

/// True when this thread is attached by `known`, or by any state that PyGILState knows. Any thread.
[[nodiscard]] inline bool is_attached([[maybe_unused]] const PyThreadState* known) noexcept {
  PyThreadState* const attached = current();
#if PY_VERSION_HEX >= 0x030C0000
  return attached != nullptr;
#else
  return attached != nullptr && (attached == known || attached == this_thread_state());
#endif
}

/// True from the moment that Py_FinalizeEx passed the atexit callbacks. Any thread. Racy before
/// 3.15: a hint, no guard.
[[nodiscard]] inline bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

/// True between the end of Py_Initialize and the start of the end. Any thread.
[[nodiscard]] inline bool is_running() noexcept {
  return Py_IsInitialized() != 0 && !is_finalizing();
}

/// Up to 3.13.0 CPython ends a thread that waits for the GIL of a finalising interpreter by
/// unwinding it. Later patches of 3.13 do not, which this cannot tell when it is compiled.
inline constexpr bool unwinds_late_threads = PY_VERSION_HEX < 0x030E0000;

/// Threads that stop_this_thread() has stopped.
inline constinit std::atomic<std::uint64_t> stopped_threads{0};

/// For a thread that shutdown has given up on, and that can neither go on in Python nor back into
/// native code that counts on having been there.
[[noreturn]] inline void stop_this_thread() noexcept {
  stopped_threads.fetch_add(1, std::memory_order_relaxed);
  for (;;) pause();
}

/// To be called when shutdown goes on although native threads are inside. Attached.
///
/// Up to 3.10 CPython frees the main interpreter under those that still wait for its GIL. Once the
/// interpreter is finalising each of them is unwound, but only when it next looks, which it does
/// once in a switch interval. So the end is held up, where the interpreter's dict is cleared, until
/// ten intervals have gone by without another thread being stopped.
inline void end_after_late_threads() noexcept {
#if PY_VERSION_HEX < 0x030B0000
  constexpr const char* name = "moored.late_threads";
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Main());
  PyObject* const last = PyCapsule_New(&stopped_threads, name, [](PyObject*) {
    constexpr unsigned long longest_us = 1'000'000;
    const auto quiet =
        static_cast<useconds_t>(std::min(10 * _PyEval_GetSwitchInterval(), longest_us));
    std::uint64_t before = 0;
    do {
      before = stopped_threads.load(std::memory_order_relaxed);
      usleep(quiet);
    } while (before != stopped_threads.load(std::memory_order_relaxed));
  });
  if (dict == nullptr || last == nullptr || PyDict_SetItemString(dict, name, last) != 0)
    PyErr_Clear();
  Py_XDECREF(last);
#endif
}

namespace detail {

/// Runs `wait`, which waits for the GIL. Unwinding ends the process at the first noexcept frame or
/// destructor; such a thread is stopped for ever instead, as later patches of 3.13, and 3.14,
/// do themselves (gh-87135).
template <class Wait>
auto stop_if_too_late(Wait wait) noexcept {
  if constexpr (!unwinds_late_threads) {
    return wait();
  } else {
    try {
      return wait();
    } catch (...) {  // not left: glibc ends the process when it is, but for rethrowing
      stop_this_thread();
    }
  }
}

}  // namespace detail

/// Within a catch (...): stops the thread if what was caught is that unwinding, which has no C++
/// type.
inline void stop_if_unwound() noexcept {
  if (unwinds_late_threads && abi::__cxa_current_exception_type() == nullptr) stop_this_thread();
}

/// PyEval_RestoreThread, which may wait for the GIL. Does not return to a thread that is too late.
inline void restore(PyThreadState* state) noexcept {
  detail::stop_if_too_late([state] { PyEval_RestoreThread(state); });
}
/// PyGILState_Ensure, likewise.
[[nodiscard]] inline PyGILState_STATE ensure() noexcept {
  return detail::stop_if_too_late([] { return PyGILState_Ensure(); });
}

/// PyThreadState_New: a state of `interpreter`, or null without memory. Any thread, attached or
/// not.
[[nodiscard]] inline PyThreadState* make_state(PyInterpreterState* interpreter) noexcept {
#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030C0000
  // 3.11 goes on with the null that it gets, and crashes. So it is asked only after the same memory
  // could be had.
  void* const room = PyMem_RawCalloc(1, sizeof(PyThreadState));
  if (room == nullptr) return nullptr;
  PyMem_RawFree(room);
#endif
  return PyThreadState_New(interpreter);
}

/// PyGILState_Ensure, or nothing when there is no memory for the state of a thread that has none,
/// where PyGILState_Ensure itself ends the process. One PyGILState_Release takes it back.
///
/// `make` is to make the state: PyThreadState_New gives a thread's first state the binding and the
/// count that PyGILState_Ensure gives it.
template <class Make>
[[nodiscard]] std::optional<PyGILState_STATE> try_ensure(Make make) noexcept {
  if (this_thread_state() == nullptr) {
    PyThreadState* const made = make();
    if (made == nullptr) return std::nullopt;
    restore(made);
    return PyGILState_UNLOCKED;
  }
  return ensure();
}
[[nodiscard]] inline std::optional<PyGILState_STATE> try_ensure() noexcept {
  return try_ensure([] { return make_state(PyInterpreterState_Main()); });
}

/// The exception that is set, as an object that the caller owns; none is set afterwards. Attached.
[[nodiscard]] inline PyObject* take_exception() noexcept {
#if PY_VERSION_HEX >= 0x030C0000
  return PyErr_GetRaisedException();
#else
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (trace != nullptr) PyException_SetTraceback(value, trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return value;
#endif
}

/// True when an exception is set. Attached, with the state `known` if that is not null: to find it
/// takes PyErr_Occurred longer than to look.
[[nodiscard]] inline bool has_exception(const PyThreadState* known) noexcept {
  if (known == nullptr) return PyErr_Occurred() != nullptr;
#if PY_VERSION_HEX >= 0x030C0000
  return known->current_exception != nullptr;
#else
  return known->curexc_type != nullptr;
#endif
}

/// Hands the exception that is set to sys.unraisablehook; none is set afterwards. Attached.
inline void report_exception() noexcept {
  detail::stop_if_too_late([] { PyErr_WriteUnraisable(nullptr); });
}

/// After Py_FinalizeEx and a new Py_Initialize, 3.15 still hands a thread the freed state of the
/// interpreter's last life, and PyGILState_Ensure hangs on it; up to 3.14 the slot was made anew.
inline constexpr bool old_state_haunts_next_life = PY_VERSION_HEX >= 0x030F0000;

/// Up to early 3.12, a finaliser that enters Python while PyGILState_Release clears the state has
/// the state deleted twice (gh-119753). Dropping the thread's locals first, while the state is
/// still counted, leaves nothing to finalise. What is under the key `except` stays: it finalises
/// nothing, and a copy of moored that keeps the state longer needs it.
inline void drop_locals_before_last_release([[maybe_unused]] const char* except) noexcept {
#if PY_VERSION_HEX < 0x030D0000
  PyObject* const locals = PyThreadState_GetDict();
  if (locals == nullptr) return;
  PyObject* const stays = Py_XNewRef(PyDict_GetItemString(locals, except));
  PyDict_Clear(locals);
  if (stays != nullptr && PyDict_SetItemString(locals, except, stays) != 0) PyErr_Clear();
  Py_XDECREF(stays);
#endif
}

/// Keeps the main interpreter from finalising while it lives, on 3.15 and later (PEP 788);
/// elsewhere an empty promise. Tests false when the interpreter cannot be entered any more, or
/// there is no memory for the guard. Any thread, attached or not.
class interpreter_guard {
 public:
#if PY_VERSION_HEX >= 0x030F0000
  interpreter_guard() noexcept {
    if (PyInterpreterView* const view = PyInterpreterView_FromMain()) {
      guard_ = PyInterpreterGuard_FromView(view);
      PyInterpreterView_Close(view);
    }
  }
  ~interpreter_guard() {
    if (guard_ != nullptr) PyInterpreterGuard_Close(guard_);
  }
  [[nodiscard]] explicit operator bool() const noexcept {
    return guard_ != nullptr;
  }
#else
  interpreter_guard() noexcept = default;
  ~interpreter_guard() = default;
  [[nodiscard]] explicit operator bool() const noexcept {
    return is_running();
  }
#endif
  interpreter_guard(const interpreter_guard&) = delete;
  interpreter_guard& operator=(const interpreter_guard&) = delete;

 private:
#if PY_VERSION_HEX >= 0x030F0000
  PyInterpreterGuard* guard_ = nullptr;
#endif
};

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

/// The C stack of the calling thread.
struct stack_bounds {
  void* start = nullptr;
  std::size_t size = 0;
};

/// Costs 0.5 us on a thread and far more on main: ask once per thread.
[[nodiscard]] inline std::optional<stack_bounds> this_stack() noexcept {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return std::nullopt;
  stack_bounds bounds;
  const int failed = pthread_attr_getstack(&attributes, &bounds.start, &bounds.size);
  pthread_attr_destroy(&attributes);
  if (failed != 0) return std::nullopt;
  return bounds;
}

/// From 3.14 on a state remembers the C stack of the thread that made it, and on another thread's
/// stack unbounded recursion is a crash instead of a RecursionError. The calls that move the guard
/// came in the middle of 3.14 (gh-139653), so they are looked up at run time.
class stack_protection {
 public:
  /// Looks the calls up; false when a state must not be used on a strange stack with this Python.
  [[nodiscard]] static bool find() noexcept {
    if constexpr (!needed) return true;
    const auto look_up = [](auto& call, const char* name) {
      using function = std::remove_reference_t<decltype(call.load())>;
      call.store(reinterpret_cast<function>(dlsym(RTLD_DEFAULT, name)), std::memory_order_relaxed);
      return call.load(std::memory_order_relaxed) != nullptr;
    };
    return look_up(set_, "PyUnstable_ThreadState_SetStackProtection") &&
           look_up(reset_, "PyUnstable_ThreadState_ResetStackProtection");
  }
  /// Caller is attached with `state`. False when CPython refused these bounds.
  [[nodiscard]] static bool set(PyThreadState* state, const stack_bounds& here) noexcept {
    if constexpr (!needed) return true;
    if (set_.load(std::memory_order_relaxed)(state, here.start, here.size) == 0) return true;
    PyErr_Clear();
    return false;
  }
  /// Caller is attached with `state` and about to let it go.
  static void reset(PyThreadState* state) noexcept {
    if constexpr (needed) reset_.load(std::memory_order_relaxed)(state);
  }

  static constexpr bool needed = PY_VERSION_HEX >= 0x030E0000;

 private:
  static inline std::atomic<int (*)(PyThreadState*, void*, std::size_t)> set_{nullptr};
  static inline std::atomic<void (*)(PyThreadState*)> reset_{nullptr};
};

/// Where PyGILState_Ensure looks for this thread's state.
///
/// A thread that runs on a state which is not its own (side, borrowed) must show that state here,
/// or a nested PyGILState_Ensure of any other binding makes a second state and waits for the GIL
/// that the thread itself holds: a deadlock up to 3.12, a fatal error later. CPython has no call
/// for it.
///
/// Up to 3.14 the slot is a pthread key. Its number is private, so it is found by its effect: on a
/// thread that has just got its first state, exactly one key holds that state, and emptying that
/// key makes PyGILState forget it. If the search does not end in exactly that, the strategies that
/// need the slot are refused.
///
/// From 3.15 on it is a thread_local of libpython that only CPython writes: it binds a state to the
/// thread that attaches it, unless the state is still bound elsewhere. `unbind_and_detach` takes
/// that binding away, by public calls alone.
class gilstate_slot {
 public:
  /// What is shown is the state that was attached last, and cannot be chosen.
  static constexpr bool goes_by_attaching = PY_VERSION_HEX >= 0x030F0000;
#if PY_VERSION_HEX >= 0x030F0000
  [[nodiscard]] static bool find() noexcept {
    return true;
  }
  static void show(PyThreadState*) noexcept {}

  /// Detaches `state`, which is attached, so that the next thread that attaches it is bound to it.
  /// A throw-away state takes the binding and dies with it.
  static void unbind_and_detach(PyThreadState* state) noexcept {
    PyThreadState* const throw_away = PyThreadState_New(PyThreadState_GetInterpreter(state));
    if (throw_away == nullptr) {  // no memory: the binding stays, the state is still let go
      PyEval_SaveThread();
      return;
    }
    PyThreadState_Swap(throw_away);
    PyThreadState_Clear(throw_away);
    PyThreadState_DeleteCurrent();
  }
#else
  /// Finds the slot; false when it cannot be found. Caller: attached by PyGILState_Ensure, on a
  /// thread that had no state before.
  [[nodiscard]] static bool find() noexcept {
    PyThreadState* const mine = this_thread_state();
    std::optional<pthread_key_t> only;
    for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; ++key) {
      if (pthread_getspecific(key) != mine) continue;
      if (only) return false;
      only = key;
    }
    if (!only || pthread_setspecific(*only, nullptr) != 0) return false;
    const bool was_it = this_thread_state() == nullptr;
    if (pthread_setspecific(*only, mine) != 0 || !was_it) return false;
    key_.store(*only, std::memory_order_relaxed);
    return true;
  }

  /// Puts `state`, or nothing, into this thread's slot. Any thread, after find().
  static void show(PyThreadState* state) noexcept {
    pthread_setspecific(key_.load(std::memory_order_relaxed), state);
  }

  static void unbind_and_detach(PyThreadState*) noexcept {
    PyEval_SaveThread();
  }

 private:
  static inline std::atomic<pthread_key_t> key_{0};
#endif
};

/// Deleting, from another thread, the state of a thread that has ended.
///
/// CPython documents that it can be done, without the GIL. But builds with assertions assert from
/// 3.12 on that a state is deleted on the thread whose PyGILState slot it is in, and an extension
/// cannot tell such a build from its headers. So it is put into the slot. On 3.15, where that is
/// not possible, a debug build keeps the state until the interpreter ends.
class dead_state {
 public:
  /// Caller: attached by PyGILState_Ensure, on a thread that had no state before.
  [[nodiscard]] static bool can_be_deleted() noexcept {
    if constexpr (PY_VERSION_HEX >= 0x030F0000)
      return dlsym(RTLD_DEFAULT, "_Py_NegativeRefcount") == nullptr;
    return !goes_by_slot || gilstate_slot::find();
  }
  /// Caller: the same thread, without a state again. The state has been cleared.
  static void remove(PyThreadState* state) noexcept {
    if constexpr (goes_by_slot) gilstate_slot::show(state);
    PyThreadState_Delete(state);
  }

 private:
  static constexpr bool goes_by_slot = PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030F0000;
};

/// True where a busy main thread notices a pending call that a thread without a state added. Before
/// 3.13 it notices when something else stops it.
inline constexpr bool pending_calls_interrupt = PY_VERSION_HEX >= 0x030D0000;

/// Who holds the GIL of the main interpreter, seen from any thread, without waiting.
///
/// A hint, out of date when it is given. Up to 3.11 the current state is the process's. From 3.13
/// on CPython publishes where its GIL is for debuggers (_Py_DebugOffsets); that table is believed
/// only if it shows this thread as the holder while this thread is. 3.12 does not tell.
class gil_view {
 public:
  enum class holder : std::uint8_t { unknown, nobody, main, other };

  /// Looks for the GIL, and asks main to introduce itself. Caller: attached to the main
  /// interpreter.
  static void find() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    locked_.store(nullptr, std::memory_order_relaxed);
    if (find_gil() && !shows(current())) locked_.store(nullptr, std::memory_order_relaxed);
#endif
    main_.store(nullptr, std::memory_order_relaxed);
    (void)Py_AddPendingCall(
        [](void*) noexcept {
          main_.store(current(), std::memory_order_relaxed);
          return 0;
        },
        nullptr);
  }

  [[nodiscard]] static holder look() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    const int* const locked = locked_.load(std::memory_order_relaxed);
    if (locked == nullptr) return holder::unknown;
    if (__atomic_load_n(locked, __ATOMIC_RELAXED) == 0) return holder::nobody;
    return is_main(__atomic_load_n(last_holder_, __ATOMIC_RELAXED));
#elif PY_VERSION_HEX < 0x030C0000
    PyThreadState* const attached = current();
    return attached == nullptr ? holder::nobody : is_main(attached);
#else
    return holder::unknown;
#endif
  }

 private:
  [[nodiscard]] static holder is_main(const PyThreadState* state) noexcept {
    return state == main_.load(std::memory_order_relaxed) ? holder::main : holder::other;
  }

#if PY_VERSION_HEX >= 0x030D0000
  [[nodiscard]] static bool shows(const PyThreadState* state) noexcept {
    const int* const locked = locked_.load(std::memory_order_relaxed);
    return __atomic_load_n(locked, __ATOMIC_RELAXED) == 1 &&
           __atomic_load_n(last_holder_, __ATOMIC_RELAXED) == state;
  }

  [[nodiscard]] static bool find_gil() noexcept {
    const void* const runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
    if (runtime == nullptr || std::memcmp(runtime, "xdebugpy", 8) != 0) return false;
    // cookie, version, free_threaded; 3 of the runtime; then those of the interpreter. 3.14 put
    // threads_main before gil_runtime_state.
    constexpr std::size_t gil = PY_VERSION_HEX >= 0x030E0000 ? 16 : 15;
    constexpr std::size_t free_threaded = 2;
    std::uint64_t offsets[gil + 4];
    std::memcpy(offsets, runtime, sizeof offsets);
    if (offsets[free_threaded] != 0) return false;
    const std::uint64_t size = offsets[6];
    const std::uint64_t locked = offsets[gil + 2];
    const std::uint64_t last_holder = offsets[gil + 3];
    if (locked + sizeof(int) > size || last_holder + sizeof(void*) > size) return false;
    auto* const interpreter = reinterpret_cast<char*>(PyInterpreterState_Main());
    last_holder_ = reinterpret_cast<PyThreadState* const*>(interpreter + last_holder);
    locked_.store(reinterpret_cast<const int*>(interpreter + locked), std::memory_order_release);
    return true;
  }

  static inline std::atomic<const int*> locked_{nullptr};
  static inline PyThreadState* const* last_holder_ = nullptr;  // before locked_
#endif
  static inline std::atomic<PyThreadState*> main_{nullptr};
};

}  // namespace moored::inline v0::cpython
