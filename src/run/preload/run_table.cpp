// run_table.cpp: what `import moored` asks of `moored run`, in whose program it is.
#include "weak_python.hpp"

#include "../run_table.hpp"

#include <moored/attach.hpp>
#include <moored/interpreter.hpp>
#include <moored/urgent.hpp>

#include <chrono>
#include <cstring>

#include "next.hpp"

namespace moored::run {

namespace {

[[nodiscard]] run_stats stats_of_run() {
  const state_stats now = moored::stats();
  run_stats first{};
  static_assert(sizeof first <= sizeof now);
  std::memcpy(&first, &now, sizeof first);
  return first;
}

void set_bound(std::int64_t milliseconds) {
  moored::set_closing_bound(std::chrono::milliseconds(milliseconds));
}

}  // namespace

extern "C" {

MOORED_EXPORT extern const run_table MOORED_RUN_TABLE;
const run_table MOORED_RUN_TABLE{sizeof(run_table), [] { moored::release_thread(); }, stats_of_run,
                                 set_bound, [](double share) { moored::set_urgent_budget(share); }};

}  // extern "C"

}  // namespace moored::run
