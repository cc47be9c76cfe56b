// references.cpp: see references.hpp.
#include "references.hpp"

#include <Python.h>

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace moored::run::attach {

namespace {

#if defined(__x86_64__)
constexpr unsigned call_of = R_X86_64_JUMP_SLOT, address_of = R_X86_64_GLOB_DAT,
                   pointer_to = R_X86_64_64;
#elif defined(__aarch64__)
constexpr unsigned call_of = R_AARCH64_JUMP_SLOT, address_of = R_AARCH64_GLOB_DAT,
                   pointer_to = R_AARCH64_ABS64;
#else
#error "it is not built for this processor's tables of references"
#endif

struct table {
  const Elf64_Rela* first = nullptr;
  std::size_t bytes = 0;

  [[nodiscard]] const Elf64_Rela* begin() const noexcept { return first; }
  [[nodiscard]] const Elf64_Rela* end() const noexcept {
    return first == nullptr ? nullptr : first + bytes / sizeof(Elf64_Rela);
  }
};

/// A loaded object. Made and used while the loader's list of objects is locked.
class object {
 public:
  explicit object(const dl_phdr_info& info) noexcept : info_(info), base_(info.dlpi_addr) {
    for (int index = 0; index < info.dlpi_phnum; ++index) {
      const ElfW(Phdr)& part = info.dlpi_phdr[index];
      if (part.p_type == PT_DYNAMIC) read(reinterpret_cast<const Elf64_Dyn*>(base_ + part.p_vaddr));
      if (part.p_type == PT_GNU_RELRO) {  // rounded as the loader rounds it
        frozen_begin_ = (base_ + part.p_vaddr) & ~(page() - 1);
        frozen_end_ = (base_ + part.p_vaddr + part.p_memsz) & ~(page() - 1);
      }
    }
  }

  [[nodiscard]] bool contains(const void* address) const noexcept {
    return part_of(reinterpret_cast<std::uintptr_t>(address)) != nullptr;
  }

  /// True for an object that makes states by itself, as pybind11 does for a thread without one.
  [[nodiscard]] bool makes_states() const noexcept {
    bool makes = false;
    for_each_reference([&makes](void**, const char* name) noexcept {
      makes = makes || std::strcmp(name, "PyThreadState_New") == 0;
    });
    return makes;
  }

  /// Calls `visit(slot, name)` for each reference to a function of CPython's.
  template <class Visit>
  void for_each_reference(Visit visit) const noexcept {
    if (symbols_ == nullptr || strings_ == nullptr) return;
    for (const table& one : {calls_, others_}) {
      for (const Elf64_Rela& reference : one) {
        const auto type = ELF64_R_TYPE(reference.r_info);
        if (type != call_of && type != address_of &&
            (type != pointer_to || reference.r_addend != 0))
          continue;
        const Elf64_Sym& symbol = symbols_[ELF64_R_SYM(reference.r_info)];
        const char* const name = strings_ + symbol.st_name;
        if (symbol.st_shndx == SHN_UNDEF && name[0] == 'P' && name[1] == 'y')
          visit(reinterpret_cast<void**>(base_ + reference.r_offset), name);
      }
    }
  }

  /// What the loader has made read-only is writable for that moment. False where it cannot be.
  bool write(void** slot, void* value) const noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(slot);
    if (address % sizeof value != 0) return false;
    const bool is_frozen = address >= frozen_begin_ && address < frozen_end_;
    const ElfW(Phdr)* const part = part_of(address);
    if (part == nullptr || (part->p_flags & PF_W) == 0) return false;
    void* const start = reinterpret_cast<void*>(address & ~(page() - 1));
    if (is_frozen && mprotect(start, page(), PROT_READ | PROT_WRITE) != 0) return false;
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    if (is_frozen) (void)mprotect(start, page(), PROT_READ);
    return true;
  }

 private:
  [[nodiscard]] static std::uintptr_t page() noexcept {
    static const auto size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    return size;
  }

  [[nodiscard]] const ElfW(Phdr) * part_of(std::uintptr_t address) const noexcept {
    for (int index = 0; index < info_.dlpi_phnum; ++index) {
      const ElfW(Phdr)& part = info_.dlpi_phdr[index];
      if (part.p_type == PT_LOAD && address - (base_ + part.p_vaddr) < part.p_memsz) return &part;
    }
    return nullptr;
  }

  // The loader adds the base to these in place, but not where the section is read-only.
  [[nodiscard]] std::uintptr_t located(Elf64_Addr pointer) const noexcept {
    return pointer < base_ ? base_ + pointer : pointer;
  }

  void read(const Elf64_Dyn* entry) noexcept {
    for (; entry->d_tag != DT_NULL; ++entry) {
      const std::uintptr_t place = located(entry->d_un.d_ptr);
      switch (entry->d_tag) {
        case DT_SYMTAB:
          symbols_ = reinterpret_cast<const Elf64_Sym*>(place);
          break;
        case DT_STRTAB:
          strings_ = reinterpret_cast<const char*>(place);
          break;
        case DT_JMPREL:
          calls_.first = reinterpret_cast<const Elf64_Rela*>(place);
          break;
        case DT_PLTRELSZ:
          calls_.bytes = entry->d_un.d_val;
          break;
        case DT_RELA:
          others_.first = reinterpret_cast<const Elf64_Rela*>(place);
          break;
        case DT_RELASZ:
          others_.bytes = entry->d_un.d_val;
          break;
        default:
          break;
      }
    }
  }

  const dl_phdr_info& info_;
  std::uintptr_t base_, frozen_begin_ = 0, frozen_end_ = 0;
  const Elf64_Sym* symbols_ = nullptr;
  const char* strings_ = nullptr;
  table calls_, others_;
};

/// Calls `visit(object)` for each that is neither Python nor this library. A built-in type's
/// function is inside Python also where the type itself was copied into the program.
template <class Visit>
void for_each_object(Visit visit) noexcept {
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* call) {
        static const char own = 0;
        const object one(*info);
        if (!one.contains(&own) && !one.contains(reinterpret_cast<void*>(PySet_Type.tp_repr)))
          (*static_cast<Visit*>(call))(one);
        return 0;
      },
      &visit);
}

}  // namespace

std::size_t redirect(replacements all) noexcept {
  std::size_t changed = 0;
  for_each_object([all, &changed](const object& its) noexcept {
    const bool makes = its.makes_states();
    its.for_each_reference([&](void** slot, const char* name) noexcept {
      for (const replacement& one : all) {
        if ((one.only_in_makers && !makes) || std::strcmp(one.name, name) != 0) continue;
        // A call that was not made yet leads back into its own object.
        void* const now = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
        if ((now == one.real || its.contains(now)) && its.write(slot, one.ours)) ++changed;
      }
    });
  });
  return changed;
}

std::size_t take_back(replacements all) noexcept {
  std::size_t changed = 0;
  for_each_object([all, &changed](const object& its) noexcept {
    its.for_each_reference([&](void** slot, const char*) noexcept {
      for (const replacement& one : all) {
        if (__atomic_load_n(slot, __ATOMIC_ACQUIRE) == one.ours && its.write(slot, one.real))
          ++changed;
      }
    });
  });
  return changed;
}

}  // namespace moored::run::attach
