// The ways into Python from a native thread: CPython's own, and moored's.
#include "entries.hpp"

#include <dlfcn.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "ordinary.hpp"

namespace moored::lab {
namespace {

// CPython's calls as scopes, so that a callback that raises leaves the thread as it found it.
struct ensured {
  PyGILState_STATE token = PyGILState_Ensure();
  ensured() = default;
  ensured(const ensured&) = delete;
  ensured& operator=(const ensured&) = delete;
  ~ensured() { PyGILState_Release(token); }
};

struct restored {
  explicit restored(PyThreadState* state) { PyEval_RestoreThread(state); }
  restored(const restored&) = delete;
  restored& operator=(const restored&) = delete;
  ~restored() { PyEval_SaveThread(); }
};

MOORED_ALWAYS_INLINE void must_attach(const attachment& attached) {
  if (!attached) throw refused(describe(attached.why()));
}

// The thread has made its state before: that is what `temporary` pays each time.
[[nodiscard]] operation on_a_thread_that_keeps(operation op) {
  op.before = [] {
    if (!keep_thread()) throw refused("moored::keep_thread() refused");
  };
  return op;
}

[[nodiscard]] operation raw(PyObject* callback) {
  return with_kept_state({.key = "raw", .repeat = [=](std::size_t times) {
                            PyThreadState* const mine = PyGILState_GetThisThreadState();
                            for (; times != 0; --times) {
                              const restored python{mine};
                              call_python(callback);
                            }
                          }});
}

// PEP 788's guard, from 3.15 on. Looked up by name, so that this file builds with every Python.
struct guard_calls {
  void* (*view_from_main)();
  void* (*guard_from_view)(void*);
  void (*close)(void*);

  [[nodiscard]] static guard_calls find() {
    const guard_calls found{
        reinterpret_cast<decltype(view_from_main)>(
            dlsym(RTLD_DEFAULT, "PyInterpreterView_FromMain")),
        reinterpret_cast<decltype(guard_from_view)>(
            dlsym(RTLD_DEFAULT, "PyInterpreterGuard_FromView")),
        reinterpret_cast<decltype(close)>(dlsym(RTLD_DEFAULT, "PyInterpreterGuard_Close"))};
    if (!found.view_from_main || !found.guard_from_view || !found.close)
      throw refused("interpreter guards: new in CPython 3.15");
    return found;
  }
};

// What an attach would cost if a guard for each call were the gate.
[[nodiscard]] operation raw_in_a_guard(PyObject* callback) {
  operation op = raw(callback);
  op.key = "raw_in_a_guard";
  op.repeat = [=](std::size_t times) {
    const guard_calls calls = guard_calls::find();
    static void* const view = calls.view_from_main();  // one for the process
    PyThreadState* const mine = PyGILState_GetThisThreadState();
    for (; times != 0; --times) {
      void* const guard = calls.guard_from_view(view);
      {
        const restored python{mine};
        call_python(callback);
      }
      calls.close(guard);
    }
  };
  return op;
}

// The thread is adopted once; the callers are ordinary Ensure and Release.
[[nodiscard]] operation adopted(PyObject* callback) {
  operation op = ensure_and_call("keep_thread_ensure", callback);
  op.before = [] {
    if (!keep_thread()) throw refused("moored::keep_thread() refused");
  };
  op.after = [] { release_thread(); };
  return op;
}

[[nodiscard]] operation raw_alone() {
  return with_kept_state({.key = "raw_alone", .repeat = [](std::size_t times) {
                            PyThreadState* const mine = PyGILState_GetThisThreadState();
                            for (; times != 0; --times) const restored python{mine};
                          }});
}

// Being counted in and out at the gate by a thread of its own, as the first part of an attach.
[[nodiscard]] operation gate_alone() {
  operation op{.key = "gate_alone", .repeat = [](std::size_t times) {
                 detail::thread_record& me = detail::this_thread;
                 for (; times != 0; --times) {
                   if (!detail::the_gate.enter_by_seat(*me.seat, me.fast)) return;
                   asm volatile("" ::: "memory");  // an attach calls CPython here
                   me.seat->leave_seat();
                 }
               }};
  op.before = [] {
    must_attach(try_attach());
    if (detail::this_thread.fast != detail::the_gate.seat_epoch())
      throw refused("the gate has no seats here: no membarrier");
  };
  return op;
}

// The same beside three other threads that do nothing else.
[[nodiscard]] operation gate_among_four() {
  operation op = gate_alone();
  op.key = "gate_among_four";
  struct crowd {
    std::atomic<bool> stops{false};
    std::vector<std::jthread> others;
  };
  auto all = std::make_shared<crowd>();
  op.before = [=, one = gate_alone()] {
    one.before();
    all->stops = false;
    for (int index = 0; index < 3; ++index)
      all->others.emplace_back([=] {
        one.before();
        while (!all->stops) one.repeat(1000);
      });
  };
  op.after = [=] {
    all->stops = true;
    all->others.clear();
  };
  return op;
}

[[nodiscard]] operation ordinary(PyObject* callback) {
  operation op{.key = "moored_kept_ordinary", .repeat = [=](std::size_t times) {
                 if (!moored_lab_attach_ordinarily(times, call_python, callback))
                   throw refused("the attach was refused");
               }};
  op.before = [repeat = op.repeat] { repeat(1); };
  return op;
}

[[nodiscard]] operation moored_alone() {
  return on_a_thread_that_keeps(
      {.key = "moored_kept_alone", .repeat = repeated([] { must_attach(try_attach()); })});
}

[[nodiscard]] operation moored_nested_alone() {
  operation op = moored_alone();
  op.key = "moored_nested_alone";
  auto outer = std::make_shared<attachment>();
  op.before = [=] {
    *outer = try_attach();
    must_attach(*outer);
  };
  op.after = [=] { *outer = attachment{}; };
  return op;
}

}  // namespace

void call_python(PyObject* callback) {
  PyObject* const result = PyObject_Vectorcall(callback, nullptr, 0, nullptr);
  if (result == nullptr) {
    PyErr_Print();
    throw std::runtime_error("the measured callback raised");
  }
  Py_DECREF(result);
}

operation with_gil_held(operation op) {
  auto token = std::make_shared<PyGILState_STATE>();
  op.before = [=] { *token = PyGILState_Ensure(); };
  op.after = [=] { PyGILState_Release(*token); };
  return op;
}

operation with_kept_state(operation op) {
  auto token = std::make_shared<PyGILState_STATE>();
  op.before = [=] {
    *token = PyGILState_Ensure();
    PyEval_SaveThread();
  };
  op.after = [=] {
    PyEval_RestoreThread(PyGILState_GetThisThreadState());
    PyGILState_Release(*token);
  };
  return op;
}

operation ensure_and_call(std::string key, PyObject* callback) {
  return {.key = std::move(key), .repeat = repeated([=] {
                                   const ensured python;
                                   call_python(callback);
                                 })};
}

operation attach_and_call(std::string key, strategy way, PyObject* callback) {
  if (way == strategy::kept)
    return on_a_thread_that_keeps({.key = std::move(key), .repeat = repeated([=] {
                                                            const attachment python = try_attach();
                                                            must_attach(python);
                                                            call_python(callback);
                                                          })});
  return {.key = std::move(key), .repeat = repeated([=] {
                                   const attachment python = try_attach(way);
                                   must_attach(python);
                                   call_python(callback);
                                 })};
}

std::vector<operation> entries(PyObject* callback) {
  return {raw(callback),
          raw_in_a_guard(callback),
          attach_and_call("moored_kept", strategy::kept, callback),
          ordinary(callback),
          attach_and_call("moored_temporary", strategy::temporary, callback),
          attach_and_call("moored_shared", strategy::shared, callback),
          attach_and_call("moored_borrowed", strategy::borrowed, callback),
          ensure_and_call("ensure", callback),
          adopted(callback),
          with_gil_held(ensure_and_call("ensure_nested", callback)),
          moored_alone(),
          moored_nested_alone(),
          raw_alone(),
          gate_alone(),
          gate_among_four()};
}

}  // namespace moored::lab
