// child.hpp: each test in a process of its own, with a time limit, around an interpreter of its
// own.
#pragma once

#include <moored/moored.hpp>

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "waiting.hpp"

namespace moored_test {

using moored::cpython::has_gil;

/// False for a strategy that this build of Python refuses.
inline bool is_supported(moored::strategy how) {
  return has_gil || how == moored::strategy::kept || how == moored::strategy::temporary;
}
inline constexpr const char* needs_a_gil = "a state is used on its own thread alone without a GIL";

/// When a child is taken to hang. Far longer than any takes on a machine that is busy with other
/// things: a test says nothing of how long something may take.
inline constexpr unsigned hang_seconds = 300;

/// How a child ended, in words: "exit 0", "signal 6", "timed out".
inline std::string fate_of(const std::function<void()>& body, unsigned seconds = hang_seconds) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(seconds);
    // Shutdown waits for slow threads as long; tests of the bound set their own.
    moored::set_closing_bound(std::chrono::seconds(seconds));
    body();
    std::fflush(nullptr);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) return "timed out";
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
  return "exit " + std::to_string(WEXITSTATUS(status));
}

/// Runs `body` in a child, and fails if the child fails, crashes or hangs.
inline void in_child(const std::function<void()>& body) {
  EXPECT_EQ(fate_of(body), "exit 0");
}

/// An interpreter for a scope; the thread that makes it is attached.
class python {
 public:
  python() { Py_InitializeEx(0); }
  ~python() { EXPECT_EQ(Py_FinalizeEx(), 0); }
  python(const python&) = delete;
  python& operator=(const python&) = delete;
};

/// Runs source in __main__. The caller is attached.
inline void run(const char* source) {
  ASSERT_EQ(PyRun_SimpleString(source), 0) << source;
}

/// The value of an expression in __main__, which must be an int. The caller is attached.
inline long value_of(const char* expression) {
  PyObject* const globals = PyModule_GetDict(PyImport_AddModule("__main__"));
  PyObject* const value = PyRun_String(expression, Py_eval_input, globals, globals);
  if (value == nullptr) {
    PyErr_Print();
    ADD_FAILURE() << expression;
    return -1;
  }
  const long number = PyLong_AsLong(value);
  Py_DECREF(value);
  return number;
}

/// What __main__ has under a name: borrowed, or null. The caller is attached.
inline PyObject* global(const char* name) {
  return PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), name);
}

/// Gives an object that the caller owns to __main__. The caller is attached.
inline void give(const char* name, PyObject* object) {
  PyDict_SetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), name, object);
  Py_XDECREF(object);
}

/// Every event that was sent is accounted for.
inline void expect_balance(const moored::channel_stats& s) {
  EXPECT_EQ(s.sent, s.delivered + s.dropped_oldest + s.unconvertible + s.undelivered + s.depth);
}

/// Runs `body` on a new native thread and waits for its end, without the GIL.
inline void on_foreign_thread(const std::function<void()>& body) {
  const moored::detachment detached;
  std::thread(body).join();
}

/// The number of thread states of the main interpreter. The caller is attached.
inline int states() {
  int number = 0;
  for (PyThreadState* state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
       state != nullptr; state = PyThreadState_Next(state)) {
    ++number;
  }
  return number;
}

/// Waits, without the GIL, until no state is kept: an adopted one is freed after its thread has
/// been joined. The caller is attached. A state that stays is a test that does not end.
inline void until_nothing_is_kept() {
  const moored::detachment detached;
  while (moored::stats().states_kept != 0) std::this_thread::yield();
}

/// A PyGILState_Ensure and Release around `body`, as ctypes, Cython, pybind11 and nanobind make for
/// a callback.
inline void as_another_binding(const std::function<void()>& body) {
  const PyGILState_STATE token = PyGILState_Ensure();
  body();
  PyGILState_Release(token);
}

/// A source that counts calls, also where no GIL makes += of one piece.
inline constexpr const char* counting_source =
    "import threading\n"
    "calls = 0\n"
    "counting = threading.Lock()\n"
    "def call():\n"
    "    global calls\n"
    "    with counting: calls += 1\n";

/// A source that gives how often this thread's state was seen by Python, by a threading.local.
inline constexpr const char* visits_source =
    "import threading\n"
    "here = threading.local()\n"
    "def visit():\n"
    "    here.visits = getattr(here, 'visits', 0) + 1\n"
    "    return here.visits\n";

/// A source with a threading.local `here`, and a class Farewell whose finaliser calls `enter`.
inline std::string farewell_source(void (*enter)()) {
  return "import ctypes, threading\n"
         "enter = ctypes.CFUNCTYPE(None)(" +
         std::to_string(reinterpret_cast<std::uintptr_t>(enter)) +
         ")\n"
         "here = threading.local()\n"
         "class Farewell:\n"
         "    def __del__(self): enter()\n";
}

}  // namespace moored_test
