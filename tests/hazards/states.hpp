// states.hpp: thread states, used by others than their owners.
#pragma once

#include "ways.hpp"

#include <cstdlib>
#include <stdexcept>

namespace {

PyThreadState* the_kept = nullptr;
PyInterpreterState* the_interpreter = nullptr;

/// With PYTHONMALLOC=debug freed memory is overwritten, so that no field of it is right any more.
bool dangles() {
  return PyThreadState_GetInterpreter(the_kept) != the_interpreter;
}

/// A thread keeps a state and idles until the process ends, later than Python.
PyObject* keep_until_exit(PyObject*, PyObject* way) {
  static const bool stock = is_stock(way);
  the_interpreter = PyInterpreterState_Main();
  const without_gil detached;
  the_idle_thread = std::thread([] {
    enter(stock ? "hoarded" : "moored", [] { the_kept = PyThreadState_Get(); });
    started.release();
    go.acquire();
    if (!stock) enter("moored", [] {});
  });
  started.acquire();
  std::atexit([] {
    if (stock) {
      say(dangles() ? "after Py_FinalizeEx the pointer dangles"
                    : "after Py_FinalizeEx the state is still there");
    }
    go.release();
    the_idle_thread.join();
  });
  return detached.none();
}

PyObject* kept_state_dangles(PyObject*, PyObject*) {
  return PyBool_FromLong(dangles());
}

/// This thread frees the state of one that has ended.
PyObject* delete_state_of_ended_thread(PyObject*, PyObject* way) {
  PyThreadState* its = nullptr;
  const bool stock = is_stock(way);
  {
    const without_gil detached;
    std::thread([&] {
      const PyGILState_STATE token = PyGILState_Ensure();
      its = PyThreadState_Get();
      if (stock) {
        (void)PyEval_SaveThread();
      } else {
        moored::keep_thread();
        PyGILState_Release(token);
      }
    }).join();
    while (!stock && moored::stats().states_freed == 0) std::this_thread::yield();
  }
  if (stock) {
    PyThreadState_Clear(its);
    PyThreadState_Delete(its);
  }
  say(knows_this_thread() ? "this thread is still known to PyGILState"
                          : "PyGILState has lost this thread");
  enter_and_leave_again();
  say("enters again");
  Py_RETURN_NONE;
}

/// A thread uses a state that main made.
PyObject* use_state_made_elsewhere(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  PyThreadState* const made = stock ? PyThreadState_New(PyInterpreterState_Main()) : nullptr;
  const without_gil detached;
  std::thread([&] {
    const auto look = [] {
      say(knows_this_thread() ? "PyGILState knows the state" : "PyGILState does not know it");
      enter_and_leave_again();
      say("enters again");
    };
    if (!stock) {
      enter("moored", look);
      return;
    }
    PyEval_RestoreThread(made);
    look();
    PyThreadState_Clear(made);
    PyThreadState_DeleteCurrent();
  }).join();
  return detached.none();
}

PyObject* release_elsewhere(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  const without_gil detached;
  if (stock) {
    PyGILState_STATE token{};
    std::thread([&] {
      token = PyGILState_Ensure();
      (void)PyEval_SaveThread();
    }).join();
    std::thread([&] { PyGILState_Release(token); }).join();
    return detached.none();
  }
  std::thread([] {
    try {
      const moored::attachment attached = moored::attach();
      throw std::runtime_error("by the test");
    } catch (const std::runtime_error&) {
    }
    say(PyGILState_Check() == 0 ? "an exception ends the attachment on its thread" : "attached");
    enter("moored", [] { say("enters again"); });
  }).join();
  return detached.none();
}

/// With the GIL held by this thread, a thread that has no state is asked whether it is attached.
PyObject* ask_a_stranger(PyObject*, PyObject* question) {
  const std::string asked = PyUnicode_AsUTF8(question);
  std::thread([&asked] {
    if (asked == "unchecked_get") {
      // _PyThreadState_UncheckedGet(), by the name that it has in this version.
      say(moored::cpython::current() != nullptr ? "shows the state of another thread"
                                                : "shows no state");
    } else if (asked == "check") {
      say(PyGILState_Check() != 0 ? "PyGILState_Check() says that a stranger is attached"
                                  : "PyGILState_Check() says that a stranger is not attached");
    } else {
      say(moored::cpython::is_attached_by(nullptr) ? "thinks that it is attached"
                                                   : "knows that it is not attached");
    }
  }).join();
  Py_RETURN_NONE;
}

PyObject* have_a_subinterpreter(PyObject*, PyObject*) {
  PyThreadState* const me = PyThreadState_Get();
  PyThreadState* const sub = Py_NewInterpreter();
  if (sub != nullptr) Py_EndInterpreter(sub);
  PyThreadState_Swap(me);
  Py_RETURN_NONE;
}

/// leave_an_error(way): two visits; the first one leaves an exception set.
PyObject* leave_an_error(PyObject*, PyObject* way) {
  const char* const name = PyUnicode_AsUTF8(way);
  const without_gil detached;
  std::thread([name] {
    enter(name, [] { PyErr_SetString(PyExc_ValueError, "by the test"); });
    enter(name, [] {
      say(PyErr_Occurred() != nullptr ? "the next call meets an exception left set"
                                      : "the next call does not meet it");
      PyErr_Clear();
    });
  }).join();
  return detached.none();
}

PyObject* in_main_interpreter(PyObject*, PyObject*) {
  return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

/// Two living threads use one state, each in turn, the second one calls.
PyObject* call_on_second_user(PyObject*, PyObject* callable) {
  PyThreadState* const shared = PyThreadState_New(PyInterpreterState_Main());
  const without_gil detached;
  std::thread first([&] {
    PyEval_RestoreThread(shared);
    (void)PyEval_SaveThread();
    started.release();
    go.acquire();
  });
  started.acquire();
  std::thread([&] {
    PyEval_RestoreThread(shared);
    call(callable);
    (void)PyEval_SaveThread();
  }).join();
  go.release();
  first.join();
  return detached.none();
}

}  // namespace
