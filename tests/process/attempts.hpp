// process/attempts.hpp: what the fault tests share: attempts with each allocation failing in turn,
// and what they look at.
#pragma once

#include "child.hpp"
#include "refusals.hpp"

#include <filesystem>
#include <iterator>
#include <string>
#include <system_error>

namespace moored_test {

inline std::ptrdiff_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

/// The errno of the std::system_error that `body` throws; 0 when it throws none.
template <class Body>
int error_of(Body body) {
  try {
    body();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

/// Runs `attempt` again and again: the first of its allocations fails, then the second, and so on,
/// until it gets through with all of them. `Short` is what is short of memory.
template <class Short, class Attempt>
void with_each_allocation_failing(fault& of, Attempt attempt) {
  for (std::int64_t passing = 0;; ++passing) {
    ASSERT_LT(passing, 5000) << "it never gets through";
    SCOPED_TRACE("allocation " + std::to_string(passing));
    std::int64_t failed = 0;
    attempt([&](const auto& body) {
      const Short now(1, passing);
      body();
      failed = of.failed();
    });
    if (failed == 0) return;
  }
}

template <class Attempt>
void with_each_native_allocation_failing(Attempt attempt) {
  with_each_allocation_failing<without_memory>(the_faults.operator_new, attempt);
}

template <class Attempt>
void with_each_python_allocation_failing(Attempt attempt) {
  with_each_allocation_failing<without_python_memory>(the_faults.python_memory, attempt);
}

/// An interpreter whose memory can be made short.
class short_python {
 public:
  short_python() {
    own_python_memory();
    Py_InitializeEx(0);
  }
  ~short_python() { EXPECT_EQ(Py_FinalizeEx(), 0); }
  short_python(const short_python&) = delete;
  short_python& operator=(const short_python&) = delete;
};

}  // namespace moored_test
