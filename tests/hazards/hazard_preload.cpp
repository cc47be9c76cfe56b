// hazard_preload: what a simple accelerator preloads to replace PyGILState_Ensure; it counts the
// calls that reach it.
#include <dlfcn.h>

extern "C" int PyGILState_Ensure() {
  static const auto real = reinterpret_cast<int (*)()>(dlsym(RTLD_NEXT, "PyGILState_Ensure"));
  extern int preloaded_calls;
  ++preloaded_calls;
  return real();
}

int preloaded_calls = 0;

extern "C" int count_preloaded_calls() {
  return preloaded_calls;
}
