// ways.hpp: the ways in which the tests' native threads enter Python, and how they tell what they
// see.
#pragma once

#include <moored/moored.hpp>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <semaphore>
#include <string>
#include <string_view>
#include <thread>

#if __has_include(<pybind11/pybind11.h>)
#include <pybind11/pybind11.h>
#define HAS_PYBIND11 true
#else
#define HAS_PYBIND11 false
#endif

namespace {

using namespace std::chrono_literals;

constexpr int exit_code_of_a_hang = 77;
std::atomic<int> said{0};  // lines

// What may wait in vain counts the turns that it is given, of so long each.
constexpr auto turn = 10ms;
long vain_turns = 160s / turn;

long turns_of(PyObject* seconds) {
  return std::chrono::seconds(PyLong_AsLong(seconds)) / turn;
}

/// Looks until `done`, or until it has looked in vain for long enough.
template <class Done>
bool comes(Done done) {
  for (long left = vain_turns; left > 0; --left) {
    if (done()) return true;
    std::this_thread::sleep_for(turn);
  }
  return false;
}

/// Unbuffered, because the process may be about to crash.
void say(std::string line) {
  line += '\n';
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(1);
  ++said;
}

bool is_stock(PyObject* way) {
  return PyUnicode_CompareWithASCIIString(way, "stock") == 0;
}

bool knows_this_thread() {
  return PyGILState_GetThisThreadState() != nullptr;
}

void call(PyObject* callable) {
  PyObject* const result = PyObject_CallNoArgs(callable);
  if (result == nullptr) PyErr_WriteUnraisable(callable);
  Py_XDECREF(result);
}

/// Lets go of the GIL for a scope; a function that ends in it returns none().
class without_gil {
 public:
  without_gil() = default;
  ~without_gil() { PyEval_RestoreThread(state_); }
  without_gil(const without_gil&) = delete;
  without_gil& operator=(const without_gil&) = delete;
  [[nodiscard]] PyObject* none() const noexcept { return none_; }

 private:
  PyObject* none_ = Py_NewRef(Py_None);  // while the GIL is held
  PyThreadState* state_ = PyEval_SaveThread();
};

void enter_and_leave_again() {
  const PyGILState_STATE token = PyGILState_Ensure();
  PyGILState_Release(token);
}

/// Enters Python and runs `inside` there, or says that it was refused. The ways: "stock" by a
/// temporary state, "hoarded" by one that is kept and never freed, "pybind11", "moored", "fresh" by
/// moored's temporary state, "both" by pybind11, after a visit by moored.
template <class Inside>
void enter(std::string_view way, Inside inside) {
  if (way == "moored" || way == "fresh" || way == "both") {
    const auto how = way == "fresh" ? moored::strategy::temporary : moored::strategy::kept;
    moored::attachment attached = moored::try_attach(how);
    if (!attached) {
      say(std::string("refused: ") + moored::describe(attached.why()));
      return;
    }
#if HAS_PYBIND11
    if (way == "both") {
      attached.end();
      const pybind11::gil_scoped_acquire acquired;
      inside();
      return;
    }
#endif
    inside();
  } else if (way == "hoarded") {
    thread_local PyThreadState* kept = nullptr;
    if (kept != nullptr) {
      PyEval_RestoreThread(kept);
    } else {
      (void)PyGILState_Ensure();
    }
    inside();
    kept = PyEval_SaveThread();
#if HAS_PYBIND11
  } else if (way == "pybind11") {
    const pybind11::gil_scoped_acquire acquired;
    inside();
#endif
  } else {
    const PyGILState_STATE token = PyGILState_Ensure();
    inside();
    PyGILState_Release(token);
  }
}

/// Between a thread and the one that started it.
std::binary_semaphore started{0}, go{0}, went{0};
std::thread the_idle_thread;

}  // namespace
