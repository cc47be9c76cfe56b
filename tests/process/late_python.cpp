// late_python: a program that opens libpython when it runs, as uWSGI does, and then this file again
// as a library in which native threads attach. Started as: late_python LIBPYTHON LIBRARY
#include <dlfcn.h>

#include <cstdio>

#ifdef LATE_LIBRARY
#include <moored/moored.hpp>

#include <atomic>
#include <thread>
#include <vector>

constexpr int several = 3;

/// Ends Python in the end. Returns how many threads called it well.
extern "C" [[gnu::visibility("default")]] int attach_threads() {
  using moored::cpython::current_word;
  using moored::cpython::the_current_word;
  Py_Initialize();
  std::atomic<int> here{0}, fine{0};
  {
    const moored::detachment others_turn;
    std::vector<std::thread> threads;
    for (int index = 0; index < several; ++index) {
      threads.emplace_back([&] {
        bool agrees = true;
        for (int call = 0; call < 100; ++call) {
          const moored::attachment attached = moored::try_attach();
          agrees = agrees && attached && the_current_word.read() == current_word::ask() &&
                   PyRun_SimpleString("import sys") == 0;
          if (call != 0) continue;
          const moored::detachment in_between;  // until all are there, each with its own memory
          for (++here; here != several;) std::this_thread::yield();
        }
        fine += agrees;
      });
    }
    for (std::thread& one : threads) one.join();
  }
  Py_Finalize();
  return fine;
}
#else
int main(int words, char** word) {
  if (words != 3) return 2;
  void* const python = dlopen(word[1], RTLD_NOW | RTLD_GLOBAL);
  void* const library = python == nullptr ? nullptr : dlopen(word[2], RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const auto attach_threads = reinterpret_cast<int (*)()>(dlsym(library, "attach_threads"));
  std::printf("%d\n", attach_threads());
  return 0;
}
#endif
