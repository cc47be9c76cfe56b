// process/refusals.cpp: the C library functions and allocators of faults.hpp.
#include "refusals.hpp"

#include <Python.h>

#include <dlfcn.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <new>

using moored_test::fault;
using moored_test::the_faults;

namespace {

/// The function that this executable's own one hides. Looked up at each call: a static would have
/// to be guarded by what is being replaced.
template <class Function>
[[nodiscard]] Function* real(const char* name) noexcept {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Which descriptors are eventfds. The rest of the process reads and writes as it likes.
std::array<std::atomic<bool>, 4096> is_eventfd{};

[[nodiscard]] bool known_eventfd(int fd) noexcept {
  return fd >= 0 && static_cast<std::size_t>(fd) < is_eventfd.size() &&
         is_eventfd[static_cast<std::size_t>(fd)].load();
}

std::atomic<std::int64_t> clock_offset{0};
std::atomic<std::int64_t> clock_stands_at{-1};

[[nodiscard]] std::int64_t real_now() noexcept {
  timespec now{};
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

[[nodiscard]] bool no_memory(fault& of) noexcept {
  return (moored_test::memory_is_short || moored_test::memory_is_short_everywhere) && of.strikes();
}

}  // namespace

extern "C" {

int eventfd(unsigned count, int flags) {
  if (the_faults.eventfd.strikes()) return -1;
  const auto fd = static_cast<int>(syscall(SYS_eventfd2, count, flags));
  if (fd >= 0 && static_cast<std::size_t>(fd) < is_eventfd.size())
    is_eventfd[static_cast<std::size_t>(fd)] = true;
  return fd;
}

ssize_t read(int fd, void* into, size_t size) {
  if (known_eventfd(fd) && the_faults.read.strikes()) return -1;
  return syscall(SYS_read, fd, into, size);
}

ssize_t write(int fd, const void* from, size_t size) {
  if (known_eventfd(fd) && the_faults.write.strikes()) return -1;
  return syscall(SYS_write, fd, from, size);
}

int close(int fd) {
  if (known_eventfd(fd)) is_eventfd[static_cast<std::size_t>(fd)] = false;
  return static_cast<int>(syscall(SYS_close, fd));
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) noexcept {
  if (the_faults.pthread_create.strikes()) return the_faults.pthread_create.error();
  return real<decltype(pthread_create)>("pthread_create")(thread, attributes, start, argument);
}

int pthread_key_create(pthread_key_t* key, void (*destroy)(void*)) noexcept {
  if (the_faults.pthread_key_create.strikes()) return the_faults.pthread_key_create.error();
  return real<decltype(pthread_key_create)>("pthread_key_create")(key, destroy);
}

// pthread_atfork is no function of libc.so; this is what it calls.
int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(), void* library);

int pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept {
  if (the_faults.pthread_atfork.strikes()) return the_faults.pthread_atfork.error();
  return __register_atfork(prepare, parent, child, nullptr);
}

int clock_gettime(clockid_t which, timespec* into) noexcept {
  if (which != CLOCK_MONOTONIC) return static_cast<int>(syscall(SYS_clock_gettime, which, into));
  const std::int64_t stands_at = clock_stands_at;
  const std::int64_t now = (stands_at >= 0 ? stands_at : real_now()) + clock_offset;
  into->tv_sec = now / 1'000'000'000;
  into->tv_nsec = now % 1'000'000'000;
  return 0;
}

}  // extern "C"

void* operator new(std::size_t size) {
  if (no_memory(the_faults.operator_new)) throw std::bad_alloc();
  if (void* const block = std::malloc(size != 0 ? size : 1)) return block;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (no_memory(the_faults.operator_new)) return nullptr;
  return std::malloc(size != 0 ? size : 1);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  if (no_memory(the_faults.operator_new)) throw std::bad_alloc();
  const auto unit = static_cast<std::size_t>(alignment);
  if (void* const block = std::aligned_alloc(unit, (size + unit - 1) / unit * unit)) return block;
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept {
  std::free(block);
}
void operator delete(void* block, std::size_t) noexcept {
  std::free(block);
}
void operator delete(void* block, const std::nothrow_t&) noexcept {
  std::free(block);
}
void operator delete(void* block, std::align_val_t) noexcept {
  std::free(block);
}
void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  std::free(block);
}

namespace moored_test {

void own_python_memory() noexcept {
  static std::array<PyMemAllocatorEx, 3> below{};
  for (const PyMemAllocatorDomain domain : {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ}) {
    PyMemAllocatorEx& real_one = below[domain];
    PyMem_GetAllocator(domain, &real_one);
    PyMemAllocatorEx ours{
        &real_one,
        [](void* context, std::size_t size) -> void* {
          const auto* const its = static_cast<PyMemAllocatorEx*>(context);
          return no_memory(the_faults.python_memory) ? nullptr : its->malloc(its->ctx, size);
        },
        [](void* context, std::size_t count, std::size_t size) -> void* {
          const auto* const its = static_cast<PyMemAllocatorEx*>(context);
          return no_memory(the_faults.python_memory) ? nullptr : its->calloc(its->ctx, count, size);
        },
        [](void* context, void* block, std::size_t size) -> void* {
          const auto* const its = static_cast<PyMemAllocatorEx*>(context);
          return no_memory(the_faults.python_memory) ? nullptr
                                                     : its->realloc(its->ctx, block, size);
        },
        [](void* context, void* block) {
          const auto* const its = static_cast<PyMemAllocatorEx*>(context);
          its->free(its->ctx, block);
        },
    };
    PyMem_SetAllocator(domain, &ours);
  }
}

void monotonic_clock::jump(std::chrono::nanoseconds forward) noexcept {
  clock_offset += forward.count();
}

void monotonic_clock::stop() noexcept {
  clock_stands_at = real_now();
}

}  // namespace moored_test
