// real_functions.hpp: the C library's own versions of the functions that thread_end.cpp and joins.cpp
// define.
#pragma once

#include <dlfcn.h>

#include <atomic>

namespace moored::run {

/// What `name` would be without this library, looked up once. Any thread, at any time: other
/// preloaded libraries may call before this one's constructors have run.
template <class Function>
class real_function {
 public:
  constexpr explicit real_function(const char* name) noexcept : name_(name) {}
  [[nodiscard]] Function* get() noexcept {
    Function* const known = found_.load(std::memory_order_relaxed);
    return known != nullptr ? known : look_up();
  }

 private:
  [[nodiscard, gnu::noinline]] Function* look_up() noexcept {
    // Without a version dlsym may answer, up to glibc 2.35, with a condition variable's functions
    // of before 2.3.2, whose conditions look different. Where there was never another (ARM), or the
    // next library has no versions (a sanitizer), the name alone is enough.
    void* found = dlvsym(RTLD_NEXT, name_, "GLIBC_2.3.2");
    if (found == nullptr) found = dlsym(RTLD_NEXT, name_);
    auto* const function = reinterpret_cast<Function*>(found);
    found_.store(function, std::memory_order_relaxed);
    return function;
  }

  const char* name_;
  std::atomic<Function*> found_{nullptr};
};

}  // namespace moored::run
