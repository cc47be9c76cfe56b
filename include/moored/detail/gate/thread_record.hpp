// moored/detail/gate/thread_record.hpp: what a thread knows about itself, as one state machine.
//
// Two questions, each with named answers: what does the thread keep, and where has moored led it.
// docs/design/thread-states.md has the table of the transitions and of the combinations. Debug
// builds, and the torture, check every one of them.
#pragma once

#include <Python.h>

#include <cassert>
#include <cstdint>

#include "../cpython/attached.hpp"
#include "gate.hpp"
#include "kept_list.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// What a thread keeps from call to call.
enum class keeping : std::uint8_t {
  nothing,  ///< No state.
  made,     ///< A state that moored made: it lives as long as the thread.
  adopted,  ///< A state that another binding made.
  ended,    ///< No state, and none from now on: the thread is ending.
  stale,  ///< No state, and none from now on: CPython shows the thread a state of an earlier life.
};

/// Where moored has led a thread.
enum class presence : std::uint8_t {
  outside,   ///< Not counted in at the gate.
  inside,    ///< Counted in, with a state of its own, attached or within a detachment.
  visiting,  ///< The same, and attached to another interpreter than it would be by PyGILState.
  sharing,   ///< Counted in, attached by the shared or the borrowed state.
  lending,   ///< In a `lending` scope: its own state is for others.
};

/// Whether, and why, a kept state is released with the outermost attachment.
enum class departure : std::uint8_t { none, asked, over_limit };

/// What one thread knows. Only its own thread reads and writes it. It has no destructor, so that it
/// can still be read while other thread_locals are destroyed.
class thread_record {
 public:
  PyThreadState* kept = nullptr;     ///< The state that this thread keeps.
  epoch kept_in = 0;                 ///< The epoch in which it was kept.
  epoch fast = 0;                    ///< The same while try_attach() may take its short way.
  PyThreadState* shared = nullptr;   ///< The shared or borrowed state that this thread is using.
  keeper* listed = &unlisted;        ///< What other threads see of its keeping.
  attendance* counted_in = nullptr;  ///< Where it is counted in at the gate; null: it is not.
  attendance* seat = nullptr;        ///< Its own place at the gate; null before it keeps a state.

  [[nodiscard]] keeping keeps() const noexcept { return keeping_; }
  [[nodiscard]] presence where() const noexcept {
    if (led_ != presence::outside) return led_;
    return counted_in != nullptr ? presence::inside : presence::outside;
  }
  [[nodiscard]] departure leaves() const noexcept { return departure_; }
  /// No state is kept for this thread any more.
  [[nodiscard]] bool is_ending() const noexcept { return keeping_ == keeping::ended; }
  /// On a state that is not its own, or without one that is.
  [[nodiscard]] bool is_lent() const noexcept {
    return led_ == presence::sharing || led_ == presence::lending;
  }
  /// True when the state that it keeps is of the epoch that is there now.
  [[nodiscard]] bool keeps_now() const noexcept {
    return kept != nullptr && same_life(kept_in, the_gate.now());
  }

  // What it keeps.

  /// nothing -> made or adopted.
  void keep(keeping what, PyThreadState* state, epoch now) noexcept {
    assert(keeping_ == keeping::nothing && (what == keeping::made || what == keeping::adopted));
    keeping_ = what;
    kept = state;
    kept_in = now;
    settle();
  }
  /// made or adopted -> nothing.
  void keep_nothing() noexcept {
    assert(keeping_ == keeping::made || keeping_ == keeping::adopted);
    keeping_ = keeping::nothing;
    kept = nullptr;
    kept_in = 0;
    departure_ = departure::none;
    listed = &unlisted;
    settle();
  }
  /// nothing -> ended or stale, for good; stale -> ended.
  void keep_no_more(keeping why) noexcept {
    assert((why == keeping::ended || why == keeping::stale) && kept == nullptr);
    keeping_ = why;
    check();
  }
  /// The kept state is to be released with the outermost attachment, or no longer.
  void leave_with_attachment(departure why) noexcept {
    assert(kept != nullptr);
    departure_ = why;
    settle();
  }

  // Where it is.

  /// outside -> inside.
  MOORED_ALWAYS_INLINE void enter(attendance& present) noexcept {
    assert(where() == presence::outside);
    counted_in = &present;
    check();
  }
  /// inside -> outside: where it was counted in, for the caller to leave.
  [[nodiscard]] MOORED_ALWAYS_INLINE attendance& leave() noexcept {
    assert(where() == presence::inside);
    attendance& present = *counted_in;
    counted_in = nullptr;
    check();
    return present;
  }
  /// inside -> visiting; again for a visit within a visit.
  void begin_visit() noexcept {
    assert(where() == presence::inside || where() == presence::visiting);
    led_ = presence::visiting;
    check();
  }
  /// visiting -> inside, at the end of the outermost visit.
  void end_visits() noexcept {
    assert(where() == presence::visiting);
    led_ = presence::outside;
    check();
  }
  /// inside -> sharing.
  void share(PyThreadState* state) noexcept {
    assert(where() == presence::inside && state != nullptr);
    shared = state;
    led_ = presence::sharing;
    check();
  }
  /// sharing -> inside.
  void share_no_more() noexcept {
    assert(where() == presence::sharing);
    shared = nullptr;
    led_ = presence::outside;
    check();
  }
  /// outside or inside -> lending.
  void lend() noexcept {
    assert(led_ == presence::outside);
    led_ = presence::lending;
    settle();
  }
  /// lending -> where it was.
  void lend_no_more() noexcept {
    assert(where() == presence::lending);
    led_ = presence::outside;
    settle();
  }
  /// In the child of a fork, on the thread that forked: what it kept is CPython's. Where it is
  /// stays as it was.
  void forget_all_after_fork() noexcept {
    if (kept != nullptr) {
      keeping_ = keeping::nothing;
      kept = nullptr;
      kept_in = 0;
      departure_ = departure::none;
    }
    listed = &unlisted;  // the entry is lost with the list
    settle();
  }

  /// The invariants. Every transition ends with it.
  void check() const noexcept {
#ifndef NDEBUG
    const bool keeps_one = keeping_ == keeping::made || keeping_ == keeping::adopted;
    assert((kept != nullptr) == keeps_one);
    assert((kept_in != 0) == keeps_one);
    assert(keeps_one || (departure_ == departure::none && listed == &unlisted));
    assert(fast == fast_now());
    assert((shared != nullptr) == (led_ == presence::sharing));
    assert(led_ == presence::outside || led_ == presence::lending || counted_in != nullptr);
    assert(led_ != presence::sharing || !keeps_one);
#endif
  }

 private:
  [[nodiscard]] epoch fast_now() const noexcept {
    const bool is_fast = keeping_ == keeping::made && departure_ == departure::none &&
                         led_ != presence::lending && seat != nullptr;
    return is_fast ? kept_in : 0;
  }
  /// Ends every transition but the two that an attach makes.
  void settle() noexcept {
    fast = fast_now();
    check();
  }

  keeping keeping_ = keeping::nothing;
  presence led_ = presence::outside;  // never inside: that goes by counted_in
  departure departure_ = departure::none;
};

MOORED_TLS_MODEL MOORED_CONSTINIT inline thread_local thread_record this_thread;
static_assert(sizeof(thread_record) <= 64);

/// this_thread, looked up once: g++ would look it up again after every call, which costs a call
/// itself with the ordinary TLS model.
[[nodiscard]] MOORED_ALWAYS_INLINE thread_record& found_once() noexcept {
  thread_record* me = &this_thread;
  asm("" : "+r"(me));
  return *me;
}

// The three questions about being attached. Each may be asked by any thread at any time.

/// Is this thread attached at all, by whatever state, to whatever interpreter?
[[nodiscard]] inline bool is_attached(const thread_record& me) noexcept {
  if (me.where() == presence::lending) return false;
  if constexpr (cpython::current_is_per_thread) return cpython::current() != nullptr;
  return cpython::is_attached_by(me.shared != nullptr ? me.shared
                                 : me.keeps_now()     ? me.kept
                                                      : nullptr);
}
[[nodiscard]] inline bool is_attached() noexcept {
  return is_attached(this_thread);
}

/// By which state is it attached? Null when it is not.
[[nodiscard]] inline PyThreadState* attached_state(const thread_record& me) noexcept {
  return is_attached(me) ? cpython::current() : nullptr;
}

/// To which interpreter is it attached? Null when it is not.
[[nodiscard]] inline PyInterpreterState* attached_interpreter(const thread_record& me) noexcept {
  PyThreadState* const state = attached_state(me);
  return state == nullptr ? nullptr : PyThreadState_GetInterpreter(state);
}
[[nodiscard]] inline bool is_attached_to_main(const thread_record& me) noexcept {
  PyInterpreterState* const there = attached_interpreter(me);
  return there != nullptr && there == PyInterpreterState_Main();
}

}  // namespace detail
MOORED_NAMESPACE_END
