// late_python: a program that opens libpython when it runs, as uWSGI does, and then this file again
// as a library in which native threads attach. Started as: late_python LIBPYTHON LIBRARY
#include <dlfcn.h>

#include <cstdio>

#ifdef LATE_LIBRARY
#include <moored/moored.hpp>

#include <thread>

/// Ends Python in the end. Returns how many threads called it well.
extern "C" [[gnu::visibility("default")]] int attach_threads() {
  using moored::cpython::current_word;
  using moored::cpython::the_current_word;
  Py_Initialize();
  int fine = 0;
  {
    const moored::detachment others_turn;
    for (int thread = 0; thread < 3; ++thread) {
      std::thread([&fine] {
        bool agrees = the_current_word.read() == nullptr;
        for (int call = 0; call < 100; ++call) {
          const moored::attachment attached = moored::try_attach();
          agrees = agrees && attached && the_current_word.read() == current_word::ask() &&
                   PyRun_SimpleString("import sys") == 0;
        }
        fine += agrees;
      }).join();
    }
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
