// moored/detail/cpython/stack_protection.hpp: the C stack that a state believes to be on.
#pragma once

#include <Python.h>

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <type_traits>

#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

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
  /// Looks the calls up; false when a state must not be used on another thread's stack with this
  /// Python.
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

  static constexpr bool needed = protects_stacks;

 private:
  static inline std::atomic<int (*)(PyThreadState*, void*, std::size_t)> set_{nullptr};
  static inline std::atomic<void (*)(PyThreadState*)> reset_{nullptr};
};

}  // namespace cpython
MOORED_NAMESPACE_END
