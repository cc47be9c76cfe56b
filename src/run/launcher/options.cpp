// options.cpp: the command line of `moored run`.
#include "options.hpp"

#include <cstdlib>
#include <string_view>

#include "failure.hpp"

namespace moored::launcher {

namespace {

// Python's own options before the target, as of 3.15: those that take a value in the same or in the
// next word, and those that do not.
constexpr std::string_view with_value = "WX";
constexpr std::string_view without_value = "bBdEiIOPqRsSuvVx";
// Those with which Python needs no target: it talks to the user, or says its version.
constexpr std::string_view without_target = "iV";
constexpr std::string_view pycs = "--check-hash-based-pycs";

[[nodiscard]] bool has(std::string_view letters, char one) noexcept {
  return letters.find(one) != std::string_view::npos;
}

/// "10%" or "0.1" as a share, in the words of the environment; throws failure.
[[nodiscard]] std::string budget(const std::string& given) {
  char* rest = nullptr;
  double share = std::strtod(given.c_str(), &rest);
  const bool is_number = rest != given.c_str();
  if (std::string_view(rest) == "%") {
    share /= 100;
    ++rest;
  }
  if (!is_number || *rest != '\0' || !(share >= 0 && share <= 1)) throw bad_budget(given);
  return std::to_string(share);
}

class reader {
 public:
  explicit reader(const std::vector<std::string>& words) : words_(words) {}

  [[nodiscard]] options read() {
    while (at_ < words_.size()) {
      const std::string& word = words_[at_++];
      if (word == "--exec") return read_program(value_of(word));
      if (word.rfind("--exec=", 0) == 0) return read_program(word.substr(7));
      if (word == "--help" || word == "-h") {
        read_.help = true;
        return read_;
      }
      if (word == "--") {
        if (at_ == words_.size()) throw nothing_to_run();
        return rest();
      }
      if (word == "-" || word.rfind('-', 0) != 0) {
        read_.script = word;
        read_.words.push_back(word);
        return rest();
      }
      const bool is_target = word.rfind("--", 0) == 0 ? read_long(word) : read_short(word);
      if (is_target) return rest();
    }
    if (!needs_target_) return read_;
    throw nothing_to_run();
  }

 private:
  [[nodiscard]] options rest() {
    while (at_ < words_.size()) read_.words.push_back(words_[at_++]);
    return read_;
  }

  [[nodiscard]] options read_program(const std::string& program) {
    if (!read_.words.empty()) throw python_options_with_exec();
    if (program.empty()) throw missing_value("--exec");
    read_.program = program;
    read_.words.push_back(read_.program);
    return rest();
  }

  [[nodiscard]] const std::string& value_of(const std::string& option) {
    if (at_ == words_.size()) throw missing_value(option);
    return words_[at_++];
  }

  /// Where the value of an option goes that has one; null for others.
  [[nodiscard]] std::string* place_of(const std::string& option) {
    if (option == "--json") return &read_.json;
    if (option == "--record") return &read_.record;
    if (option == "--command") return &read_.command;
    if (option == "--with-python") return &read_.python;
    if (option == "--with-libraries") return &read_.libraries;
    return nullptr;
  }

  /// Never the target.
  bool read_long(const std::string& word) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (std::string* const value = place_of(name)) {
      *value = equals == std::string::npos ? value_of(name) : word.substr(equals + 1);
      if (value->empty()) throw missing_value(name);
    } else if (word == "--fresh") {
      read_.fresh = true;
    } else if (word == "--cache-only") {
      read_.cache_only = true;
    } else if (word == "--no-children") {
      read_.no_children = true;
    } else if (word == "--stats") {
      read_.statistics = true;
    } else if (word == "--stock") {
      read_.stock = true;
    } else if (word == "--urgent") {
      read_.urgent = budget("10%");
    } else if (name == "--urgent") {
      read_.urgent = budget(word.substr(equals + 1));
    } else if (name == pycs) {
      read_.words.push_back(word);
      if (equals == std::string::npos) read_.words.push_back(value_of(name));
    } else {
      throw unknown_option(word);
    }
    return false;
  }

  /// A cluster of Python's letters, as in -uX dev; true when it ends with -c or -m.
  bool read_short(const std::string& word) {
    read_.words.push_back(word);
    for (std::size_t index = 1; index < word.size(); ++index) {
      const char one = word[index];
      if (has(without_target, one)) needs_target_ = false;
      if (has(without_value, one)) continue;
      const bool is_target = one == 'c' || one == 'm';
      if (!is_target && !has(with_value, one)) throw unknown_option(word);
      if (index + 1 == word.size()) read_.words.push_back(value_of(std::string("-") + one));
      return is_target;
    }
    return false;
  }

  const std::vector<std::string>& words_;
  std::size_t at_ = 0;
  bool needs_target_ = true;
  options read_;
};

}  // namespace

options read_options(const std::vector<std::string>& words) {
  return reader(words).read();
}

}  // namespace moored::launcher
