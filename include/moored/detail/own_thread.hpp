// moored/detail/own_thread.hpp: threads that moored starts.
#pragma once

#include <signal.h>

#include <thread>
#include <utility>

#include "config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// What such a thread does. Not a closure within std::thread's own templates: g++ makes what it
/// instantiates for a closure of an inline function visible, hidden namespace or not.
template <class Work>
class own_work {
 public:
  explicit own_work(Work work) : work_(std::move(work)) {}
  static void run(void* its) {
    auto* const mine = static_cast<own_work*>(its);
    mine->work_();
    delete mine;
  }

 private:
  Work work_;
};

/// A thread that runs `work`, and takes none of the program's signals. Any thread, attached or not.
/// Throws what std::thread throws, and std::bad_alloc.
template <class Work>
[[nodiscard]] std::thread start_own_thread(Work work) {
  auto* const its = new own_work<Work>(std::move(work));
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread started(&own_work<Work>::run, static_cast<void*>(its));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    delete its;
    throw;
  }
}

}  // namespace detail
MOORED_NAMESPACE_END
