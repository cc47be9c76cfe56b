// moored/attach.hpp: attachment, try_attach, attach, detachment, keep_thread: how a native thread
// enters Python.
#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

#include "detail/states/adopted.hpp"
#include "detail/states/visits.hpp"
#include "interpreter.hpp"
#include "study/shared_states.hpp"

MOORED_NAMESPACE_BEGIN

/// Which thread state a foreign thread enters with. A thread that has a state of its own always
/// uses that one.
enum class strategy : std::uint8_t {
  temporary,  ///< Made and destroyed by every attach, as PyGILState_Ensure and Release do. The
              ///< baseline.
  kept,       ///< Made by the thread's first attach, and its own until it ends. The default.
  shared,     ///< One state on the side, for one foreign thread at a time.
  borrowed,   ///< The state of a thread that idles in a `lending` scope.
};

inline constexpr std::array<strategy, 4> strategies{strategy::temporary, strategy::kept,
                                                    strategy::shared, strategy::borrowed};

[[nodiscard]] constexpr std::string_view name(strategy how) noexcept {
  constexpr std::array<std::string_view, strategies.size()> names{"temporary", "kept", "shared",
                                                                  "borrowed"};
  return names[static_cast<std::size_t>(how)];
}

[[nodiscard]] constexpr std::optional<strategy> strategy_named(std::string_view wanted) noexcept {
  for (const strategy how : strategies) {
    if (name(how) == wanted) return how;
  }
  return std::nullopt;
}

/// For try_attach(urgent), keep_thread(urgent) and install(urgent): see urgent.hpp.
struct urgent_t {
  explicit urgent_t() = default;
};
inline constexpr urgent_t urgent{};

/// Thrown by attach().
class interpreter_closed : public std::runtime_error {
 public:
  explicit interpreter_closed(refusal why) : std::runtime_error(describe(why)), why_(why) {}
  [[nodiscard]] refusal why() const noexcept { return why_; }

 private:
  refusal why_;
};

#ifndef NDEBUG
namespace detail {
/// How many attachments of this thread are live, to notice those that end in the wrong order.
MOORED_CONSTINIT inline thread_local std::uint16_t live_attachments = 0;
}  // namespace detail
#endif

namespace detail {

/// How an attachment has begun, and with that how it ends. It is passed by value, in two registers:
/// so an attachment that is a local variable need not be in memory.
struct beginning {
  enum class undo : std::uint8_t {
    nothing,         ///< Nested: the thread was attached already. Or it is not attached.
    save,            ///< PyEval_SaveThread: our own kept state.
    save_and_pay,    ///< The same, for which the GIL was asked for at once.
    release,         ///< PyGILState_Release: another binding's state.
    free_temporary,  ///< The same, of a temporary one: and count it.
    stop_sharing,
    end_visit,  ///< To another interpreter; the visit knows whether it was counted in.
  };

  thread_record* seated = nullptr;  ///< Its thread's, when begun by the short way: undo is save.
  undo how = undo::nothing;
  bool counted_in = false;  ///< By this attachment.
  std::uint8_t token = PyGILState_UNLOCKED;
  refusal why = refusal::no_interpreter;
  std::uint16_t depth = 0;  ///< Debug builds: among the live attachments of the thread.

  [[nodiscard]] static beginning refused(refusal why) noexcept {
    beginning none;
    none.why = why;
    return none;
  }
  [[nodiscard]] static beginning attached(undo how, bool counted_in,
                                          PyGILState_STATE token = PyGILState_UNLOCKED) noexcept {
    return {nullptr, how, counted_in, static_cast<std::uint8_t>(token), refusal::none, 0};
  }
  [[nodiscard]] static beginning by_seat(thread_record& me) noexcept {
    return {&me, undo::save, true, PyGILState_UNLOCKED, refusal::none, 0};
  }
};
static_assert(sizeof(beginning) <= 2 * sizeof(void*) && std::is_trivially_copyable_v<beginning>);

[[nodiscard]] beginning attach_slowly(strategy how) noexcept;
[[nodiscard]] bool end_by_seat(thread_record& me) noexcept;
void undo_attach(beginning begun) noexcept;

}  // namespace detail

/// While it lives and tests true, its thread is attached: it holds the GIL and may call Python.
///
/// An exception that is still set when the outermost attachment of a native thread ends goes to
/// sys.unraisablehook.
///
/// Movable, but within its thread only. Attachments of one thread end in the reverse order of their
/// beginning. Assigning one into another that is live ends the assigned-to one without the thread
/// being detached at the end: it is attached to the interpreter of the assigned one.
class MOORED_PUBLIC_TYPE [[nodiscard]] attachment {
 public:
  attachment() noexcept = default;
  MOORED_HIDDEN attachment(attachment&& other) noexcept : begun_(std::exchange(other.begun_, {})) {}
  MOORED_HIDDEN attachment& operator=(attachment&& other) noexcept;
  MOORED_HIDDEN MOORED_ALWAYS_INLINE ~attachment() { end(); }

  /// True when the thread is attached.
  MOORED_HIDDEN [[nodiscard]] explicit operator bool() const noexcept {
    return begun_.why == refusal::none;
  }
  /// Why it is not.
  MOORED_HIDDEN [[nodiscard]] refusal why() const noexcept { return begun_.why; }

  /// Ends it before its scope does. Ending it again does nothing.
  MOORED_HIDDEN MOORED_ALWAYS_INLINE void end() noexcept {
    count_end();
    const detail::beginning begun = std::exchange(begun_, {});
    if (begun.seated != nullptr && detail::end_by_seat(*begun.seated)) return;
    if (begun.how != undo::nothing) detail::undo_attach(begun);
  }

 private:
  friend attachment try_attach(strategy) noexcept;
  friend attachment try_attach(const interpreter&) noexcept;
  friend attachment try_attach(urgent_t) noexcept;
  using undo = detail::beginning::undo;

  MOORED_HIDDEN MOORED_ALWAYS_INLINE explicit attachment(detail::beginning begun) noexcept
      : begun_(begun) {
#ifndef NDEBUG
    if (begun_.why == refusal::none) begun_.depth = ++detail::live_attachments;
#endif
  }
  MOORED_HIDDEN void count_end() const noexcept {
#ifndef NDEBUG
    if (begun_.why != refusal::none) return;
    assert(begun_.depth == detail::live_attachments &&
           "attachments end in the reverse order of their beginning, each on its own thread");
    --detail::live_attachments;
#endif
  }

  detail::beginning begun_;
};

/// The end of what the short way of try_attach() began, when there is nothing else to do and the
/// gate is open; false, with nothing done, when that is not so. On the thread of the attachment,
/// attached.
MOORED_ALWAYS_INLINE bool detail::end_by_seat(thread_record& me) noexcept {
  assert(&me == &this_thread && "an attachment ends on its own thread");
  if (MOORED_UNLIKELY(me.fast != the_gate.seat_epoch())) return false;
  if constexpr (cpython::unwinds_late_threads) {
    if (MOORED_UNLIKELY(the_gate.ends_unseen()) && !cpython::is_attached_by(me.kept)) return false;
  }
  if (MOORED_UNLIKELY(cpython::has_exception(*me.kept))) return false;
  assert(is_attached(me) && "an attachment ends on its own thread, while that thread is attached");
  PyEval_SaveThread();
  me.leave().leave_seat();
  return true;
}

/// The end of any attachment, by the long way. On its own thread, attached.
[[gnu::noinline]] inline void detail::undo_attach(beginning begun) noexcept {
  using undo = beginning::undo;
  thread_record& me = this_thread;
  // Unwound by CPython out of Python code, on its way through frames that may be noexcept; perhaps
  // when the interpreter is gone already.
  if (MOORED_UNLIKELY(cpython::unwinds_late_threads &&
                      (!is_open(the_gate.now()) || the_gate.ends_unseen()) && !is_attached(me)))
    cpython::stop_this_thread();
  assert(is_attached(me) && "an attachment ends on its own thread, while that thread is attached");
  // On a state that outlives the attachment, the thread's next call would meet an exception that
  // this one has left set. Code further out, or the owner of the state, may mean it.
  const bool is_outermost = begun.counted_in || begun.how == undo::end_visit;
  const bool saves = begun.how == undo::save || begun.how == undo::save_and_pay;
  const PyThreadState* const known = saves ? me.kept : nullptr;
  if (MOORED_UNLIKELY(is_outermost && begun.how != undo::release && cpython::has_exception(known)))
    cpython::report_exception();
  if (is_outermost) cpython::settle_urgent_turn();
  const auto token = static_cast<PyGILState_STATE>(begun.token);
  switch (begun.how) {
    case undo::nothing:
      return;
    case undo::save:
    case undo::save_and_pay:
      if (MOORED_LIKELY(me.leaves() == departure::none || !begun.counted_in)) {
        PyEval_SaveThread();
      } else {
        free_made_state(me, PyGILState_UNLOCKED);
      }
      break;
    case undo::free_temporary:
      if (me.kept == nullptr) {
        release_for_good(token);
      } else {
        the_gate.freed.fetch_add(1, std::memory_order_relaxed);
        cpython::release(token);
      }
      break;
    case undo::release:
      cpython::release(token);
      if (me.leaves() == departure::over_limit && begun.counted_in) release_adopted_state(me);
      break;
    case undo::stop_sharing:
      stop_sharing(me);
      break;
    case undo::end_visit:
      return end_visit(me);
  }
  if (!begun.counted_in) return;
  if (me.kept != nullptr && me.counted_in != me.seat) me.listed->rest(the_gate.clock());
  leave_gate(me);
}

namespace detail {

/// The first attach of a process whose gate is not open yet. It borrows protection from a guard
/// where there is one (3.15).
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
  cpython::release(*token);
  return why;
}

}  // namespace detail

/// Everything that is not the second and later attach of a thread that keeps its state.
[[gnu::noinline]] inline detail::beginning detail::attach_slowly(strategy how) noexcept {
  using undo = beginning::undo;
  expect_no_lock();
  thread_record& me = this_thread;
  const auto refuse = [](refusal why) {
    the_gate.refusals.fetch_add(1, std::memory_order_relaxed);
    return beginning::refused(why);
  };
  if (me.where() == presence::lending) return refuse(refusal::not_idle);
  if (is_attached(me)) return beginning::attached(undo::nothing, false);
  if (me.where() == presence::visiting) {
    resume_visit();
    return beginning::attached(undo::save, false);
  }

  // Within a detachment the thread is counted in already, and shutdown is waiting for it.
  const bool counts_in = me.counted_in == nullptr;
  epoch now = the_gate.now();
  if (counts_in && me.kept != nullptr && me.kept_in != now) forget_state(me, true);
  if (counts_in) {
    if (the_gate.closing()) return refuse(refusal::closing);
    if (me.keeps() == keeping::stale) return refuse(refusal::stale_thread);
    if (!is_open(now)) {
      if (!cpython::is_running()) return refuse(refusal::no_interpreter);
      const refusal why = open_from_outside();
      if (why != refusal::none) return refuse(why);
      now = the_gate.now();
    }
    attendance* const present = the_gate.enter(now);
    if (present == nullptr) return refuse(refusal::closing);
    me.enter(*present);
  } else if (the_gate.is_over(me.counted_in->opened, true)) {
    return refuse(refusal::closing);  // shutdown has given up on this thread
  }
  const auto turn_back = [&](refusal why) {
    if (counts_in) leave_gate_unused(me);
    return refuse(why);
  };
  if (cpython::this_thread_state() != nullptr) {
    if (counts_in && me.kept != nullptr) come_back(me);
    if (me.keeps() == keeping::made) {
      cpython::restore(me.kept);
      return beginning::attached(undo::save, counts_in);
    }
    return beginning::attached(undo::release, counts_in, cpython::ensure());
  }
  switch (how) {
    case strategy::kept:
      if (me.keeps() != keeping::nothing) break;
      if (!make_kept_state(me, now)) return turn_back(the_gate.why_no_state(now));
      return beginning::attached(undo::save, counts_in);
    case strategy::shared:
    case strategy::borrowed: {
      if (me.where() != presence::inside || !counts_in) break;
      const refusal why =
          start_sharing(me, how == strategy::shared ? the_shared : the_borrowed, now);
      if (why == refusal::none) return beginning::attached(undo::stop_sharing, counts_in);
      return turn_back(why);
    }
    case strategy::temporary:
      break;
  }
  const auto token = the_gate.try_ensure(now);
  if (!token) return turn_back(the_gate.why_no_state(now));
  the_gate.made.fetch_add(1, std::memory_order_relaxed);
  return beginning::attached(undo::free_temporary, counts_in, *token);
}

/// Attaches the calling thread to the main interpreter, or, on a thread that is attached to a
/// subinterpreter, to that. The result tests false when that is not possible: no interpreter, one
/// that is shutting down, or no memory for a thread state. Any thread, with or without the GIL.
///
/// On a thread that is attached already, by whatever code, this does nothing and costs a few ns.
/// Waits for the GIL, so do not call it with a lock held that a thread may want which holds the
/// GIL.
MOORED_ALWAYS_INLINE attachment try_attach(strategy how = strategy::kept) noexcept {
  detail::thread_record& me = detail::found_once();
  // Of an earlier epoch the kept state is a pointer, which a state of this one may have as well.
  if (MOORED_LIKELY(how == strategy::kept && me.fast == detail::the_gate.seat_epoch())) {
    if (MOORED_UNLIKELY(cpython::is_attached_by(me.kept)))
      return attachment(detail::beginning::attached(attachment::undo::nothing, false));
    if (MOORED_LIKELY(me.counted_in == nullptr &&
                      detail::the_gate.enter_by_seat(*me.seat, me.fast))) {
      me.enter(*me.seat);
      cpython::restore(me.kept);
      return attachment(detail::beginning::by_seat(me));
    }
  }
  return attachment(detail::attach_slowly(how));
}

/// Attaches the calling thread to one interpreter, by a state that it keeps there. Any thread,
/// attached or not.
///
/// On a thread that is attached to another interpreter, that one is left for as long. Refused when
/// the interpreter, or the main one, is shutting down; when the thread is ending; and on a shared
/// or borrowed state.
inline attachment try_attach(const interpreter& where) noexcept {
  detail::thread_record& me = detail::this_thread;
  refusal why = refusal::none;
  if (where.is_main()) {
    if (!detail::is_attached(me) && me.where() != detail::presence::visiting) return try_attach();
    if (detail::is_attached_to_main(me))
      return attachment(detail::beginning::attached(attachment::undo::nothing, false));
    why = detail::visit_main(me);
  } else {
    if (where.sub_->is_here())
      return attachment(detail::beginning::attached(attachment::undo::nothing, false));
    why = detail::visit_subinterpreter(me, where.sub_);
  }
  if (why == refusal::none)
    return attachment(detail::beginning::attached(attachment::undo::end_visit, false));
  detail::the_gate.refusals.fetch_add(1, std::memory_order_relaxed);
  return attachment(detail::beginning::refused(why));
}

inline attachment& attachment::operator=(attachment&& other) noexcept {
  if (this == &other) return *this;
  if (begun_.how == undo::nothing || other.begun_.why != refusal::none) {
    end();
    begun_ = std::exchange(other.begun_, {});
    return *this;
  }
  // `other` began within this one.
  if (other.begun_.how == undo::end_visit) {
    const interpreter there = interpreter::visited();
    other.end();
    end();
    attachment again = try_attach(there);
    begun_ = std::exchange(again.begun_, {});
  } else {
    other.end();  // nested: this one goes on
  }
  return *this;
}

/// As try_attach, but throws interpreter_closed where that tests false.
[[nodiscard]] inline attachment attach(strategy how = strategy::kept) {
  attachment attached = try_attach(how);
  if (!attached) throw interpreter_closed(attached.why());
  return attached;
}
/// The same for one interpreter.
[[nodiscard]] inline attachment attach(const interpreter& where) {
  attachment attached = try_attach(where);
  if (!attached) throw interpreter_closed(attached.why());
  return attached;
}

/// Lets go of the GIL for a scope. On a thread that is not attached it does nothing.
///
/// Its end waits for the GIL. Shutdown waits for the thread, if that entered Python through an
/// attachment, but not for ever: when shutdown has stopped waiting, or the interpreter is gone, the
/// end stops the thread for good instead of touching a state that is not there any more
/// (docs/use/shutdown.md).
class MOORED_PUBLIC_TYPE detachment {
 public:
  MOORED_HIDDEN detachment() noexcept {
    detail::expect_no_lock();
    if (!detail::is_attached()) return;
    since_ = detail::the_gate.now();
    state_ = PyEval_SaveThread();
  }
  MOORED_HIDDEN ~detachment() {
    if (state_ == nullptr) return;
    detail::expect_no_lock();
    if (detail::the_gate.is_over(since_, detail::this_thread.counted_in != nullptr))
      cpython::stop_this_thread();
    cpython::restore(state_);
  }
  detachment(const detachment&) = delete;
  detachment& operator=(const detachment&) = delete;

 private:
  PyThreadState* state_ = nullptr;
  detail::epoch since_ = 0;
};

/// Keeps the calling thread's state from now on, so that every binding on this thread finds it and
/// becomes fast. Does not leave the thread attached if it was not. Called again it does nothing.
/// Any thread, attached or not.
///
/// Inside a callback of another binding it adopts the state that the binding made. Such a state is
/// freed when its thread ends; see docs/design/adopted-state.md.
///
/// False when there is no interpreter or it is closing, when the thread is ending or had been idle
/// longest when the limit on kept states was exceeded, on a shared or borrowed state, and on a
/// state of a subinterpreter. On 3.15 a state that PyThreadState_Ensure made dies with its callback
/// all the same.
inline bool keep_thread() {
  detail::thread_record& me = detail::this_thread;
  if (me.is_ending() || me.is_lent()) return false;
  const attachment attached = try_attach();
  return attached && detail::adopt_attached_state();
}

/// Releases the calling thread's kept state before the thread ends; does nothing when it keeps
/// none. Called within an attachment, the state goes when the outermost attachment ends. Any
/// thread, attached or not.
inline void release_thread() noexcept {
  detail::thread_record& me = detail::this_thread;
  if (me.kept == nullptr || me.where() == detail::presence::lending) return;
  detail::release_kept_state(me);
}

/// How many states threads may keep: 0, the default, for any number. Any thread.
///
/// When one more is kept, the state that has been idle longest is marked, and its own thread
/// releases it at the end of its next attachment; until then it stays, as its thread may be on its
/// way. An adopted one goes when its thread next attaches or calls keep_thread(), which answers
/// false. What threads keep in subinterpreters does not count.
inline void set_kept_limit(std::size_t limit) noexcept {
  detail::the_gate.limit_states(limit != 0);
  detail::the_keepers.set_limit(limit, detail::the_gate.now());
}

MOORED_NAMESPACE_END
