// options.hpp: the command line of `moored run`.
#pragma once

#include <string>
#include <vector>

namespace moored::launcher {

struct options {
  bool help = false;
  bool fresh = false;
  bool cache_only = false;
  bool no_children = false;
  bool statistics = false;
  std::string urgent;   ///< The share of a busy thread's time that foreign ones may take, or empty.
  std::string record;   ///< For `moored doctor`: where captures go.
  std::string command;  ///< For the same: what was typed there.
  bool stock = false;   ///< For the same: nothing is kept and nothing made cheap.
  std::string json;
  std::string python;     ///< Given by `python -m moored run`, which knows it,
  std::string libraries;  ///< and the folder of moored's libraries.
  std::string program;    ///< Behind --exec.
  std::string script;     ///< Or the script that Python runs, when it is named.
  /// What the program, or Python, is started with: for Python its own options, the target, and the
  /// target's arguments.
  std::vector<std::string> words;
};

/// Reads what follows `moored run`; throws failure.
[[nodiscard]] options read_options(const std::vector<std::string>& words);

}  // namespace moored::launcher
