// lab/native/load/options.cpp: reading and checking the command line of the load sender.
#include "options.hpp"

#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>

namespace moored::lab {

namespace {

template <class number>
[[nodiscard]] number parsed(const std::string& name, std::string_view text, number low,
                            number high) {
  number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Written so that NaN fails too.
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= low && value <= high))
    throw std::invalid_argument(name + " " + std::string(text) + ": expected a number from " +
                                std::to_string(low) + " to " + std::to_string(high));
  return value;
}

[[nodiscard]] std::vector<int> parsed_cpus(const std::string& name, std::string_view text) {
  std::vector<int> cpus;
  for (;;) {
    const std::size_t comma = text.find(',');
    cpus.push_back(parsed<int>(name, text.substr(0, comma), 0, 1023));
    if (comma == std::string_view::npos) return cpus;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

load_options parse_load_options(int argc, char** argv) {
  load_options options;
  for (int at = 1; at < argc; at += 2) {
    const std::string name = argv[at];
    if (at + 1 == argc) throw std::invalid_argument(name + ": expected a value after it");
    const std::string_view value = argv[at + 1];
    if (name == "--port")
      options.port = parsed<std::uint16_t>(name, value, 1, 65535);
    else if (name == "--rate")
      options.rate = parsed<double>(name, value, 0.001, 1e7);
    else if (name == "--seconds")
      options.seconds = parsed<double>(name, value, 0.001, 86400);
    else if (name == "--connections")
      options.connections = parsed<std::size_t>(name, value, 1, 4096);
    else if (name == "--seed")
      options.seed = parsed<std::uint64_t>(name, value, 0, UINT64_MAX);
    else if (name == "--cpu")
      options.cpus = parsed_cpus(name, value);
    else
      throw std::invalid_argument(name + ": no such option");
  }
  if (options.port == 0 || options.rate == 0 || options.seconds == 0)
    throw std::invalid_argument(
        "usage: load --port P --rate R --seconds S [--connections C] [--seed N] [--cpu LIST]");
  return options;
}

}  // namespace moored::lab
