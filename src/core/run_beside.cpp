// run_beside.cpp: `moored run`, when this is in a program that it has started.
#include "run_beside.hpp"

#include <dlfcn.h>

#define MOORED_TEXT_OF(name) #name
#define MOORED_TEXT(name) MOORED_TEXT_OF(name)

namespace moored_core {

using moored::run::run_table;

const run_table* run_beside() {
  static const auto* const found =
      static_cast<const run_table*>(dlsym(RTLD_DEFAULT, MOORED_TEXT(MOORED_RUN_TABLE)));
  return found != nullptr && found->size >= sizeof(run_table) ? found : nullptr;
}

}  // namespace moored_core
