// audit.cpp: libmoored_audit.so, which sends other people's references to the preloaded library.
//
// The dynamic loader asks it about every binding of a symbol (rtld-audit(7)). It links to nothing,
// so that it costs no second C library, and it defines no la_pltenter, so that calls go straight.
#include <link.h>

#include "../protocol.hpp"
#include "eager_references.hpp"
#include "elf_object.hpp"

namespace {

using moored::audit::elf_object;
using moored::audit::same_text;

// The version of the interface since which the loader reports bindings under BIND_NOW, and no
// longer slows down all calls: glibc 2.35.
constexpr unsigned interface_version = 2;

struct hook {
  const char* name;
  const char* replacement_name;
  const char* real_name;
  bool is_for_makers;
  std::uintptr_t replacement;
  std::uintptr_t* real;
};

#define MOORED_TEXT_OF(name) #name
#define MOORED_TEXT(name) MOORED_TEXT_OF(name)
#define MOORED_ANY_HOOK(f, is_for_makers)                                                        \
  {#f,     MOORED_TEXT(MOORED_HOOK_NAME(f)), MOORED_TEXT(MOORED_REAL_NAME(f)), is_for_makers, 0, \
   nullptr},
#define MOORED_HOOK(f) MOORED_ANY_HOOK(f, false)
#define MOORED_HOOK_OF_MAKERS(f) MOORED_ANY_HOOK(f, true)
constinit hook hooks[] = {MOORED_FOR_EACH_HOOK(MOORED_HOOK)
                              MOORED_FOR_EACH_HOOK_OF_MAKERS(MOORED_HOOK_OF_MAKERS)};

constinit bool* must_look = nullptr;

/// Reads where the preloaded library has its replacements. Their addresses are known before the
/// library itself is relocated; nothing of it is called yet.
void find_replacements(const elf_object& keep_library) noexcept {
  must_look = static_cast<bool*>(keep_library.defined(MOORED_TEXT(MOORED_MUST_LOOK)));
  for (hook& one : hooks) {
    one.real = static_cast<std::uintptr_t*>(keep_library.defined(one.real_name));
    one.replacement = reinterpret_cast<std::uintptr_t>(keep_library.defined(one.replacement_name));
  }
}

[[nodiscard]] hook* hook_named(const char* name) noexcept {
  if (name[0] != 'P' || name[1] != 'y') return nullptr;
  for (hook& one : hooks) {
    if (same_text(one.name, name)) return &one;
  }
  return nullptr;
}

/// True for an object that makes states by itself, as pybind11 does for a thread that has none.
[[nodiscard]] bool makes_its_own_state(const link_map& map) noexcept {
  bool makes = false;
  elf_object(map).for_each_import([&makes](std::uint32_t, const char* name) noexcept {
    makes = makes || same_text(name, "PyThreadState_New");
  });
  return makes;
}

/// The first Python of the process is the one that is redirected. Bindings are made by any thread.
[[nodiscard]] bool note_real(hook& one, std::uintptr_t address) noexcept {
  std::uintptr_t none = 0;
  return __atomic_compare_exchange_n(one.real, &none, address, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE) ||
         none == address;
}

}  // namespace

extern "C" {

[[gnu::visibility("default")]] unsigned la_version(unsigned offered) {
  return offered < interface_version ? 0 : interface_version;
}

[[gnu::visibility("default")]] unsigned la_objopen(link_map* map, Lmid_t space,
                                                   [[maybe_unused]] std::uintptr_t* cookie) {
  if (space != LM_ID_BASE) return 0;
  const elf_object object(*map);
  if (moored::audit::is_named(map->l_name, MOORED_KEEP_LIBRARY)) {
    find_replacements(object);
    return 0;  // what it refers to is the real thing
  }
  // The recorder redirects a reference of that module's, when it was relocated.
  if (must_look != nullptr && object.defined("PyInit__socket") != nullptr)
    __atomic_store_n(must_look, true, __ATOMIC_RELAXED);
  object.for_each_import([&](std::uint32_t symbol, const char* name) noexcept {
    if (hook_named(name) != nullptr) moored::audit::have_it_reported(*map, object, symbol);
  });
  // Bindings are reported when both ends want it: to a Python, from any object.
  const bool is_python = object.defined(hooks[0].name) != nullptr;
  return is_python ? LA_FLG_BINDTO | LA_FLG_BINDFROM : LA_FLG_BINDFROM;
}

/// The cookies are the link maps: la_objopen leaves them as they come.
[[gnu::visibility("default")]] std::uintptr_t la_symbind64(Elf64_Sym* symbol, unsigned,
                                                           std::uintptr_t* referrer,
                                                           std::uintptr_t* definer, unsigned* flags,
                                                           const char* name) {
  hook* const one = hook_named(name);
  if (one == nullptr || one->replacement == 0 || one->real == nullptr) return symbol->st_value;
  // Python's references to itself are its own affair, unless it looks a name up for other code
  // (ctypes, where it is part of the interpreter).
  if (*referrer == *definer && (*flags & LA_SYMB_DLSYM) == 0) return symbol->st_value;
  if (one->is_for_makers && !makes_its_own_state(*reinterpret_cast<const link_map*>(*referrer)))
    return symbol->st_value;
  return note_real(*one, symbol->st_value) ? one->replacement : symbol->st_value;
}

}  // extern "C"
