// main.cpp: the command `moored`. `moored run` becomes the program at once; everything else is
// Python's.
//
// A launcher in Python would cost the start of a second interpreter at every run.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "environment.hpp"
#include "failure.hpp"
#include "options.hpp"
#include "places.hpp"
#include "program.hpp"

namespace moored::launcher {

namespace {

// Not -m: that puts the folder one stands in first on Python's path, and a file there that is
// called as one of ours would be imported instead.
constexpr const char* start_in_python =
    "import sys\n"
    "if sys.path[:1] == ['']: del sys.path[0]\n"
    "try:\n"
    "    from moored.cli import main\n"
    "except ImportError as error:\n"
    "    print(f'moored: {sys.executable} cannot import moored: {error}; install moored again with "
    "'\n"
    "          'the Python that you use', file=sys.stderr)\n"
    "    sys.exit(3)\n"
    "sys.exit(main())\n";

/// Becomes the program; returns only when that fails.
[[nodiscard]] failure become(const std::string& program, const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(program.c_str(), arguments.data());
  return program_not_executable(program, std::strerror(errno));
}

void check_python(const std::string& python) {
  if (python.empty()) throw unknown_python();
  if (access(python.c_str(), X_OK) != 0) throw unusable_python(python, std::strerror(errno));
}

/// As in `moored run python app.py`: Python alone would say that it cannot open the file.
void check_script(const std::string& script) {
  if (script.empty() || script == "-" || script.find('/') != std::string::npos) return;
  if (access(script.c_str(), F_OK) != 0 && !on_the_path(script).empty())
    throw program_for_a_script(script);
}

[[nodiscard]] failure become_python_command(const std::string& python,
                                            const std::vector<std::string>& words) {
  check_python(python);
  std::vector<std::string> all{python, "-c", start_in_python};
  all.insert(all.end(), words.begin(), words.end());
  return become(python, all);
}

/// What was typed, so that a shell reads the same.
[[nodiscard]] std::string typed(const std::vector<std::string>& words) {
  constexpr const char* plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_";
  std::string line = "moored";
  for (const std::string& word : words) {
    line += ' ';
    if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char one : word) {
      if (one == '\'') {
        line += "'\"'\"'";
      } else {
        line += one;
      }
    }
    line += '\'';
  }
  return line;
}

[[nodiscard]] failure run(const places& around, const std::vector<std::string>& words) {
  const std::vector<std::string> behind(words.begin() + 1, words.end());
  options asked = read_options(behind);
  const std::string python = asked.python.empty() ? around.python : asked.python;
  if (asked.help) return become_python_command(python, {"run", "--help"});
  const std::string libraries = asked.libraries.empty() ? around.libraries : asked.libraries;
  if (libraries.empty() && !asked.python.empty()) throw no_libraries();
  if (libraries.empty() || (python.empty() && asked.program.empty()))
    return become_python_command(python, words);  // the package knows where it is

  std::string program = asked.program;
  if (program.empty()) {
    check_script(asked.script);
    check_python(python);
    program = python;
    asked.words.insert(asked.words.begin(), python);
  } else if (program.find('/') == std::string::npos) {
    program = on_the_path(program);
    if (program.empty()) throw program_missing(asked.program);
  }
  check_program(program);
  prepare_environment(asked, libraries, typed(words));
  return become(program, asked.words);
}

void say(const failure& why) {
  const std::string line = "moored: " + why.text + '\n';
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

[[nodiscard]] int start(const std::vector<std::string>& words) {
  try {
    const places around = look_around();
    const bool runs = !words.empty() && words[0] == "run";
    const failure why = runs ? run(around, words) : become_python_command(around.python, words);
    say(why);
    return why.exit_code;
  } catch (const failure& why) {
    say(why);
    return why.exit_code;
  }
}

}  // namespace moored::launcher

int main(int count, char** words) {
  return moored::launcher::start(
      std::vector<std::string>(words + (count > 0 ? 1 : 0), words + count));
}
