// lab/native/load/options.hpp: the command line of the load sender.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moored::lab {

struct load_options {
  std::uint16_t port = 0;
  double rate = 0;  // events per second, over all connections
  double seconds = 0;
  std::size_t connections = 4;
  std::uint64_t seed = 1;
  std::vector<int> cpus;  // empty: any
};

// Throws std::invalid_argument with one line for the user.
[[nodiscard]] load_options parse_load_options(int argc, char** argv);

}  // namespace moored::lab
