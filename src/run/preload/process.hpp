// process.hpp: what this process is: which Python it has, and what `moored run` does in it.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "../protocol.hpp"

namespace moored::run {

/// Whether states are kept in this process, or why not.
enum class keeping : std::uint8_t {
  undecided,  ///< No Python was met yet.
  on,
  not_asked,     ///< --fresh, --cache-only, or not started by `moored run`.
  other_python,  ///< Not the version or the ABI that this library was built for.
  out_of_reach,  ///< There is one, but its functions are not visible to this library.
};

/// What happened in this process.
struct numbers {
  std::uint64_t threads_seen = 0;
  std::uint64_t states_adopted = 0;
  std::uint64_t states_kept = 0;
  std::uint64_t states_freed = 0;
  std::uint64_t states_freed_late = 0;
  std::uint64_t states_forgotten = 0;
  std::uint64_t urgent_requests = 0;
  std::uint64_t urgent_requests_denied = 0;
  std::uint64_t calls_served = 0;
  std::uint64_t chunk_hits = 0;
  std::uint64_t chunk_misses = 0;
};

class process {
 public:
  process();
  process(const process&) = delete;
  process& operator=(const process&) = delete;

  [[nodiscard]] const settings& asked() const noexcept { return settings_; }

  /// Settled by the first call. The caller holds the GIL, or Python is not initialised yet.
  keeping decide() noexcept {
    const keeping known = decided();
    return known != keeping::undecided ? known : find_python();
  }
  [[nodiscard]] keeping decided() const noexcept {
    return keeping_.load(std::memory_order_acquire);
  }

  /// For the report: a Python that was loaded late, and whose native threads did not call back, has
  /// not been met. Any thread, when the program has ended.
  void look_for_late_python();

  /// Whether states are kept in this process, or why not, for people.
  [[nodiscard]] std::string describe() const;

  /// As in "3.11.7"; empty when no Python was met.
  [[nodiscard]] std::string python_version() const;

  /// True in the child of a fork, from the fork on.
  [[nodiscard]] bool is_forked() const noexcept { return is_forked_; }

  /// False in the child of vfork, which has the memory of its parent.
  [[nodiscard]] bool is_here() const noexcept { return getpid() == number_; }

  /// True for an address in the library, or the program, that Python's own functions are in. Any
  /// thread, at any time: takes no lock.
  [[nodiscard]] bool is_in_python(const void* code) const noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(code);
    return address >= python_begin_.load(std::memory_order_relaxed) &&
           address < python_end_.load(std::memory_order_relaxed);
  }

  /// Has what this process starts from now on run without moored. Any thread.
  void leave_the_environment() const;

  /// Since this process began: a forked child begins at the fork.
  [[nodiscard]] numbers own() const noexcept;

  std::atomic<std::uint64_t> threads_seen{0};

 private:
  keeping find_python() noexcept;
  void make_urgent() noexcept;
  void find_where_python_is() noexcept;
  [[nodiscard]] numbers total() const noexcept;

  settings settings_;
  numbers before_fork_;
  bool is_forked_ = false;
  pid_t number_ = getpid();
  std::atomic<keeping> keeping_{keeping::undecided};
  std::atomic<const char*> version_{nullptr};
  std::atomic<std::uintptr_t> python_begin_{0}, python_end_{0};
};

/// Made when the library is loaded, and never destroyed: native threads outlive the end.
[[nodiscard]] process& this_process() noexcept;

}  // namespace moored::run
