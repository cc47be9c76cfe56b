// program.cpp: whether the dynamic loader will take our libraries into a program.
#include "program.hpp"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "../program_file.hpp"
#include "failure.hpp"

namespace moored::launcher {

namespace {

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

  switch (run::look_at_program(path.c_str())) {
    case run::program_kind::fit:
    case run::program_kind::unreadable:  // the loader will see
    case run::program_kind::script:      // its interpreter inherits
      return;
    case run::program_kind::no_program:
      throw program_not_executable(path, "it is no program");
    case run::program_kind::cut_short:
      throw program_not_executable(path, "it is cut short");
    case run::program_kind::of_32_bits:
      throw program_foreign(path, "a 32-bit program");
    case run::program_kind::other_processor:
      throw program_foreign(path, "made for another processor");
    case run::program_kind::musl:
      throw program_foreign(path, "linked to musl");
    case run::program_kind::standalone:
      throw program_static(path);
  }
}

}  // namespace moored::launcher
