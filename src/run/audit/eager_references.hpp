// eager_references.hpp: references that the loader resolves without asking, and how it is made to.
//
// The loader reports bindings of calls through the PLT only. Code built with -fno-plt, which is all
// of Rust's on x86-64, and function pointers in data are resolved silently. Such a relocation
// differs from a reported one by nothing but its type, so the type is changed before the loader
// comes to it.
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>

#include "elf_object.hpp"

namespace moored::audit {

#ifdef __x86_64__

[[nodiscard]] inline long system_call(long number, std::uintptr_t first, std::size_t second,
                                      std::uintptr_t third) noexcept {
  long result = number;
  asm volatile("syscall"
               : "+a"(result)
               : "D"(first), "S"(second), "d"(third)
               : "rcx", "r11", "memory");
  return result;
}

/// The protection of the loaded segment around `address`; -1 when the object's headers are not
/// where they are in every shared object: at its base.
[[nodiscard]] inline int protection_at(const link_map& map, std::uintptr_t address) noexcept {
  constexpr std::size_t page = 4096;
  unsigned char resident = 0;
  if (map.l_addr == 0 || map.l_addr % page != 0 ||
      system_call(SYS_mincore, map.l_addr, page, reinterpret_cast<std::uintptr_t>(&resident)) != 0)
    return -1;
  const auto* const header = reinterpret_cast<const Elf64_Ehdr*>(map.l_addr);
  if (header->e_ident[EI_MAG0] != ELFMAG0 || header->e_ident[EI_MAG1] != ELFMAG1 ||
      header->e_ident[EI_MAG2] != ELFMAG2 || header->e_ident[EI_MAG3] != ELFMAG3)
    return -1;
  const auto* const segments = reinterpret_cast<const Elf64_Phdr*>(map.l_addr + header->e_phoff);
  for (unsigned index = 0; index < header->e_phnum; ++index) {
    const Elf64_Phdr& one = segments[index];
    const std::uintptr_t start = map.l_addr + one.p_vaddr;
    if (one.p_type != PT_LOAD || address < start || address >= start + one.p_memsz) continue;
    return ((one.p_flags & PF_R) != 0 ? PROT_READ : 0) |
           ((one.p_flags & PF_W) != 0 ? PROT_WRITE : 0) |
           ((one.p_flags & PF_X) != 0 ? PROT_EXEC : 0);
  }
  return -1;
}

/// Has every reference of the object to its symbol number `symbol` reported. Caller: la_objopen,
/// when the object is mapped, not yet relocated, and no code of it has run.
inline void have_it_reported(const link_map& map, const elf_object& object,
                             std::uint32_t symbol) noexcept {
  constexpr std::uintptr_t page = 4096;
  for (Elf64_Rela& one : object) {
    if (ELF64_R_SYM(one.r_info) != symbol || one.r_addend != 0) continue;
    const auto type = ELF64_R_TYPE(one.r_info);
    if (type != R_X86_64_GLOB_DAT && type != R_X86_64_64) continue;
    const auto address = reinterpret_cast<std::uintptr_t>(&one);
    const int protection = protection_at(map, address);
    if (protection < 0) return;
    const std::uintptr_t start = address & ~(page - 1);
    const std::size_t size = address + sizeof one - start;
    if (system_call(SYS_mprotect, start, size, PROT_READ | PROT_WRITE) != 0) return;
    one.r_info = ELF64_R_INFO(static_cast<Elf64_Xword>(symbol), R_X86_64_JUMP_SLOT);
    (void)system_call(SYS_mprotect, start, size, static_cast<std::uintptr_t>(protection));
  }
}

#else

/// Elsewhere such references stay as they are: their states are temporary, as without moored.
inline void have_it_reported(const link_map&, const elf_object&, std::uint32_t) noexcept {}

#endif

}  // namespace moored::audit
