// moored/detail/cpython/current_word.hpp: the word in which CPython keeps the current thread state.
//
// To ask CPython takes a call, from 3.12 on mostly two, and that was most of what an attach adds to
// CPython's own calls. So the word is looked for, and read where it is found.
#pragma once

#include <Python.h>

#include <dlfcn.h>
#include <link.h>

#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// Up to 3.11 the word lies in _PyRuntime, and is the process's. From 3.12 on it is a thread_local
/// of the interpreter, at the same distance from every thread's pointer when the interpreter was
/// loaded with the program. That is known of x86-64 alone.
///
/// CPython does not say where, so the word is found by its effect: it is the only one there that
/// holds a thread's state while that is attached, and null when it is detached. If the search does
/// not end in exactly that, CPython is asked, as it is before.
class current_word {
 public:
  /// The thread state that is attached, or null. Any thread.
  [[nodiscard]] MOORED_ALWAYS_INLINE PyThreadState* read() const noexcept {
    const std::intptr_t distance = distance_.load(std::memory_order_relaxed);
    if (MOORED_UNLIKELY(distance == 0)) return ask();
    PyThreadState* const found = value(reinterpret_cast<const word*>(origin() + distance));
    assert(!current_is_per_thread || found == ask());  // else another thread may come between them
    return found;
  }
  /// The same by CPython's own call.
  [[nodiscard]] static PyThreadState* ask() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
  }
  /// Any thread.
  [[nodiscard]] bool is_found() const noexcept {
    return distance_.load(std::memory_order_relaxed) != 0;
  }

  /// Looks for it, once. Attached; detaches the thread and attaches it again. Not noexcept: a late
  /// thread may be unwound there (see versions.hpp).
  void find() {
    if (is_found()) return;
    PyThreadState* const mine = ask();
    std::array<const word*, 8> holding{};
    std::size_t count = 0;
    const range all = memory();
    for (const word* one = all.begin; one != all.end; ++one) {
      if (value(one) != mine) continue;
      if (count == holding.size()) return;
      holding[count++] = one;
    }
    // Up to 3.11 another thread may be attached as soon as this one is not: then again.
    for (int tries = 8; tries != 0 && count != 0; --tries) {
      const word* emptied = nullptr;
      std::size_t many = 0;
      PyEval_SaveThread();
      for (std::size_t at = 0; at != count; ++at) {
        if (value(holding[at]) != nullptr) continue;
        emptied = holding[at];
        ++many;
      }
      PyEval_RestoreThread(mine);
      if (many == 0) continue;
      if (many == 1)
        distance_.store(reinterpret_cast<std::intptr_t>(emptied) - origin(),
                        std::memory_order_relaxed);
      return;
    }
  }

 private:
  using word = PyThreadState*;
  struct range {
    const word* begin = nullptr;
    const word* end = nullptr;
  };

  /// As CPython reads it, which no sanitizer sees: the next life of the interpreter copies all of
  /// _PyRuntime, and with it a null over the null that the last one has left here.
  [[nodiscard]] __attribute__((no_sanitize("thread"))) static PyThreadState* value(
      const word* at) noexcept {
    return __atomic_load_n(at, __ATOMIC_RELAXED);
  }
  [[nodiscard]] static range words(std::uintptr_t from, std::size_t bytes) noexcept {
    constexpr std::uintptr_t size = sizeof(word);
    const std::uintptr_t first = (from + size - 1) / size * size,
                         last = (from + bytes) / size * size;
    if (last <= first) return {};
    return {reinterpret_cast<const word*>(first), reinterpret_cast<const word*>(last)};
  }

#if !MOORED_CURRENT_IS_PER_THREAD
  [[nodiscard]] static std::intptr_t origin() noexcept {
    return 0;
  }

  [[nodiscard]] static range memory() noexcept {
#ifdef __GLIBC__
    const void* const runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
    Dl_info object;
    void* symbol = nullptr;
    if (runtime != nullptr && dladdr1(runtime, &object, &symbol, RTLD_DL_SYMENT) != 0 &&
        symbol != nullptr)
      return words(reinterpret_cast<std::uintptr_t>(runtime),
                   static_cast<const ElfW(Sym)*>(symbol)->st_size);
#endif
    return {};
  }
#elif defined(__x86_64__)
  [[nodiscard]] MOORED_ALWAYS_INLINE static std::intptr_t origin() noexcept {
    std::intptr_t thread = 0;
    asm("mov %%fs:0, %0" : "=r"(thread));
    return thread;
  }

  /// The calling thread's thread_locals of the object that the interpreter is in. Those of what was
  /// loaded with the program lie below the thread's pointer, between that and the thread's stack;
  /// for what was loaded later each thread has them elsewhere: then nothing.
  [[nodiscard]] static range memory() noexcept {
    struct search {
      std::uintptr_t inside;
      range found;
    } of{reinterpret_cast<std::uintptr_t>(PySet_Type.tp_repr), {}};
    dl_iterate_phdr(
        [](dl_phdr_info* object, std::size_t, void* given) noexcept {
          search& wanted = *static_cast<search*>(given);
          bool is_there = false;
          std::size_t bytes = 0;
          for (const auto* part = object->dlpi_phdr; part != object->dlpi_phdr + object->dlpi_phnum;
               ++part) {
            if (part->p_type == PT_LOAD)
              is_there |= wanted.inside - (object->dlpi_addr + part->p_vaddr) < part->p_memsz;
            if (part->p_type == PT_TLS) bytes = part->p_memsz;
          }
          const auto begin = reinterpret_cast<std::uintptr_t>(object->dlpi_tls_data);
          const std::uintptr_t below = static_cast<std::uintptr_t>(origin()) - begin;
          constexpr std::uintptr_t near = 64 * 1024;
          if (is_there && begin != 0 && below < near) wanted.found = words(begin, bytes);
          return static_cast<int>(is_there);
        },
        &of);
    return of.found;
  }
#else
  [[nodiscard]] static std::intptr_t origin() noexcept {
    return 0;
  }
  [[nodiscard]] static range memory() noexcept {
    return {};
  }
#endif

  std::atomic<std::intptr_t> distance_{0};
};

MOORED_CONSTINIT inline current_word the_current_word;

}  // namespace cpython
MOORED_NAMESPACE_END
