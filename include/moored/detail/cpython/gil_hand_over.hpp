// moored/detail/cpython/gil_hand_over.hpp: a pending call in which a busy main thread hands the GIL
// over, for where its wait cannot be made to ask (gil_requests.hpp).
#pragma once

#include <Python.h>

#include <atomic>
#include <chrono>

#include "../lock.hpp"
#include "../stay_loaded.hpp"
#include "gil_view.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// One for each attach: made before it, gone when the thread is attached.
///
/// Main lets go and waits until no thread is on its way any more, but not for long: a thread may
/// have been descheduled. It does not count the threads that came: what was left of such a count
/// would have main take the GIL back before the thread that it let in is awake.
class gil_hand_over {
 public:
  /// False where a busy main thread notices no pending call. Attached to the main interpreter.
  [[nodiscard]] static bool prepare() noexcept {
    if (!pending_calls_interrupt || !has_gil) return false;
    if (!prepared_.load(std::memory_order_relaxed)) {
      gil_view::find();
      prepared_.store(true, std::memory_order_release);
    }
    return true;
  }
  [[nodiscard]] static bool is_prepared() noexcept {
    return prepared_.load(std::memory_order_acquire);
  }

  /// Also while the GIL is free: main may be about to take it.
  gil_hand_over() noexcept : asks_(gil_view::look() != gil_view::holder::other) {
    if (!asks_) return;
    moored::detail::stay_loaded();
    coming_.fetch_add(1, std::memory_order_seq_cst);
    call();
  }
  ~gil_hand_over() {
    if (!asks_ || coming_.fetch_sub(1, std::memory_order_seq_cst) != 1) return;
    const moored::detail::locked lock(mutex_);
    come_.notify_one();
  }
  gil_hand_over(const gil_hand_over&) = delete;
  gil_hand_over& operator=(const gil_hand_over&) = delete;

  /// The threads that were on their way are not here.
  static void after_fork_in_child() noexcept {
    mutex_.renew();
    come_.renew();
    coming_.store(0);
    called_.store(false);
  }

 private:
  static constexpr std::chrono::microseconds longest{500};

  /// Unless main is called already. Where it has no place for a call, or is shutting down, the
  /// attach is an ordinary one.
  static void call() noexcept {
    if (called_.exchange(true, std::memory_order_acq_rel)) return;
    if (Py_AddPendingCall(let_go, nullptr) != 0) called_.store(false, std::memory_order_release);
  }

  /// On main, attached.
  static int let_go(void*) noexcept {
    called_.store(false, std::memory_order_release);
    if (coming_.load(std::memory_order_seq_cst) == 0) return 0;
    PyThreadState* const state = PyEval_SaveThread();
    {
      const moored::detail::locked lock(mutex_);
      while (coming_.load(std::memory_order_seq_cst) != 0 && come_.wait_for(mutex_, longest)) {
      }
    }
    restore(state);
    if (coming_.load(std::memory_order_seq_cst) != 0) call();
    return 0;
  }

  static inline std::atomic<bool> prepared_{false}, called_{false};
  static inline std::atomic<int> coming_{0};
  MOORED_CONSTINIT static inline moored::detail::mutex mutex_;
  static inline moored::detail::condition come_;
  bool asks_;
};

}  // namespace cpython
MOORED_NAMESPACE_END
