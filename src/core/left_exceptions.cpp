// left_exceptions.cpp: see left_exceptions.hpp.
#include "left_exceptions.hpp"

#include <moored/detail/own_thread.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <thread>

namespace moored_core {

namespace {

namespace cpython = moored::cpython;
using moored::detail::adoption;
using moored::detail::epoch;

/// The states to look after. The GIL guards all of it; without a GIL there is none (a state may be
/// touched on its own thread alone), and the next call drops what was left.
class watch {
 public:
  void add(adoption* its) noexcept {
    for (const entry* one = first_; one != nullptr; one = one->next)
      if (one->of == its) return;
    auto* const made = new (std::nothrow) entry{its, first_};
    if (made == nullptr) return;
    its->owners.fetch_add(1, std::memory_order_relaxed);
    first_ = made;
    looks_ = 0;
    const epoch now = moored::detail::the_gate.now();
    if (running_in_ == now) return;
    try {
      moored::detail::start_own_thread([this, now] { run(now); }).detach();
      running_in_ = now;
    } catch (const std::exception&) {  // the next call, or the next exception, sees to it
    }
  }

  void forget_all() noexcept {
    first_ = nullptr;
    running_in_ = 0;
  }

 private:
  struct entry {
    adoption* of;
    entry* next;
  };

  // Not noexcept: a late thread may be unwound.
  void run(epoch now) {
    constexpr std::chrono::milliseconds longest{64};
    for (std::chrono::milliseconds pause{1};; pause = std::min(2 * pause, longest)) {
      {
        const moored::detail::passage through(now);
        if (!through) return;  // the interpreter ends
        if (const auto token = moored::detail::the_gate.try_ensure(now)) {
          const bool goes_on = look();
          PyGILState_Release(*token);
          if (!goes_on) return;
        }
      }
      std::this_thread::sleep_for(pause);
    }
  }

  /// Attached. False when this was the last look.
  [[nodiscard]] bool look() {
    constexpr int most_looks = 20;  // in about a second
    entry* rest = first_;
    first_ = nullptr;  // Python runs below, and may add
    ++looks_;
    while (rest != nullptr) {
      entry* const one = rest;
      rest = one->next;
      if (is_in_use(*one->of) && looks_ < most_looks) {
        one->next = first_;
        first_ = one;
        continue;
      }
      if (is_left(*one->of)) cpython::drop_exception_of(one->of->state);
      one->of->drop();
      delete one;
    }
    if (first_ == nullptr) running_in_ = 0;
    return first_ != nullptr;
  }

  [[nodiscard]] static bool is_set(const adoption& its) noexcept {
    return moored::detail::same_life(its.born_in, moored::detail::the_gate.now()) &&
           !its.released && !its.cleared && cpython::has_exception(its.state);
  }
  /// The call that was left by the exception goes on, and may yet take it.
  [[nodiscard]] static bool is_in_use(const adoption& its) noexcept {
    return is_set(its) && cpython::entries(its.state) > 1;
  }
  [[nodiscard]] static bool is_left(const adoption& its) noexcept {
    return is_set(its) && cpython::entries(its.state) == 1;
  }

  entry* first_ = nullptr;
  int looks_ = 0;
  epoch running_in_ = 0;  // the epoch in which the thread was started that is there
};

constinit watch the_watch;

}  // namespace

void look_after_exception() noexcept {
  adoption* const its = moored::detail::this_adoption;
  if (!cpython::has_gil || its == nullptr || PyEval_GetFrame() != nullptr) return;
  // The field is read here, and written when it is looked after, only where it is seen to be what
  // CPython's own answer goes by.
  if (cpython::current() != its->state || !cpython::has_exception(its->state) ||
      PyErr_Occurred() == nullptr || !cpython::can_read_entries(its->state))
    return;
  the_watch.add(its);
}

void drop_what_was_left() {
  if (cpython::current() != moored::detail::this_thread.kept) return;
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  if (PyEval_GetFrame() == nullptr) cpython::drop_sent_exception();
}

void forget_exceptions_after_fork() noexcept {
  the_watch.forget_all();
}

}  // namespace moored_core
