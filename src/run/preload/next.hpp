// next.hpp: the functions before which this library puts its own, because it is preloaded.
#pragma once

#include <dlfcn.h>

#include <atomic>

#define MOORED_EXPORT [[gnu::visibility("default")]]

namespace moored::run {

/// The function of this name that comes next: the C library's, or that of another preloaded
/// library.
///
/// Each is found when this library is loaded, for dlsym may allocate, and the function may be
/// called where nothing may: in a signal's handler, or between fork and exec. What is called still
/// earlier, while other libraries are loaded, finds it then.
template <class Function>
class next_function {
 public:
  /// With a version, the function of that version, where there are several. Of those of a condition
  /// variable dlsym may answer, up to glibc 2.35, with the ones of before 2.3.2, whose conditions
  /// look different.
  constexpr explicit next_function(const char* name, const char* version = nullptr) noexcept
      : name_(name), version_(version) {}

  Function* find() noexcept {
    void* found = found_.load(std::memory_order_relaxed);
    if (found == nullptr) {
      if (version_ != nullptr) found = dlvsym(RTLD_NEXT, name_, version_);
      if (found == nullptr) found = dlsym(RTLD_NEXT, name_);
      found_.store(found, std::memory_order_relaxed);
    }
    return reinterpret_cast<Function*>(found);
  }

 private:
  const char* name_;
  const char* version_;
  std::atomic<void*> found_{nullptr};
};

}  // namespace moored::run
