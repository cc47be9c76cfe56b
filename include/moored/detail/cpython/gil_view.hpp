// moored/detail/cpython/gil_view.hpp: which thread holds the GIL, seen without waiting for it.
#pragma once

#include <Python.h>

#include <dlfcn.h>

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
/// only if it shows this thread as the holder while this thread is. 3.12 does not tell.
class gil_view {
 public:
  enum class holder : std::uint8_t { unknown, none, main, other };

  /// Looks for the GIL, and asks main to introduce itself. Caller: attached to the main
  /// interpreter.
  static void find() noexcept {
#if MOORED_PUBLISHES_GIL
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
#if MOORED_PUBLISHES_GIL
    const int* const locked = locked_.load(std::memory_order_acquire);
    if (locked == nullptr) return holder::unknown;
    if (__atomic_load_n(locked, __ATOMIC_RELAXED) == 0) return holder::none;
    return is_main(__atomic_load_n(last_holder_, __ATOMIC_RELAXED));
#elif !MOORED_CURRENT_IS_PER_THREAD
    PyThreadState* const attached = current();
    return attached == nullptr ? holder::none : is_main(attached);
#else
    return holder::unknown;
#endif
  }

 private:
  [[nodiscard]] static holder is_main(const PyThreadState* state) noexcept {
    return state == main_.load(std::memory_order_relaxed) ? holder::main : holder::other;
  }

#if MOORED_PUBLISHES_GIL
  [[nodiscard]] static bool shows(const PyThreadState* state) noexcept {
    const int* const locked = locked_.load(std::memory_order_acquire);
    return __atomic_load_n(locked, __ATOMIC_RELAXED) == 1 &&
           __atomic_load_n(last_holder_, __ATOMIC_RELAXED) == state;
  }

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

  static inline std::atomic<const int*> locked_{nullptr};
  static inline PyThreadState* const* last_holder_ = nullptr;  // before locked_
#endif
  static inline std::atomic<PyThreadState*> main_{nullptr};
};

}  // namespace cpython
MOORED_NAMESPACE_END
