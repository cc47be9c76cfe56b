// failure.hpp: every reason why `moored run` does not start a program, in one place.
#pragma once

#include <string>
#include <utility>

namespace moored::launcher {

/// One line for the user (what, why, what to do), and the exit code that goes with it.
struct failure {
  int exit_code;
  std::string text;
};

// As the commands in Python, see moored.cli.errors; the last two as shells have them.
inline constexpr int usage = 2;
inline constexpr int not_possible_here = 3;
inline constexpr int not_executable = 126;
inline constexpr int not_found = 127;

[[nodiscard]] inline failure nothing_to_run() {
  return {usage, "run: say what to run: a script, -m MODULE, -c CODE or --exec PROGRAM"};
}
[[nodiscard]] inline failure missing_value(const std::string& option) {
  return {usage, "run: " + option + " wants a value"};
}
[[nodiscard]] inline failure bad_budget(const std::string& given) {
  return {usage, "run: --urgent=" + given +
                     ": the budget is a share of a busy thread's time, as in 10% or 0.1"};
}
[[nodiscard]] inline failure urgent_without_states() {
  return {usage,
          "run: --urgent needs what --fresh and --cache-only leave out; leave those or --urgent "
          "out"};
}
[[nodiscard]] inline failure unknown_option(const std::string& option) {
  return {usage, "run: there is no option " + option + "; `moored run --help` lists them"};
}
[[nodiscard]] inline failure python_options_with_exec() {
  return {usage, "run: Python's own options do not go with --exec; put them behind the program"};
}
[[nodiscard]] inline failure program_for_a_script(const std::string& name) {
  return {usage, "run: there is no script " + name +
                     ", but a program of that name; to run a script " + "leave " + name +
                     " out, to run the program say: moored run --exec " + name};
}
[[nodiscard]] inline failure cannot_write(const std::string& path, const std::string& why) {
  return {usage, "cannot write " + path + ": " + why};
}

[[nodiscard]] inline failure old_glibc(const std::string& found) {
  return {not_possible_here, "run: states can be kept with glibc 2.35 or later, and this is " +
                                 found + "; run it with --cache-only, which makes them cheap"};
}
[[nodiscard]] inline failure unknown_python() {
  return {not_possible_here,
          "this launcher cannot tell which Python it belongs to, for it is not where pip put it; "
          "start it there, or say: python -m moored"};
}
[[nodiscard]] inline failure unusable_python(const std::string& python, const std::string& why) {
  return {not_possible_here, "cannot run " + python + ", which moored was installed with: " + why +
                                 "; install moored again with the Python that you use"};
}
[[nodiscard]] inline failure no_libraries() {
  return {not_possible_here, "run: the package has lost its libraries; install moored again"};
}
[[nodiscard]] inline failure unspeakable_folder(const std::string& folder) {
  return {not_possible_here, "run: the dynamic loader cannot be told of " + folder +
                                 ", whose name has a space, a colon or a semicolon in it; install "
                                 "moored elsewhere"};
}

[[nodiscard]] inline failure program_missing(const std::string& program) {
  return {not_found, "run: there is no program " + program};
}
[[nodiscard]] inline failure program_not_executable(const std::string& program,
                                                    const std::string& why) {
  return {not_executable, "run: cannot run " + program + ": " + why};
}
[[nodiscard]] inline failure program_static(const std::string& program) {
  return {not_possible_here, "run: " + program +
                                 " is a static executable, into which nothing can be loaded; call "
                                 "moored.install() in the Python that it runs"};
}
[[nodiscard]] inline failure program_privileged(const std::string& program,
                                                const std::string& what) {
  return {not_possible_here,
          "run: " + program + " has " + what +
              ", and then the dynamic loader ignores what is preloaded; run a "
              "copy without, or call moored.install() in the Python that it runs"};
}
[[nodiscard]] inline failure program_foreign(const std::string& program, const std::string& what) {
  return {not_possible_here, "run: " + program + " is " + what +
                                 ", and moored was built for another system; install moored there"};
}

}  // namespace moored::launcher
