// watch_descriptors.cpp: the calls by which a program closes a descriptor or gives its number away.
//
// They stand before the C library's own because this library is preloaded. Each does what the real
// one does. Any thread may call them, a signal's handler, and the child of vfork.
#include <unistd.h>

#include <cstdio>

#include "first_descriptor.hpp"
#include "next.hpp"

namespace moored::run {

namespace {

next_function<int(int, int)> next_dup2("dup2");
next_function<int(int, int, int)> next_dup3("dup3");
next_function<int(int)> next_close("close");
next_function<FILE*(const char*, const char*, FILE*)> next_freopen("freopen");
next_function<FILE*(const char*, const char*, FILE*)> next_freopen64("freopen64");

[[gnu::constructor]] void find_next() {
  next_dup2.find();
  next_dup3.find();
  next_close.find();
  next_freopen.find();
  next_freopen64.find();
}

void before_it_goes(int number) noexcept {
  first_stderr.keep(number);
  first_document.keep(number);
}

}  // namespace

extern "C" {

MOORED_EXPORT int dup2(int from, int to) noexcept {
  if (from != to) before_it_goes(to);
  return next_dup2.find()(from, to);
}

MOORED_EXPORT int dup3(int from, int to, int flags) noexcept {
  if (from != to) before_it_goes(to);
  return next_dup3.find()(from, to, flags);
}

// Not noexcept: a thread may be cancelled in it.
MOORED_EXPORT int close(int number) {
  before_it_goes(number);
  return next_close.find()(number);
}

MOORED_EXPORT FILE* freopen(const char* path, const char* mode, FILE* stream) {
  if (stream != nullptr) before_it_goes(fileno(stream));
  return next_freopen.find()(path, mode, stream);
}

MOORED_EXPORT FILE* freopen64(const char* path, const char* mode, FILE* stream) {
  if (stream != nullptr) before_it_goes(fileno(stream));
  return next_freopen64.find()(path, mode, stream);
}

}  // extern "C"

}  // namespace moored::run
