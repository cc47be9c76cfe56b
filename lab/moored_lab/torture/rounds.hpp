// rounds.hpp: what a native thread of a case does, again and again.
#pragma once

#include <moored/call.hpp>
#include <moored/interpreter.hpp>
#include <moored/reference.hpp>
#include <moored/urgent.hpp>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "counts.hpp"

namespace torture {

using moored::refusal;

/// What one worker thread is to do.
struct work {
  std::string kind;
  int life = 0;
  unsigned long calls = 0;           // 0: until attaching is refused
  bool comes_back = false;           // tries on after it was refused
  bool farewell_first = false;       // its thread_local is older than moored's, and goes later
  bool says_farewell = false;        // that thread_local's destructor attaches
  PyObject* callable = nullptr;      // for ever: threads outlive every owner
  void (*binding)(void*) = nullptr;  // another binding's callback
  void* context = nullptr;
  events* channel = nullptr;  // for ever, too
};

/// Every attach asks a busy holder of the GIL at once.
inline std::atomic<bool> asks_for_gil{false};
inline std::mutex the_subinterpreters_turn;
inline std::optional<moored::interpreter> the_subinterpreter;

/// Python's answer does not matter, but an error that is not expected does. Attached.
inline void call_python(PyObject* callable, int of_life) {
  PyObject* const result =
      of_life == the_life ? PyObject_CallNoArgs(callable) : PyLong_FromLong(PyRun_SimpleString(""));
  if (result == nullptr) PyErr_WriteUnraisable(nullptr);
  (result != nullptr ? the_sums.calls : the_sums.failures).fetch_add(1);
  Py_XDECREF(result);
}

struct farewell {
  PyObject* callable = nullptr;
  int life = 0;
  farewell() noexcept = default;
  farewell(const farewell&) = delete;
  farewell& operator=(const farewell&) = delete;
  ~farewell() {
    if (callable == nullptr) return;
    const moored::attachment attached = moored::try_attach();
    if (!attached) return;
    call_python(callable, life);
    the_sums.farewells.fetch_add(1);
  }
};
inline thread_local farewell this_threads_farewell;

/// One round of a worker's job; false when it was refused.
class rounds {
 public:
  explicit rounds(const work& job) : job_(job) {}

  refusal attach_kept() {
    if (!asks_for_gil) return attach(moored::strategy::kept);
    const moored::attachment attached = moored::try_attach(moored::urgent);
    if (attached) call_python(job_.callable, job_.life);
    return attached.why();
  }

  refusal attach(moored::strategy how) {
    const moored::attachment attached = moored::try_attach(how);
    if (attached) call_python(job_.callable, job_.life);
    return attached.why();
  }

  refusal keep() {
    const moored::attachment attached = moored::try_attach(moored::strategy::temporary);
    if (attached) {
      (void)moored::keep_thread();
      call_python(job_.callable, job_.life);
    }
    return attached.why();
  }

  refusal nest() {
    const moored::attachment outer = moored::try_attach();
    if (!outer) return outer.why();
    {
      const moored::detachment others_turn;
      const moored::attachment inner = moored::try_attach();
      // A thread that is counted in is never refused, so that what has begun can be ended.
      if (!inner) the_sums.failures.fetch_add(1);
      const PyGILState_STATE token = PyGILState_Ensure();
      const moored::attachment innermost = moored::try_attach();
      if (innermost) call_python(job_.callable, job_.life);
      PyGILState_Release(token);
    }
    call_python(job_.callable, job_.life);
    return refusal::none;
  }

  /// Another binding's callback, protected by an attachment around it.
  refusal bind() {
    const moored::attachment attached = moored::try_attach();
    if (attached) {
      const moored::detachment others_turn;
      job_.binding(job_.context);
      the_sums.calls.fetch_add(1);
    }
    return attached.why();
  }

  refusal ask() {
    try {
      const moored::reference callable = borrowed();
      moored::call(callable);
      the_sums.calls.fetch_add(1);
      return refusal::none;
    } catch (const moored::interpreter_closed& closed) {
      return closed.why();
    } catch (const std::exception&) {
      the_sums.failures.fetch_add(1);
      return refusal::none;
    }
  }

  refusal send() {
    the_sums.attempts.fetch_add(1);
    const moored::sent came = job_.channel->send(1);
    if (came == moored::sent::rejected) std::this_thread::yield();
    return came == moored::sent::closed ? refusal::closing : refusal::none;
  }

  /// In the subinterpreter, if there is one that can be entered, or else in the main one.
  refusal visit() {
    const moored::interpreter where = subinterpreter().value_or(moored::interpreter::main());
    const moored::attachment attached = moored::try_attach(where);
    if (!attached) return where.is_main() ? attached.why() : refusal::none;
    if (PyRun_SimpleString("sum(range(100))") != 0) the_sums.failures.fetch_add(1);
    the_sums.calls.fetch_add(1);
    if (!where.is_main()) the_sums.visits.fetch_add(1);
    return refusal::none;
  }

  /// From the subinterpreter back into main, and from there into the subinterpreter again.
  refusal revisit() {
    const std::optional<moored::interpreter> where = subinterpreter();
    if (!where) return attach(moored::strategy::kept);
    const moored::attachment outer = moored::try_attach(*where);
    if (!outer) return refusal::none;
    const std::int64_t id = here();
    {
      const moored::attachment back = moored::try_attach(moored::interpreter::main());
      if (back) {
        expect_interpreter(0);
        call_python(job_.callable, job_.life);
        const moored::attachment again = moored::try_attach(*where);
        if (again) expect_interpreter(id);
      }
    }
    expect_interpreter(id);
    the_sums.visits.fetch_add(1);
    return refusal::none;
  }

  /// Lets go of an object whose destructor calls moored, on a thread that is not attached.
  refusal drop() {
    moored::reference held;
    {
      const moored::attachment attached = moored::try_attach();
      if (!attached) return attached.why();
      PyObject* const made = PyCapsule_New(job_.channel, object_name, finalise);
      if (made == nullptr) return refusal::no_memory;
      the_sums.objects.fetch_add(1);
      held = moored::reference::steal(made);
    }
    return refusal::none;
  }

  /// Stays inside, without the GIL, until shutdown has given up waiting, and then wants it back.
  refusal overstay() {
    const moored::attachment attached = moored::try_attach();
    if (attached) {
      const moored::detachment others_turn;
      while (moored::stats().overdue == 0) std::this_thread::sleep_for(1ms);
      the_sums.overstayed.fetch_add(1);
    }
    return attached.why();
  }

 private:
  static constexpr const char* object_name = "torture.object";

  /// An object's destructor, on whichever thread it is let go.
  static void finalise(PyObject* object) {
    the_sums.finalised.fetch_add(1);
    const moored::attachment nested = moored::try_attach();
    auto* const channel = static_cast<events*>(PyCapsule_GetPointer(object, object_name));
    if (channel == nullptr) return;
    the_sums.attempts.fetch_add(1);
    (void)channel->try_send(2);
  }
  [[nodiscard]] static std::optional<moored::interpreter> subinterpreter() {
    const std::lock_guard lock(the_subinterpreters_turn);
    return the_subinterpreter;
  }
  [[nodiscard]] static std::int64_t here() {
    return PyInterpreterState_GetID(PyInterpreterState_Get());
  }
  static void expect_interpreter(std::int64_t id) {
    if (here() != id) the_sums.failures.fetch_add(1);
  }
  [[nodiscard]] moored::reference borrowed() const {
    const moored::attachment attached = moored::attach();
    return moored::reference::borrow(job_.callable);
  }

  const work& job_;
};

inline refusal once(rounds& of, const std::string& kind) {
  if (kind == "attach") return of.attach_kept();
  if (kind == "temporary") return of.attach(moored::strategy::temporary);
  if (kind == "shared") return of.attach(moored::strategy::shared);
  if (kind == "keep") return of.keep();
  if (kind == "nest") return of.nest();
  if (kind == "call") return of.ask();
  if (kind == "send") return of.send();
  if (kind == "visit") return of.visit();
  if (kind == "revisit") return of.revisit();
  if (kind == "drop") return of.drop();
  if (kind == "overstay") return of.overstay();
  return of.bind();
}

inline void run(const work& job) {
  const auto will_say_farewell = [&job] {
    this_threads_farewell.callable = job.callable;
    this_threads_farewell.life = job.life;
  };
  if (job.says_farewell && job.farewell_first) will_say_farewell();
  rounds mine(job);
  for (unsigned long done = 0; job.calls == 0 || done < job.calls; ++done) {
    const refusal why = once(mine, job.kind);
    if (job.says_farewell && !job.farewell_first) will_say_farewell();
    if (why == refusal::none) continue;
    the_sums.refusals.fetch_add(1);
    if (why == refusal::unsupported || why == refusal::stale_thread) return;
    if (job.kind == "send" && senders_stop) return;
    if (!job.comes_back) return;
    std::this_thread::sleep_for(100us);
  }
}

}  // namespace torture
