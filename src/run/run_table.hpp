// run_table.hpp: what `import moored` asks of `moored run`, in whose program it is.
//
// Each has a copy of the library, and its own thread records, counts and settings. The states of
// native threads are kept by the preloaded library's, of which the package would know nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moored::run {

/// What has happened: the first members of moored::state_stats.
struct run_stats {
  std::uint64_t attaches, refusals, states_made, states_adopted, states_kept, states_freed,
      states_forgotten, overdue, states_over_limit, states_freed_late, references_forgotten,
      urgent_requests, urgent_requests_denied;
};

/// The functions, each as the one of the same name in the library. The preloaded library shows them
/// under MOORED_RUN_TABLE. Both may be of different versions: the size says which members there
/// are, and members are only ever added, at the end.
struct run_table {
  std::size_t size;
  void (*release_thread)();
  run_stats (*stats)();
  void (*set_closing_bound)(std::int64_t milliseconds);
  void (*set_urgent_budget)(double share);
};

#define MOORED_RUN_TABLE moored_run_table

}  // namespace moored::run
