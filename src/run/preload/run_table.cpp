// run_table.cpp: what `import moored` asks of `moored run`, in whose program it is.
#include "weak_python.hpp"

#include "../run_table.hpp"

#include <moored/attach.hpp>
#include <moored/interpreter.hpp>

#include <chrono>

#include "next.hpp"

namespace moored::run {

namespace {

[[nodiscard]] run_counts counted() {
  const counters now = moored::count();
  return {now.attaches,          now.refusals,         now.states_made,      now.states_adopted,
          now.states_kept,       now.states_freed,     now.states_forgotten, now.overdue,
          now.states_over_limit, now.states_freed_late};
}

void set_bound(std::int64_t milliseconds) {
  moored::set_closing_bound(std::chrono::milliseconds(milliseconds));
}

}  // namespace

extern "C" {

MOORED_EXPORT extern const run_table MOORED_RUN_TABLE;
const run_table MOORED_RUN_TABLE{sizeof(run_table), [] { moored::release_thread(); }, counted,
                                 set_bound};

}  // extern "C"

}  // namespace moored::run
