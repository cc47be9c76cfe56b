// closing: closing PLUGIN FUNCTION THREAD: calls the plugin's function, on a thread of its own if
// THREAD is 1, closes the plugin, and ends Python. Prints whether the plugin is still there.
#include <Python.h>

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <thread>

int main(int, char** words) {
  Py_Initialize();
  // What the handler prints comes out before what this program prints.
  PyRun_SimpleString("import sys; sys.stdout.reconfigure(line_buffering=True)");
  void* const plugin = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) return std::fprintf(stderr, "%s\n", dlerror());
  void* const function = dlsym(plugin, words[2]);
  if (function == nullptr) return std::fprintf(stderr, "%s\n", dlerror());
  const auto call_and_close = [&] {
    if (std::strcmp(words[2], "tell") == 0) {
      PyObject* const handler = PyDict_GetItemString(PyEval_GetBuiltins(), "print");
      reinterpret_cast<void (*)(PyObject*)>(function)(handler);
    } else {
      reinterpret_cast<void (*)()>(function)();
    }
    dlclose(plugin);
  };
  if (std::strcmp(words[3], "1") == 0) {
    PyThreadState* const main_thread = PyEval_SaveThread();
    std::thread(call_and_close).join();
    PyEval_RestoreThread(main_thread);
  } else {
    call_and_close();
  }
  std::puts(dlopen(words[1], RTLD_NOW | RTLD_NOLOAD) != nullptr ? "there" : "gone");
  std::fflush(stdout);
  return Py_FinalizeEx();
}
