// moored/detail/states/visits.hpp: being attached to another interpreter than a thread would be by
// PyGILState.
//
// A visit leaves the interpreter that the thread is attached to, if any, for as long. It goes to a
// subinterpreter, by a state that the thread keeps there, or from one to main, by the state that
// PyGILState knows. While a thread is inside, PyGILState is shown the state that it is attached by,
// so that a nested Ensure of another binding finds it.
#pragma once

#include <Python.h>

#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "adopted.hpp"
#include "subinterpreter.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// One visit of a thread.
struct visit {
  std::shared_ptr<subinterpreter> where;  ///< Null: the main interpreter.
  PyThreadState* state = nullptr;         ///< By which the thread is attached there.
  PyThreadState* outer = nullptr;         ///< Was attached before, and will be again; or null.
  PyThreadState* shown = nullptr;         ///< Was in PyGILState's slot before.
  bool counted_in = false;                ///< It was this visit that was counted in at main's gate.
};

/// Shows PyGILState the state again that it saw before. Not attached.
inline void show_again(PyThreadState* shown) noexcept {
  cpython::gilstate_slot::show(shown);
  if (!cpython::gilstate_slot::goes_by_attaching || shown == nullptr) return;
  const passage through;  // of the main interpreter, whose state it is, or which outlives it
  if (!through) return;
  cpython::restore(shown);
  PyEval_SaveThread();
}

/// The states that one thread keeps in subinterpreters, and its visits, the innermost last.
class visits {
 public:
  struct own_state {
    std::shared_ptr<subinterpreter> in;
    PyThreadState* state;
  };

  visits() noexcept = default;
  visits(const visits&) = delete;
  visits& operator=(const visits&) = delete;
  ~visits() {
    over = true;
    for (const own_state& one : states_) release(one);
  }

  /// The thread's state there, made if it has none; null without memory. Counted in at both gates,
  /// not attached.
  [[nodiscard]] PyThreadState* state_in(const std::shared_ptr<subinterpreter>& where) {
    for (const own_state& one : states_)
      if (one.in == where) return one.state;
    erase_where(states_, [](const own_state& one) { return !one.in->is_open(); });
    states_.reserve(states_.size() + 1);
    stay_loaded();  // for this destructor, which runs at the thread's end
    PyThreadState* const made = where->make_state();
    if (made != nullptr) states_.push_back({where, made});
    return made;
  }

  std::vector<visit> stack;
  /// True when the thread is ending. It has no destructor.
  MOORED_CONSTINIT static inline thread_local bool over = false;

 private:
  static void release(const own_state& one) noexcept {
    const passage through;
    if (!through) return one.in->forget(one.state);
    if (!one.in->enter()) return;  // its interpreter's end has deleted it
    PyThreadState* shown = cpython::this_thread_state();
    if (shown == one.state) shown = nullptr;  // there was no memory to unbind it
    cpython::restore(one.state);
    cpython::gilstate_slot::show(one.state);
    cpython::clear(one.state);
    one.in->release(one.state);
    PyThreadState_DeleteCurrent();
    show_again(shown);
    one.in->leave();
  }

  std::vector<own_state> states_;
};

inline thread_local visits this_threads_visits;

/// Begins a visit to a subinterpreter: there is one more on the stack, which end_visit() ends. Any
/// thread, attached or not.
[[nodiscard]] inline refusal visit_subinterpreter(
    thread_record& me, const std::shared_ptr<subinterpreter>& where) noexcept {
  if (visits::over || me.is_lent()) return refusal::unsupported;
  visits& mine = this_threads_visits;
  const bool counts_in = me.counted_in == nullptr;
  if (counts_in) {
    const epoch now = the_gate.now();
    if (me.kept != nullptr && me.kept_in != now) forget_state(me, true);
    attendance* const present = is_open(now) ? the_gate.enter(now) : nullptr;
    if (present == nullptr) return refusal::closing;
    me.enter(*present);
  }
  const auto turn_back = [&](refusal why) {
    if (counts_in) leave_gate_unused(me);
    return why;
  };
  if (!where->enter()) return turn_back(refusal::closing);
  // Before a new one may be. What is shown to a stale thread is of an earlier life, and was freed.
  PyThreadState* const shown =
      me.keeps() == keeping::stale ? nullptr : cpython::this_thread_state();
  PyThreadState* const outer = is_attached(me) ? PyEval_SaveThread() : nullptr;
  PyThreadState* state = nullptr;
  try {
    mine.stack.reserve(mine.stack.size() + 1);
    state = mine.state_in(where);
  } catch (const std::bad_alloc&) {  // state stays null
  }
  if (state == nullptr) {
    where->leave();
    if (outer != nullptr) cpython::restore(outer);
    return turn_back(refusal::no_memory);
  }
  me.begin_visit();
  cpython::restore(state);
  cpython::gilstate_slot::show(state);
  mine.stack.push_back({where, state, outer, shown, counts_in});
  where->dropped.empty();
  return refusal::none;
}

/// Begins a visit to the main interpreter, on a thread that is attached to a subinterpreter: by
/// moored's visit, or by other code. As visit_subinterpreter().
[[nodiscard]] inline refusal visit_main(thread_record& me) noexcept {
  if (visits::over || me.is_lent()) return refusal::unsupported;
  visits& mine = this_threads_visits;
  const bool counts_in = me.counted_in == nullptr;
  const epoch now = the_gate.now();
  if (counts_in) {
    if (me.kept != nullptr && me.kept_in != now) forget_state(me, true);
    attendance* const present = is_open(now) ? the_gate.enter(now) : nullptr;
    if (present == nullptr) return refusal::closing;
    me.enter(*present);
  }
  // What PyGILState saw before the thread's first visit is main's, unless other code has attached
  // the thread to a subinterpreter.
  PyThreadState* const shown = cpython::this_thread_state();
  PyThreadState* state = mine.stack.empty() ? shown : mine.stack.front().shown;
  if (state != nullptr && PyThreadState_GetInterpreter(state) != PyInterpreterState_Main())
    state = nullptr;
  PyThreadState* const outer = PyEval_SaveThread();
  try {
    mine.stack.reserve(mine.stack.size() + 1);
  } catch (const std::bad_alloc&) {
    cpython::restore(outer);
    if (counts_in) leave_gate_unused(me);
    return refusal::no_memory;
  }
  if (me.keeps_now()) state = me.kept;
  cpython::gilstate_slot::show(state);
  const bool makes = state == nullptr && me.keeps() == keeping::nothing;
  // Not by PyGILState_Ensure: from 3.15 on its slot shows what was attached last.
  if (makes) state = the_gate.make_state(now);
  if (state == nullptr) {
    cpython::gilstate_slot::show(shown);
    cpython::restore(outer);
    if (counts_in) leave_gate_unused(me);
    return makes ? the_gate.why_no_state(now) : refusal::unsupported;
  }
  cpython::restore(state);
  cpython::gilstate_slot::show(state);
  if (makes) {
    this_threads_made_state_end.arm();
    start_keeping(me, keeping::made, state, now);
    the_gate.made.fetch_add(1, std::memory_order_relaxed);
  }
  me.begin_visit();
  mine.stack.push_back({nullptr, state, outer, shown, counts_in});
  return refusal::none;
}

/// Attaches a thread that let go of Python within a visit to the same interpreter again.
inline void resume_visit() noexcept {
  cpython::restore(this_threads_visits.stack.back().state);
}

/// Ends the innermost visit. Attached by it.
inline void end_visit(thread_record& me) noexcept {
  visits& mine = this_threads_visits;
  const visit of = std::move(mine.stack.back());
  mine.stack.pop_back();
  if (of.where != nullptr) {
    of.where->dropped.empty();
    cpython::gilstate_slot::unbind_and_detach(of.state);
  } else {
    PyEval_SaveThread();
  }
  if (of.outer == nullptr)
    show_again(of.shown);
  else
    cpython::gilstate_slot::show(of.shown);
  if (of.where != nullptr) of.where->leave();
  if (of.outer != nullptr) {
    cpython::restore(of.outer);
    cpython::gilstate_slot::show(of.shown);
  }
  if (mine.stack.empty()) me.end_visits();
  if (of.counted_in) leave_gate(me);
}

/// Makes the lists of the subinterpreters empty, from main's pending call. Attached to main.
inline void empty_drops_of_others() noexcept {
  subinterpreters::the().for_each_with_drops([](const std::shared_ptr<subinterpreter>& one) {
    if (visit_subinterpreter(this_thread, one) == refusal::none) end_visit(this_thread);
  });
}

/// Lets go of an object that belongs to `of`. Any thread, attached or not; never waits for the GIL.
inline void drop(PyObject* object, const home& of) noexcept {
  if (of.is_here()) {
    expect_no_lock();
    cpython::drop(object);
    return;
  }
  if (!of.is_of_this_life() || the_gate.closing()) return drops::forget(1);
  if (of.is_main()) return the_main_drops.add(object, of);
  const auto where = subinterpreters::the().find(of.interpreter_id());
  if (where == nullptr) return drops::forget(1);
  the_main_drops.empty_others.store(empty_drops_of_others, std::memory_order_release);
  where->dropped.add(object, of);
  the_main_drops.ask();
}

}  // namespace detail
MOORED_NAMESPACE_END
