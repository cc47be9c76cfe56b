// moored/detail/channel/own_thread.hpp: threads that moored starts by itself.
#pragma once

#include <pthread.h>

#include <csignal>
#include <thread>
#include <utility>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Starts a thread that lives on its own. It takes no signals: one that a thread of moored's gets
/// would not end the system call in which the program's own threads wait. Throws std::system_error
/// without a thread, and std::bad_alloc.
template <class Work>
void start_thread(Work work) {
  struct blocked {
    sigset_t before;
    blocked() noexcept {
      sigset_t all;
      sigfillset(&all);
      for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
        sigdelset(&all, fault);
      pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~blocked() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
  };
  const blocked signals;
  std::thread(std::move(work)).detach();
}

}  // namespace detail
MOORED_NAMESPACE_END
