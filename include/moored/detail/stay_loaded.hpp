// moored/detail/stay_loaded.hpp: keeps a library that has left hooks behind in memory.
//
// An atexit callback, a capsule with a destructor, a pthread key, a pending call: each is a pointer
// into the library that CPython or the C library calls later, whatever became of the library. So it
// is made to stay before it leaves the first one.
#pragma once

#include <dlfcn.h>

#include <atomic>

#include "config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Keeps the library that `inside` points into in memory for good. Any thread, attached or not.
inline void stay_loaded(const void* inside) noexcept {
  Dl_info where{};
  if (dladdr(inside, &where) == 0 || where.dli_fname == nullptr) return;
  // Not loaded again, nor searched for: the loader has it under just this name. The program itself
  // has no such name, and stays anyway.
  if (dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) == nullptr) (void)dlerror();
}

/// The same for the library that this copy of the header is compiled into. Called before each hook
/// that it leaves behind; after the first time it does nothing.
inline void stay_loaded() noexcept {
  MOORED_CONSTINIT static std::atomic<bool> stays{false};
  if (MOORED_LIKELY(stays.load(std::memory_order_relaxed))) return;
  stay_loaded(&stays);
  stays.store(true, std::memory_order_relaxed);
}

}  // namespace detail
MOORED_NAMESPACE_END
