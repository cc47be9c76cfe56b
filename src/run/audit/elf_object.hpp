// elf_object.hpp: a loaded object's dynamic symbols and relocations, read without any library.
//
// Only what the dynamic loader itself has mapped is read, and only while the loader tells about the
// object.
#pragma once

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstdint>

namespace moored::audit {

[[nodiscard]] inline bool same_text(const char* one, const char* other) noexcept {
  while (*one != '\0' && *one == *other) ++one, ++other;
  return *one == *other;
}

/// True when `path` is `name` in whatever folder.
[[nodiscard]] inline bool is_named(const char* path, const char* name) noexcept {
  const char* base = path;
  for (const char* letter = path; *letter != '\0'; ++letter) {
    if (*letter == '/') base = letter + 1;
  }
  return same_text(base, name);
}

class elf_object {
 public:
  explicit elf_object(const link_map& map) noexcept : base_(map.l_addr) {
    for (const Elf64_Dyn* entry = map.l_ld; entry != nullptr && entry->d_tag != DT_NULL; ++entry) {
      switch (entry->d_tag) {
        case DT_SYMTAB:
          symbols_ = reinterpret_cast<const Elf64_Sym*>(located(entry->d_un.d_ptr));
          break;
        case DT_STRTAB:
          strings_ = reinterpret_cast<const char*>(located(entry->d_un.d_ptr));
          break;
        case DT_GNU_HASH:
          gnu_hash_ = reinterpret_cast<const std::uint32_t*>(located(entry->d_un.d_ptr));
          break;
        case DT_HASH:
          old_hash_ = reinterpret_cast<const std::uint32_t*>(located(entry->d_un.d_ptr));
          break;
        case DT_RELA:
          relocations_ = reinterpret_cast<Elf64_Rela*>(located(entry->d_un.d_ptr));
          break;
        case DT_RELASZ:
          relocation_count_ = entry->d_un.d_val / sizeof(Elf64_Rela);
          break;
        default:
          break;
      }
    }
    if (symbols_ == nullptr || strings_ == nullptr) gnu_hash_ = old_hash_ = nullptr;
  }

  /// The address of a symbol that the object defines; null when it does not.
  [[nodiscard]] void* defined(const char* name) const noexcept {
    const Elf64_Sym* const found = gnu_hash_ != nullptr   ? look_up_gnu(name)
                                   : old_hash_ != nullptr ? look_up_old(name)
                                                          : nullptr;
    return found == nullptr ? nullptr : reinterpret_cast<void*>(base_ + found->st_value);
  }

  /// Calls `visit(number, name)` for every symbol that the object takes from elsewhere.
  template <class Visit>
  void for_each_import(Visit visit) const noexcept {
    const std::uint32_t end = import_end();
    for (std::uint32_t index = 1; index < end; ++index) {
      if (symbols_[index].st_shndx == SHN_UNDEF) visit(index, text(symbols_[index]));
    }
  }

  /// The relocations that are done when the object is loaded, whatever the mode of binding.
  [[nodiscard]] Elf64_Rela* begin() const noexcept { return relocations_; }
  [[nodiscard]] Elf64_Rela* end() const noexcept {
    return relocations_ == nullptr ? nullptr : relocations_ + relocation_count_;
  }

 private:
  /// Undefined symbols are not hashed by the GNU scheme; they come before those that are. Where
  /// there are none of those (a program that exports nothing), only the relocations tell.
  [[nodiscard]] std::uint32_t import_end() const noexcept {
    if (gnu_hash_ == nullptr) return old_hash_ != nullptr ? old_hash_[1] : 0;
    const std::uint32_t first_hashed = gnu_hash_[1];
    if (first_hashed > 1) return first_hashed;
    std::uint32_t end = 0;
    for (const Elf64_Rela& one : *this) {
      const auto number = static_cast<std::uint32_t>(ELF64_R_SYM(one.r_info));
      if (number >= end) end = number + 1;
    }
    return end;
  }

  // The loader adds the base to these pointers in place, but not where the section is read-only.
  [[nodiscard]] std::uintptr_t located(Elf64_Addr pointer) const noexcept {
    return pointer < base_ ? base_ + pointer : pointer;
  }
  [[nodiscard]] const char* text(const Elf64_Sym& symbol) const noexcept {
    return strings_ + symbol.st_name;
  }
  [[nodiscard]] bool is(const Elf64_Sym& symbol, const char* name) const noexcept {
    return symbol.st_shndx != SHN_UNDEF && same_text(text(symbol), name);
  }

  [[nodiscard]] const Elf64_Sym* look_up_gnu(const char* name) const noexcept {
    std::uint32_t hash = 5381;
    for (const char* letter = name; *letter != '\0'; ++letter)
      hash = hash * 33 + static_cast<unsigned char>(*letter);
    const std::uint32_t buckets = gnu_hash_[0], first = gnu_hash_[1], filter_words = gnu_hash_[2];
    const std::uint32_t* const bucket = gnu_hash_ + 4 + std::size_t{2} * filter_words;
    const std::uint32_t* const chain = bucket + buckets;
    if (buckets == 0) return nullptr;
    std::uint32_t index = bucket[hash % buckets];
    if (index < first) return nullptr;
    for (;; ++index) {
      const std::uint32_t entry = chain[index - first];
      if (((entry ^ hash) >> 1) == 0 && is(symbols_[index], name)) return symbols_ + index;
      if ((entry & 1) != 0) return nullptr;
    }
  }

  [[nodiscard]] const Elf64_Sym* look_up_old(const char* name) const noexcept {
    for (std::uint32_t index = 1; index < old_hash_[1]; ++index) {
      if (is(symbols_[index], name)) return symbols_ + index;
    }
    return nullptr;
  }

  std::uintptr_t base_;
  const Elf64_Sym* symbols_ = nullptr;
  const char* strings_ = nullptr;
  const std::uint32_t* gnu_hash_ = nullptr;
  const std::uint32_t* old_hash_ = nullptr;
  Elf64_Rela* relocations_ = nullptr;
  std::size_t relocation_count_ = 0;
};

}  // namespace moored::audit
