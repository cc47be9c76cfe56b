// program_file.hpp: whether the dynamic loader will take our libraries into a program.
//
// For the launcher, and for the preloaded library between fork and exec: nothing here allocates.
#pragma once

#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>

namespace moored::run {

enum class program_kind {
  fit,         ///< It will.
  unreadable,  ///< It cannot be looked into, but may be executed for all that.
  script,      ///< Its interpreter is the program.
  no_program,
  cut_short,
  of_32_bits,
  other_processor,
  musl,        ///< Made for another C library.
  standalone,  ///< Nothing is loaded into a static executable.
};

namespace detail {

#if defined(__x86_64__)
inline constexpr Elf64_Half our_machine = EM_X86_64;
#elif defined(__aarch64__)
inline constexpr Elf64_Half our_machine = EM_AARCH64;
#else
inline constexpr Elf64_Half our_machine = EM_NONE;  // not compared
#endif

class open_program {
 public:
  explicit open_program(const char* path) noexcept : number_(open(path, O_RDONLY | O_CLOEXEC)) {}
  ~open_program() {
    if (number_ >= 0) close(number_);
  }
  open_program(const open_program&) = delete;
  open_program& operator=(const open_program&) = delete;

  [[nodiscard]] bool is_open() const noexcept { return number_ >= 0; }

  /// How many bytes there are, at most `size`.
  [[nodiscard]] std::size_t read(void* into, std::size_t size, std::size_t from) const noexcept {
    const ssize_t got = pread(number_, into, size, static_cast<off_t>(from));
    return got < 0 ? 0 : static_cast<std::size_t>(got);
  }

 private:
  int number_;
};

/// Looks for the program that loads this one, as in "/lib64/ld-linux-x86-64.so.2".
[[nodiscard]] inline program_kind kind_by_loader(const open_program& file,
                                                 const Elf64_Ehdr& header) noexcept {
  for (unsigned index = 0; index < header.e_phnum; ++index) {
    Elf64_Phdr segment{};
    const std::size_t place = header.e_phoff + index * sizeof segment;
    if (file.read(&segment, sizeof segment, place) != sizeof segment) break;
    if (segment.p_type != PT_INTERP) continue;
    std::array<char, 256> name{};
    (void)file.read(name.data(), name.size() - 1, segment.p_offset);
    return std::strstr(name.data(), "ld-musl") != nullptr ? program_kind::musl : program_kind::fit;
  }
  return program_kind::standalone;
}

}  // namespace detail

[[nodiscard]] inline program_kind look_at_program(const char* path) noexcept {
  const detail::open_program file(path);
  if (!file.is_open()) return program_kind::unreadable;
  Elf64_Ehdr header{};
  const std::size_t size = file.read(&header, sizeof header, 0);
  if (size >= 2 && header.e_ident[0] == '#' && header.e_ident[1] == '!')
    return program_kind::script;
  if (size < EI_NIDENT || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    return program_kind::no_program;
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return program_kind::of_32_bits;
  if (size != sizeof header) return program_kind::cut_short;
  if (detail::our_machine != EM_NONE && header.e_machine != detail::our_machine)
    return program_kind::other_processor;
  return detail::kind_by_loader(file, header);
}

}  // namespace moored::run
