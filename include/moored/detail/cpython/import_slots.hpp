// moored/detail/cpython/import_slots.hpp: the entries of the interpreter's own table through which
// it calls a function of the C library.
//
// The program, or the libpython, that the interpreter is in calls the C library through a table
// that the dynamic loader fills in. What is written there reaches the interpreter alone: no other
// library's calls go through it.
#pragma once

#include <Python.h>

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// The entries for one function; there is one, or, where code also takes the function's address,
/// there are a few.
class import_slots {
 public:
  using function = void (*)();

  /// Those of `name`; why() says why there are none. Attached to the main interpreter: that one's
  /// GIL orders the copies of moored that write here.
  explicit import_slots(const char* name) noexcept
      // A built-in type's function is inside the interpreter also where the type itself was copied
      // into the program, and the address of a call would be a stub's.
      : import_slots(name, reinterpret_cast<const void*>(PySet_Type.tp_repr)) {}
  /// The same of the object with that address in it, for a module's table.
  import_slots(const char* name, const void* inside) noexcept : name_(name), inside_(inside) {
    dl_iterate_phdr(
        [](dl_phdr_info* object, std::size_t, void* self) {
          return static_cast<import_slots*>(self)->look_at(*object) ? 1 : 0;
        },
        this);
    if (count_ == 0 && why_ == nullptr)
      why_ = "the interpreter calls the C library's waits through no table that could be found";
  }

  /// A sentence without a full stop, or null. It is of static storage.
  [[nodiscard]] const char* why() const noexcept { return why_; }

  [[nodiscard]] bool are(const void* replacement) const noexcept {
    for (std::size_t index = 0; index < count_; ++index) {
      if (read(slots_[index]) != replacement) return false;
    }
    return count_ != 0;
  }

  /// What the interpreter calls now. A reference that the loader has not resolved yet leads back
  /// into the interpreter's object: then it is what the loader would find.
  [[nodiscard]] void* target() const noexcept {
    if (count_ == 0) return nullptr;
    void* const now = read(slots_[0]);
    const auto address = reinterpret_cast<std::uintptr_t>(now);
    if (address < begin_ || address >= end_) return now;
    // A preloaded library's comes first; it has no version, and dlvsym passes it over. Of the C
    // library's own dlsym may answer with that of before glibc 2.3.2, whose conditions look
    // different.
    void* const first = dlsym(RTLD_DEFAULT, name_);
    void* const versioned = dlvsym(RTLD_DEFAULT, name_, "GLIBC_2.3.2");
    return versioned != nullptr && are_in_one_object(first, versioned) ? versioned : first;
  }

  /// Has the interpreter call `replacement`, from now on and from any thread. False where the
  /// table's page cannot be written; nothing is changed then.
  [[nodiscard]] bool replace(void* replacement) noexcept {
    for (std::size_t index = 0; index < count_; ++index) {
      if (!write(slots_[index], replacement)) {
        why_ = "the system does not let the interpreter's table be written";
        return false;
      }
    }
    return count_ != 0;
  }

 private:
  /// True when it is the object.
  [[nodiscard]] bool look_at(const dl_phdr_info& object) noexcept {
    const auto wanted = reinterpret_cast<std::uintptr_t>(inside_);
    const ElfW(Dyn)* dynamic = nullptr;
    begin_ = UINTPTR_MAX;
    end_ = 0;
    for (int index = 0; index < object.dlpi_phnum; ++index) {
      const ElfW(Phdr)& part = object.dlpi_phdr[index];
      const std::uintptr_t start = object.dlpi_addr + part.p_vaddr;
      if (part.p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const ElfW(Dyn)*>(start);
      if (part.p_type != PT_LOAD) continue;
      begin_ = start < begin_ ? start : begin_;
      end_ = start + part.p_memsz > end_ ? start + part.p_memsz : end_;
    }
    if (wanted < begin_ || wanted >= end_) return false;
    if (dynamic != nullptr) find(object.dlpi_addr, dynamic);
    return true;
  }

  void find(std::uintptr_t base, const ElfW(Dyn) * dynamic) noexcept {
#if defined(__x86_64__) || defined(__aarch64__)
    const Elf64_Sym* symbols = nullptr;
    const char* strings = nullptr;
    struct {
      const Elf64_Rela* first = nullptr;
      std::size_t bytes = 0;
    } calls, others;
    for (; dynamic->d_tag != DT_NULL; ++dynamic) {
      // The loader adds the base to these in place, but not where the section is read-only.
      const std::uintptr_t place =
          dynamic->d_un.d_ptr < base ? base + dynamic->d_un.d_ptr : dynamic->d_un.d_ptr;
      switch (dynamic->d_tag) {
        case DT_SYMTAB:
          symbols = reinterpret_cast<const Elf64_Sym*>(place);
          break;
        case DT_STRTAB:
          strings = reinterpret_cast<const char*>(place);
          break;
        case DT_JMPREL:
          calls.first = reinterpret_cast<const Elf64_Rela*>(place);
          break;
        case DT_PLTRELSZ:
          calls.bytes = dynamic->d_un.d_val;
          break;
        case DT_RELA:
          others.first = reinterpret_cast<const Elf64_Rela*>(place);
          break;
        case DT_RELASZ:
          others.bytes = dynamic->d_un.d_val;
          break;
        default:
          break;
      }
    }
    if (symbols == nullptr || strings == nullptr) return;
    for (const auto& table : {calls, others}) {
      if (table.first == nullptr) continue;
      for (std::size_t index = 0; index < table.bytes / sizeof(Elf64_Rela); ++index) {
        const Elf64_Rela& one = table.first[index];
        const auto type = ELF64_R_TYPE(one.r_info);
        const Elf64_Sym& symbol = symbols[ELF64_R_SYM(one.r_info)];
        if ((type != call_of && type != address_of) || symbol.st_shndx != SHN_UNDEF ||
            std::strcmp(strings + symbol.st_name, name_) != 0)
          continue;
        if (count_ < slots_.size())
          slots_[count_++] = reinterpret_cast<void**>(base + one.r_offset);
      }
    }
#else
    (void)base, (void)dynamic;
    why_ = "it is not built for this processor's tables of references";
#endif
  }

  [[nodiscard]] static bool are_in_one_object(const void* one, const void* other) noexcept {
    Dl_info of_one{}, of_other{};
    return dladdr(one, &of_one) != 0 && dladdr(other, &of_other) != 0 &&
           of_one.dli_fbase == of_other.dli_fbase;
  }

  [[nodiscard]] static void* read(void* const* slot) noexcept {
    return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
  }

  [[nodiscard]] static bool write(void** slot, void* replacement) noexcept {
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    void* const start =
        reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(slot) & ~(page - 1));
    const int before = protection(slot);
    if (before < 0) return false;
    const bool is_writable = (before & PROT_WRITE) != 0;
    if (!is_writable && mprotect(start, page, before | PROT_WRITE) != 0) return false;
    __atomic_store_n(slot, replacement, __ATOMIC_RELEASE);
    if (!is_writable) (void)mprotect(start, page, before);
    return true;
  }

  /// Of the page with `slot`, as the kernel has it; -1 where that is not to be had.
  [[nodiscard]] static int protection(void* const* slot) noexcept {
    std::FILE* const maps = std::fopen("/proc/self/maps", "re");
    if (maps == nullptr) return -1;
    const auto wanted = reinterpret_cast<std::uintptr_t>(slot);
    std::array<char, 512> line{};
    int found = -1;
    while (found < 0 && std::fgets(line.data(), line.size(), maps) != nullptr) {
      std::uintptr_t begin = 0, end = 0;
      std::array<char, 5> letters{};
      if (std::sscanf(line.data(), "%" SCNxPTR "-%" SCNxPTR " %4s", &begin, &end, letters.data()) !=
              3 ||
          wanted < begin || wanted >= end)
        continue;
      found = (letters[0] == 'r' ? PROT_READ : 0) | (letters[1] == 'w' ? PROT_WRITE : 0) |
              (letters[2] == 'x' ? PROT_EXEC : 0);
    }
    (void)std::fclose(maps);
    return found;
  }

#ifdef __aarch64__
  static constexpr unsigned call_of = R_AARCH64_JUMP_SLOT, address_of = R_AARCH64_GLOB_DAT;
#elif defined(__x86_64__)
  static constexpr unsigned call_of = R_X86_64_JUMP_SLOT, address_of = R_X86_64_GLOB_DAT;
#endif

  const char* name_;
  const void* inside_;
  const char* why_ = nullptr;
  std::uintptr_t begin_ = 0, end_ = 0;  // the interpreter's object
  std::array<void**, 4> slots_{};
  std::size_t count_ = 0;
};

}  // namespace cpython
MOORED_NAMESPACE_END
