// moored/detail/cpython/gil_view.hpp: which thread holds the GIL, seen without waiting for it.
#pragma once

#include <Python.h>

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "calls.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// Which thread holds the GIL of the main interpreter, seen from any thread, without waiting.
///
/// A hint, out of date when it is given. Up to 3.11 the current state is the process's. From 3.13
/// on CPython publishes where its GIL is for debuggers (_Py_DebugOffsets); that table is believed
/// only if it shows this thread as the holder while this thread is. In 3.12 it is found beside the
/// condition on which a thread has waited for it, and believed after the same check.
class gil_view {
 public:
  enum class holder : std::uint8_t { unknown, none, main, other };

  /// Looks for the GIL, and asks main to introduce itself. Caller: attached to the main
  /// interpreter.
  static void find() noexcept {
#if MOORED_CURRENT_IS_PER_THREAD
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

  /// The calling thread is about to wait on this condition for a GIL, whose mutex it holds. True
  /// when that shows what is not known yet: then find() is to be called again.
  [[nodiscard]] static bool learn_from([[maybe_unused]] const void* condition) noexcept {
#if MOORED_GIL_IS_SHOWN_BY_WAITERS
    return locked_.load(std::memory_order_relaxed) == nullptr &&
           waited_on_.exchange(condition, std::memory_order_relaxed) != condition;
#else
    return false;
#endif
  }

  [[nodiscard]] static holder look() noexcept {
#if MOORED_CURRENT_IS_PER_THREAD
    const int* const locked = locked_.load(std::memory_order_acquire);
    if (locked == nullptr) return holder::unknown;
    if (__atomic_load_n(locked, __ATOMIC_RELAXED) == 0) return holder::none;
    return is_main(__atomic_load_n(last_holder_, __ATOMIC_RELAXED));
#else
    PyThreadState* const attached = current();
    return attached == nullptr ? holder::none : is_main(attached);
#endif
  }

 private:
  [[nodiscard]] static holder is_main(const PyThreadState* state) noexcept {
    return state == main_.load(std::memory_order_relaxed) ? holder::main : holder::other;
  }

#if MOORED_CURRENT_IS_PER_THREAD
  [[nodiscard]] static bool shows(const PyThreadState* state) noexcept {
    const int* const locked = locked_.load(std::memory_order_acquire);
    return __atomic_load_n(locked, __ATOMIC_RELAXED) == 1 &&
           __atomic_load_n(last_holder_, __ATOMIC_RELAXED) == state;
  }

#if MOORED_PUBLISHES_GIL
  [[nodiscard]] static bool find_gil() noexcept {
    const void* const runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
    if (runtime == nullptr || std::memcmp(runtime, "xdebugpy", 8) != 0) return false;
    // cookie, version, free_threaded; 3 of the runtime; then those of the interpreter.
    constexpr std::size_t gil = place_of_gil_offsets;
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
#else
  /// In struct _gil_runtime_state last_holder, locked and switch_number lie before the condition.
  [[nodiscard]] static bool find_gil() noexcept {
    const auto* const condition =
        static_cast<const char*>(waited_on_.load(std::memory_order_relaxed));
    if (condition == nullptr || !is_in_runtime(condition)) return false;
    last_holder_ = reinterpret_cast<PyThreadState* const*>(condition - 24);
    locked_.store(reinterpret_cast<const int*>(condition - 16), std::memory_order_release);
    return true;
  }
  /// The main interpreter, and with it its GIL, lies in _PyRuntime. A subinterpreter that has a GIL
  /// of its own may be gone by now, with the memory.
  [[nodiscard]] static bool is_in_runtime(const char* place) noexcept {
    const auto* const runtime = static_cast<const char*>(dlsym(RTLD_DEFAULT, "_PyRuntime"));
    Dl_info object;
    void* symbol = nullptr;
    if (runtime == nullptr || dladdr1(runtime, &object, &symbol, RTLD_DL_SYMENT) == 0 ||
        symbol == nullptr)
      return false;
    const auto size = static_cast<const ElfW(Sym)*>(symbol)->st_size;
    return place >= runtime && static_cast<std::size_t>(place - runtime) < size;
  }
  static inline std::atomic<const void*> waited_on_{nullptr};
#endif

  static inline std::atomic<const int*> locked_{nullptr};
  static inline PyThreadState* const* last_holder_ = nullptr;  // before locked_
#endif
  static inline std::atomic<PyThreadState*> main_{nullptr};
};

}  // namespace cpython
MOORED_NAMESPACE_END
