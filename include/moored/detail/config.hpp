// moored/detail/config.hpp: what the headers ask of the compiler, and the macros by which they ask.
//
// C++17 and C++20, g++ 10 or later and clang 13 or later. Every header includes this one first or
// stands on one that does.
#pragma once

#if __cplusplus < 201703L
#error "moored needs C++17: compile with -std=c++17 or later"
#define MOORED_UNSUITED
#elif !defined(__cpp_exceptions)
#error "moored needs C++ exceptions: compile without -fno-exceptions"
#define MOORED_UNSUITED
#elif defined(Py_LIMITED_API)
#error "moored needs CPython's full API: compile this source without Py_LIMITED_API"
#define MOORED_UNSUITED
#endif
#ifdef MOORED_UNSUITED
#include "that_error_ends_it"  // there is no such file: the compiler stops, after that one error
#endif

/// Opens and closes namespace moored. The inline namespace changes with every incompatible version.
///
/// Hidden, so that each shared library keeps its copy to itself: inline variables of two copies
/// with different layouts would otherwise be merged by the dynamic linker, even across RTLD_LOCAL
/// (GNU's unique symbols). What copies share goes through documented C tables alone.
#define MOORED_NAMESPACE_BEGIN \
  namespace moored {           \
  inline namespace v0 __attribute__((visibility("hidden"))) {
#define MOORED_NAMESPACE_END \
  }                          \
  }

/// A class that users keep as a member of theirs is itself visible: g++ warns of a visible class
/// with a member of a hidden type. Its functions, which reach what is hidden, are not.
#define MOORED_PUBLIC_TYPE [[gnu::visibility("default")]]
#define MOORED_HIDDEN [[gnu::visibility("hidden")]]

/// For what an attach goes through: a call of its own would cost as much as what is in it.
#define MOORED_ALWAYS_INLINE __attribute__((always_inline)) inline

#define MOORED_LIKELY(condition) (__builtin_expect(static_cast<bool>(condition), 1))
#define MOORED_UNLIKELY(condition) (__builtin_expect(static_cast<bool>(condition), 0))

/// Initialised before any code runs: what native threads, destructors and fork handlers reach at
/// any time must not depend on the order of constructors.
#if defined(__clang__)
#define MOORED_CONSTINIT [[clang::require_constant_initialization]]
#elif __cplusplus >= 202002L
#define MOORED_CONSTINIT constinit
#elif defined(__GNUC__) && __GNUC__ >= 10
#define MOORED_CONSTINIT __constinit
#else
#define MOORED_CONSTINIT
#endif

/// With MOORED_INITIAL_EXEC_TLS defined, the thread record is reached at a fixed offset from the
/// thread pointer, which is some ns cheaper an attach. It is for libraries that are loaded when the
/// program starts, and for those that are known to be few: it takes the whole TLS segment of its
/// library out of the small reserve that glibc keeps for libraries loaded later, and a library that
/// finds the reserve used up does not load.
/// Ignored where the C library is not glibc: others load no such library late at all.
#ifdef MOORED_INITIAL_EXEC_TLS
#include <stdlib.h>  // which says whether it is glibc
#endif
#if defined(MOORED_INITIAL_EXEC_TLS) && defined(__GLIBC__)
#define MOORED_TLS_MODEL [[gnu::tls_model("initial-exec")]]
#else
#define MOORED_TLS_MODEL
#endif

/// Clang's thread-safety analysis (`make lint`); nothing for other compilers.
#if defined(__clang__)
#define MOORED_ANALYSIS(what) __attribute__((what))
#else
#define MOORED_ANALYSIS(what)
#endif
#define MOORED_CAPABILITY MOORED_ANALYSIS(capability("mutex"))
#define MOORED_SCOPED_CAPABILITY MOORED_ANALYSIS(scoped_lockable)
#define MOORED_GUARDED_BY(lock) MOORED_ANALYSIS(guarded_by(lock))
#define MOORED_REQUIRES(lock) MOORED_ANALYSIS(requires_capability(lock))
#define MOORED_EXCLUDES(lock) MOORED_ANALYSIS(locks_excluded(lock))
#define MOORED_ACQUIRE(...) MOORED_ANALYSIS(acquire_capability(__VA_ARGS__))
#define MOORED_TRY_ACQUIRE(...) MOORED_ANALYSIS(try_acquire_capability(__VA_ARGS__))
#define MOORED_RELEASE(...) MOORED_ANALYSIS(release_capability(__VA_ARGS__))
#define MOORED_UNCHECKED MOORED_ANALYSIS(no_thread_safety_analysis)
