// What threads that have called Python, and idle, cost in memory.
#include "memory.hpp"

#include <cstddef>
#include <fstream>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace moored::lab {
namespace {

// From smaps_rollup, which counts pages; statm is off by some for each thread or CPU.
[[nodiscard]] std::ptrdiff_t resident_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("Rss:")) return std::stol(line.substr(4)) * 1024;
  }
  throw std::runtime_error("this system does not tell a process's memory (smaps_rollup)");
}

// Lets the threads go, also when one could not be made.
class release {
 public:
  explicit release(std::latch& held) : held_(held) {}
  release(const release&) = delete;
  release& operator=(const release&) = delete;
  ~release() { held_.count_down(); }

 private:
  std::latch& held_;
};

}  // namespace

std::ptrdiff_t growth_by(std::size_t threads, std::optional<strategy> how, PyObject* callback) {
  const detachment detached;
  std::latch idle(static_cast<std::ptrdiff_t>(threads));
  std::latch held(1);
  const auto live = [&] {
    if (how) {
      const attachment attached = try_attach(*how);
      if (attached) {
        PyObject* const result = PyObject_CallNoArgs(callback);
        if (result == nullptr) PyErr_WriteUnraisable(callback);
        Py_XDECREF(result);
      }
    }
    idle.count_down();
    held.wait();
  };
  std::vector<std::jthread> crowd;
  crowd.reserve(threads);
  const release at_end(held);
  const std::ptrdiff_t before = resident_bytes();
  for (std::size_t made = 0; made < threads; ++made) crowd.emplace_back(live);
  idle.wait();
  return resident_bytes() - before;
}

}  // namespace moored::lab
