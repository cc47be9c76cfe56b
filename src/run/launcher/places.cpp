// places.cpp: where the launcher finds its Python and its libraries.
#include "places.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>

#include "../protocol.hpp"

namespace moored::launcher {

const char* const python_name = MOORED_PYTHON_NAME;

namespace {

[[nodiscard]] std::string own_folder() {
  std::array<char, PATH_MAX> path{};
  const ssize_t size = readlink("/proc/self/exe", path.data(), path.size() - 1);
  const std::string whole(path.data(), size < 0 ? 0 : static_cast<std::size_t>(size));
  return whole.substr(0, whole.rfind('/'));
}

[[nodiscard]] bool exists(const std::string& path) {
  return access(path.c_str(), F_OK) == 0;
}

[[nodiscard]] bool same_file(const std::string& one, const std::string& other) {
  struct stat first {
  }, second{};
  return stat(one.c_str(), &first) == 0 && stat(other.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace

places look_around() {
  const std::string here = own_folder();
  const std::string parent = here.substr(0, here.rfind('/'));
  places found;
  if (exists(parent + "/lib/" MOORED_KEEP_LIBRARY)) {  // in the package
    found.libraries = parent + "/lib";
    return found;
  }
  std::string versioned = here + '/' + python_name;
  // An environment may have been made with a name that does not tell that there is no GIL.
  if (!exists(versioned) && versioned.ends_with('t')) versioned.pop_back();
  if (!exists(versioned)) return found;
  // The name that an environment's users know, where it is the same.
  const std::string plain = here + "/python";
  found.python = same_file(plain, versioned) ? plain : versioned;
  for (const char* const folder : {"/lib/", "/lib64/"}) {
    const std::string library = parent + folder + python_name + "/site-packages/moored/lib";
    if (exists(library + "/" MOORED_KEEP_LIBRARY)) {
      found.libraries = library;
      break;
    }
  }
  return found;
}

std::string on_the_path(const std::string& program) {
  const char* const variable = std::getenv("PATH");
  std::string rest = variable != nullptr ? variable : "/usr/bin:/bin";
  for (;;) {
    const std::size_t colon = rest.find(':');
    // An empty entry means the folder one stands in.
    const std::string candidate =
        colon == 0 || rest.empty() ? "./" + program : rest.substr(0, colon) + '/' + program;
    struct stat found {};
    if (access(candidate.c_str(), X_OK) == 0 && stat(candidate.c_str(), &found) == 0 &&
        S_ISREG(found.st_mode))
      return candidate;
    if (colon == std::string::npos) return {};
    rest.erase(0, colon + 1);
  }
}

}  // namespace moored::launcher
