// program.cpp: whether the dynamic loader will take our libraries into a program.
#include "program.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "failure.hpp"

namespace moored::launcher {

namespace {

#if defined(__x86_64__)
constexpr Elf64_Half our_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half our_machine = EM_AARCH64;
#else
constexpr Elf64_Half our_machine = EM_NONE;  // not compared
#endif

class open_file {
 public:
  explicit open_file(const std::string& path) : number_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~open_file() {
    if (number_ >= 0) close(number_);
  }
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;

  [[nodiscard]] bool is_open() const noexcept { return number_ >= 0; }

  /// False when there are not that many bytes.
  [[nodiscard]] bool read(void* into, std::size_t size, std::size_t from) const noexcept {
    return pread(number_, into, size, static_cast<off_t>(from)) == static_cast<ssize_t>(size);
  }

 private:
  int number_;
};

/// The program that loads this one, as in "/lib64/ld-linux-x86-64.so.2"; empty when it is static.
[[nodiscard]] std::string loader_of(const open_file& file, const Elf64_Ehdr& header) {
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  if (!file.read(segments.data(), segments.size() * sizeof(Elf64_Phdr), header.e_phoff)) return {};
  for (const Elf64_Phdr& one : segments) {
    if (one.p_type != PT_INTERP || one.p_filesz == 0 || one.p_filesz > 4096) continue;
    std::string name(one.p_filesz, '\0');
    if (!file.read(name.data(), name.size(), one.p_offset)) return {};
    return name.c_str();
  }
  return {};
}

void check_privileges(const std::string& path, const struct stat& file) {
  if ((file.st_mode & S_ISUID) != 0 && file.st_uid != getuid())
    throw program_privileged(path, "the set-uid bit");
  if ((file.st_mode & S_ISGID) != 0 && (file.st_mode & S_IXGRP) != 0 && file.st_gid != getgid())
    throw program_privileged(path, "the set-gid bit");
  if (getxattr(path.c_str(), "security.capability", nullptr, 0) > 0)
    throw program_privileged(path, "file capabilities");
}

}  // namespace

void check_program(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) throw program_missing(path);
  if (S_ISDIR(found.st_mode)) throw program_not_executable(path, "it is a directory");
  if (access(path.c_str(), X_OK) != 0) throw program_not_executable(path, std::strerror(errno));
  check_privileges(path, found);

  const open_file file(path);
  Elf64_Ehdr header{};
  if (!file.is_open() || !file.read(&header, EI_NIDENT, 0)) {
    char start[2] = {};
    if (file.is_open() && file.read(start, 2, 0) && start[0] == '#' && start[1] == '!') return;
    if (!file.is_open()) return;  // it may be run but not be read: the loader will see
    throw program_not_executable(path, "it is no program");
  }
  if (header.e_ident[0] == '#' && header.e_ident[1] == '!') return;  // its interpreter inherits
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    throw program_not_executable(path, "it is no program");
  if (header.e_ident[EI_CLASS] != ELFCLASS64) throw program_foreign(path, "a 32-bit program");
  if (!file.read(&header, sizeof header, 0)) throw program_not_executable(path, "it is cut short");
  if (our_machine != EM_NONE && header.e_machine != our_machine)
    throw program_foreign(path, "made for another processor");
  const std::string loader = loader_of(file, header);
  if (loader.empty()) throw program_static(path);
  if (loader.find("ld-musl") != std::string::npos) throw program_foreign(path, "linked to musl");
}

}  // namespace moored::launcher
