// moored/detail/gate/stats.hpp: what is counted about attaches and states.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN

/// What has happened since the process (or the fork) began. Reading it takes no lock and delays no
/// thread.
struct state_stats {
  std::uint64_t attaches;        ///< Outermost attachments that began.
  std::uint64_t refusals;        ///< Attaches that were refused.
  std::uint64_t states_made;     ///< Thread states made by moored.
  std::uint64_t states_adopted;  ///< Thread states made by another binding and kept by moored.
  std::uint64_t states_kept;     ///< States, made or adopted, that are kept now.
  std::uint64_t states_freed;    ///< States, made or adopted, that moored has freed.
  /// Left to CPython: their interpreter closed, their process forked, or Python ended their thread.
  std::uint64_t states_forgotten;
  std::uint64_t overdue;  ///< Calls that were still inside when shutdown stopped waiting.
  /// Of those freed: released because more were kept than set_kept_limit() allows.
  std::uint64_t states_over_limit;
  /// Of those freed: their thread ended, and they were cleared only after it could be joined.
  std::uint64_t states_freed_late;
  /// Python objects that a `reference` or a channel held, and whose interpreter was gone, or out of
  /// reach, when they were let go.
  std::uint64_t references_forgotten;
  std::uint64_t urgent_requests;  ///< Times that the holder of the GIL was asked to let go at once.
  /// Times that it was not, because the budget of set_urgent_budget() was used up.
  std::uint64_t urgent_requests_denied;
};

namespace detail {

/// The members' names, in order: from here Python's stats() has them.
inline constexpr std::array<std::string_view, 13> state_stats_names{"attaches",
                                                                    "refusals",
                                                                    "states_made",
                                                                    "states_adopted",
                                                                    "states_kept",
                                                                    "states_freed",
                                                                    "states_forgotten",
                                                                    "overdue",
                                                                    "states_over_limit",
                                                                    "states_freed_late",
                                                                    "references_forgotten",
                                                                    "urgent_requests",
                                                                    "urgent_requests_denied"};
static_assert(sizeof(state_stats) == state_stats_names.size() * sizeof(std::uint64_t));

}  // namespace detail
MOORED_NAMESPACE_END
