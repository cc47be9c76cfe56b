// moored/attach.hpp: attachment, try_attach, attach, detachment, keep_thread: how a native thread
// enters Python.
#pragma once

#include <array>
#include <cassert>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "adopted_state.hpp"
#include "guest_state.hpp"
#include "kept_state.hpp"
#include "subinterpreter.hpp"

namespace moored::inline v0 {

/// Which thread state a foreign thread enters with. A thread that has a state of its own always
/// uses that one.
enum class strategy : std::uint8_t {
  temporary,  ///< Made and destroyed by every attach, as PyGILState_Ensure and Release do. The
              ///< baseline.
  kept,       ///< Made by the thread's first attach, and its own until it ends. The default.
  side,       ///< One state on the side, for one foreign thread at a time.
  borrowed,   ///< The state of a thread that idles in a `lending` scope.
};

inline constexpr std::array strategies{strategy::temporary, strategy::kept, strategy::side,
                                       strategy::borrowed};

[[nodiscard]] constexpr std::string_view name(strategy how) noexcept {
  constexpr std::array<std::string_view, strategies.size()> names{"temporary", "kept", "side",
                                                                  "borrowed"};
  return names[static_cast<std::size_t>(how)];
}

[[nodiscard]] constexpr std::optional<strategy> strategy_named(std::string_view wanted) noexcept {
  for (const strategy how : strategies) {
    if (name(how) == wanted) return how;
  }
  return std::nullopt;
}

/// Thrown by attach().
class interpreter_closed : public std::runtime_error {
 public:
  explicit interpreter_closed(refusal why) : std::runtime_error(describe(why)), why_(why) {}
  [[nodiscard]] refusal why() const noexcept { return why_; }

 private:
  refusal why_;
};

/// While it lives and tests true, its thread is attached: it holds the GIL and may call Python.
///
/// An exception that is still set when the outermost attachment of a native thread ends goes to
/// sys.unraisablehook.
///
/// Movable, but within its thread only. Attachments of one thread end in the reverse order of their
/// beginning.
class [[nodiscard]] attachment {
 public:
  attachment() noexcept = default;
  attachment(attachment&& other) noexcept
      : how_(std::exchange(other.how_, undo::nothing)),
        counted_in_(other.counted_in_),
        token_(other.token_),
        why_(std::exchange(other.why_, refusal::no_interpreter)) {}
  attachment& operator=(attachment&& other) noexcept {
    if (this != &other) {
      end();
      how_ = std::exchange(other.how_, undo::nothing);
      counted_in_ = other.counted_in_;
      token_ = other.token_;
      why_ = std::exchange(other.why_, refusal::no_interpreter);
    }
    return *this;
  }
  ~attachment() { end(); }

  /// True when the thread is attached.
  [[nodiscard]] explicit operator bool() const noexcept { return why_ == refusal::none; }
  /// Why it is not.
  [[nodiscard]] refusal why() const noexcept { return why_; }

  /// Ends it before its scope does. Ending it again does nothing.
  void end() noexcept {
    if (how_ != undo::nothing) undo_attach();
    how_ = undo::nothing;
    why_ = refusal::no_interpreter;
  }

 private:
  friend attachment try_attach(strategy) noexcept;
  friend attachment attach_slowly(strategy) noexcept;
  friend attachment try_attach(const interpreter&) noexcept;

  enum class undo : std::uint8_t {
    nothing,         // nested: somebody further out is attached
    save,            // PyEval_SaveThread: our own kept state
    release,         // PyGILState_Release: somebody else's state, or a temporary one
    free_temporary,  // the same, and count it
    stop_being_guest,
    end_visit,  // to a subinterpreter; that knows whether it was counted in
  };

  explicit attachment(refusal why) noexcept : why_(why) {}
  attachment(undo how, bool counted_in, PyGILState_STATE token = PyGILState_UNLOCKED) noexcept
      : how_(how), counted_in_(counted_in), token_(token), why_(refusal::none) {}

  void undo_attach() const noexcept;

  undo how_ = undo::nothing;
  bool counted_in_ = false;
  PyGILState_STATE token_ = PyGILState_UNLOCKED;
  refusal why_ = refusal::no_interpreter;
};

inline void attachment::undo_attach() const noexcept {
  detail::thread_record& me = detail::this_thread;
  // Unwound by CPython out of Python code, on its way through frames that may be noexcept; perhaps
  // when the interpreter is gone already.
  if (cpython::unwinds_late_threads && !detail::gate::is_open(detail::the_gate.now()) &&
      !me.is_attached()) [[unlikely]]
    cpython::stop_this_thread();
  assert(me.is_attached() && "an attachment ends on its own thread, while that thread is attached");
  // On a state that outlives the attachment, the thread's next call would meet an exception that
  // this one has left set. Somebody further out, or the owner of the state, may mean it.
  const bool is_outermost = counted_in_ || how_ == undo::end_visit;
  const PyThreadState* const known = how_ == undo::save ? me.kept : nullptr;
  if (is_outermost && how_ != undo::release && cpython::has_exception(known)) [[unlikely]]
    cpython::report_exception();
  switch (how_) {
    case undo::nothing:
      return;
    case undo::save:
      if (me.letting_go == detail::departure::none || !counted_in_) [[likely]] {
        PyEval_SaveThread();
      } else {
        detail::release_kept_state(me, PyGILState_UNLOCKED);
      }
      break;
    case undo::free_temporary:
      if (me.kept == nullptr) cpython::drop_locals_before_last_release(detail::adoption_key);
      detail::the_gate.freed.fetch_add(1, std::memory_order_relaxed);
      [[fallthrough]];
    case undo::release:
      PyGILState_Release(token_);
      if (me.letting_go == detail::departure::over_limit && counted_in_) detail::let_go(me);
      break;
    case undo::stop_being_guest:
      detail::stop_being_guest(me);
      break;
    case undo::end_visit:
      return detail::end_visit(me);
  }
  if (!counted_in_) return;
  if (me.kept != nullptr) me.listed->rest(detail::the_gate.clock());
  me.inside = false;
  detail::the_gate.leave();
}

namespace detail {

/// The first attach of a process whose gate nobody opened. It borrows protection from a guard where
/// there is one (3.15).
[[nodiscard]] inline refusal open_from_outside() noexcept {
  const cpython::interpreter_guard guard;
  if (!guard) return cpython::is_running() ? refusal::no_memory : refusal::no_interpreter;
  const auto token = cpython::try_ensure();
  if (!token) return refusal::no_memory;
  refusal why = refusal::none;
  if (!the_gate.open()) {
    why = PyErr_ExceptionMatches(PyExc_MemoryError) ? refusal::no_memory : refusal::no_interpreter;
    PyErr_Clear();
  }
  PyGILState_Release(*token);
  return why;
}

}  // namespace detail

/// Everything that is not the second and later attach of a thread that keeps its state.
[[gnu::noinline]] inline attachment attach_slowly(strategy how) noexcept {
  using detail::the_gate;
  using undo = attachment::undo;
  detail::thread_record& me = detail::this_thread;
  const auto refuse = [](refusal why) {
    the_gate.refusals.fetch_add(1, std::memory_order_relaxed);
    return attachment(why);
  };
  if (me.lending) return refuse(refusal::not_idle);
  if (me.is_attached()) return {undo::nothing, false};
  if (me.abroad) {
    detail::resume_visit();
    return {undo::save, false};
  }

  // Within a detachment the thread is counted in already, and shutdown is waiting for it.
  const bool counts_in = !me.inside;
  detail::life now = the_gate.now();
  if (counts_in && me.kept != nullptr && me.kept_in != now) detail::forget_state(me);
  if (counts_in) {
    if (the_gate.closing()) return refuse(refusal::closing);
    if (me.stale) return refuse(refusal::stale_thread);
    if (!the_gate.is_open(now)) {
      if (!cpython::is_running()) return refuse(refusal::no_interpreter);
      const refusal why = detail::open_from_outside();
      if (why != refusal::none) return refuse(why);
      now = the_gate.now();
    }
    if (!the_gate.enter(now)) return refuse(refusal::closing);
  }
  const auto turn_back = [&](refusal why) {
    if (counts_in) {
      me.inside = false;
      the_gate.leave_unused();
    }
    return refuse(why);
  };
  me.inside = true;
  if (cpython::this_thread_state() != nullptr) {
    if (counts_in && me.kept != nullptr) detail::come_back(me);
    if (me.fast != 0) {
      cpython::restore(me.kept);
      return {undo::save, counts_in};
    }
    return {undo::release, counts_in, cpython::ensure()};
  }
  switch (how) {
    case strategy::kept:
      if (me.retired) break;
      if (!detail::make_kept_state(me, now)) return turn_back(the_gate.why_no_state(now));
      return {undo::save, counts_in};
    case strategy::side:
    case strategy::borrowed: {
      const refusal why = detail::become_guest(
          me, how == strategy::side ? detail::the_side : detail::the_loan, now);
      if (why == refusal::none) return {undo::stop_being_guest, counts_in};
      return turn_back(why);
    }
    case strategy::temporary:
      break;
  }
  const auto token = the_gate.try_ensure(now);
  if (!token) return turn_back(the_gate.why_no_state(now));
  the_gate.made.fetch_add(1, std::memory_order_relaxed);
  return {undo::free_temporary, counts_in, *token};
}

/// Attaches the calling thread to the main interpreter, or, within an attachment to a
/// subinterpreter, to that. The result tests false when that is not possible: no interpreter, one
/// that is shutting down, or no memory for a thread state. Any thread, with or without the GIL.
///
/// On a thread that is attached already, by whomever, this does nothing and costs a few ns. Waits
/// for the GIL, so do not call it with a lock held that somebody may want who holds the GIL.
inline attachment try_attach(strategy how = strategy::kept) noexcept {
  detail::thread_record& me = detail::this_thread;
  if (how == strategy::kept && me.fast != 0 && !me.inside) [[likely]] {
    // Counted in before asking whether somebody else has attached this thread: the other order
    // measures dearer.
    if (detail::the_gate.enter(me.fast)) [[likely]] {
      if (cpython::is_attached(me.kept)) [[unlikely]] {
        detail::the_gate.leave_unused();
        return attach_slowly(how);
      }
      me.inside = true;
      detail::come_back(me);
      cpython::restore(me.kept);
      return {attachment::undo::save, true};
    }
  }
  return attach_slowly(how);
}

/// Attaches the calling thread to one interpreter, by a state that it keeps there. Any thread.
///
/// On a thread that is attached to another interpreter, that one is left for as long. Refused when
/// the interpreter, or the main one, is shutting down; when the thread is ending; and on a side or
/// borrowed state.
inline attachment try_attach(const interpreter& where) noexcept {
  if (where.is_main()) return try_attach();
  if (detail::is_visiting(*where.sub_)) return {attachment::undo::nothing, false};
  const refusal why = detail::visit_subinterpreter(detail::this_thread, where.sub_);
  if (why == refusal::none) return {attachment::undo::end_visit, false};
  detail::the_gate.refusals.fetch_add(1, std::memory_order_relaxed);
  return attachment(why);
}

/// As try_attach, but throws interpreter_closed where that tests false.
[[nodiscard]] inline attachment attach(strategy how = strategy::kept) {
  attachment attached = try_attach(how);
  if (!attached) throw interpreter_closed(attached.why());
  return attached;
}

/// Lets go of the GIL for a scope. On a thread that is not attached it does nothing.
///
/// Its end waits for the GIL. Shutdown waits for the thread, if that entered Python through an
/// attachment.
class detachment {
 public:
  detachment() noexcept
      : state_(detail::this_thread.is_attached() ? PyEval_SaveThread() : nullptr) {}
  ~detachment() {
    if (state_ != nullptr) cpython::restore(state_);
  }
  detachment(const detachment&) = delete;
  detachment& operator=(const detachment&) = delete;

 private:
  PyThreadState* state_;
};

/// Keeps the calling thread's state from now on, so that every binding on this thread finds it and
/// becomes fast. Does not leave the thread attached if it was not. Called again it does nothing.
/// Any thread, attached or not.
///
/// Inside a callback of another binding it adopts the state that the binding made. Such a state is
/// freed after its thread has ended, by a thread of moored's, so that the end of a thread whose
/// code is not yours never waits for the GIL.
///
/// False when there is no interpreter or it is closing, when the thread is ending or had been idle
/// longest when the limit on kept states was exceeded, on a side or borrowed state, and on a state
/// of a subinterpreter. On 3.15 a state that PyThreadState_Ensure made dies with its callback all
/// the same.
inline bool keep_thread() {
  detail::thread_record& me = detail::this_thread;
  if (me.retired || me.lending || me.guest != nullptr) return false;
  const attachment attached = try_attach();
  return attached && detail::adopt_attached_state();
}

/// Lets the calling thread's kept state go before the thread ends; does nothing when it keeps none.
/// Called within an attachment, the state goes when the outermost attachment ends. Any thread,
/// attached or not.
inline void release_thread() noexcept {
  detail::thread_record& me = detail::this_thread;
  if (me.kept == nullptr || me.lending) return;
  detail::let_go(me);
}

}  // namespace moored::inline v0
