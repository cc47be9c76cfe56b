// foreign.hpp: native threads and libraries of other people, which are started, joined and closed
// while the case runs.
#pragma once

#include <moored/moored.hpp>

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "counts.hpp"

namespace torture {

/// Some threads that call a Python function by PyGILState_Ensure, and leave the exception set that
/// it raises.
class foreign_threads {
 public:
  foreign_threads(PyObject* callable, int calls, bool keeps, bool is_clean)
      : callable_(callable), calls_(calls), keeps_(keeps), is_clean_(is_clean) {}
  foreign_threads(const foreign_threads&) = delete;
  foreign_threads& operator=(const foreign_threads&) = delete;

  [[nodiscard]] bool start() {
    pthread_t thread{};
    if (pthread_create(&thread, nullptr, run, this) != 0) return false;
    started_.push_back(thread);
    return true;
  }
  /// Attached. With the GIL held from where they want it no more, or without it.
  void join(bool with_gil) {
    PyThreadState* detached = PyEval_SaveThread();
    while (with_gil && done_ < started_.size()) std::this_thread::sleep_for(50us);
    if (with_gil) PyEval_RestoreThread(std::exchange(detached, nullptr));
    for (const pthread_t thread : started_) pthread_join(thread, nullptr);
    if (detached != nullptr) PyEval_RestoreThread(detached);
  }

 private:
  static void* run(void* self) {
    auto& mine = *static_cast<foreign_threads*>(self);
    for (int call = 0; call < mine.calls_; ++call) mine.call();
    mine.done_.fetch_add(1);
    return nullptr;
  }
  void call() {
    const PyGILState_STATE token = PyGILState_Ensure();
    if (keeps_) (void)moored::keep_thread();
    if (is_clean_ && PyErr_Occurred() != nullptr) the_sums.failures.fetch_add(1);
    PyErr_Clear();
    Py_XDECREF(PyObject_CallNoArgs(callable_));
    the_sums.calls.fetch_add(1);
    PyGILState_Release(token);
  }

  PyObject* callable_;
  int calls_;
  bool keeps_;
  bool is_clean_;  ///< No call may find an exception that an earlier one has left.
  std::atomic<std::size_t> done_{0};
  std::vector<pthread_t> started_;
};

/// join_foreign(threads, callable, calls, with_gil, keeps, is_clean)
inline PyObject* join_foreign(PyObject*, PyObject* arguments) {
  int threads = 0, calls = 0, with_gil = 0, keeps = 0, is_clean = 0;
  PyObject* callable = nullptr;
  if (!PyArg_ParseTuple(arguments, "iOippp", &threads, &callable, &calls, &with_gil, &keeps,
                        &is_clean))
    return nullptr;
  foreign_threads all(callable, calls, keeps != 0, is_clean != 0);
  bool started = true;
  for (int i = 0; started && i < threads; ++i) started = all.start();
  all.join(with_gil != 0);
  if (!started) return PyErr_SetString(PyExc_OSError, "a thread could not be started"), nullptr;
  Py_RETURN_NONE;
}

/// use_plugin(path): loads a library with a moored of its own, has a thread enter Python by it and
/// keep a state, and closes it.
inline PyObject* use_plugin(PyObject*, PyObject* path) {
  const char* const file = PyUnicode_AsUTF8(path);
  if (file == nullptr) return nullptr;
  PyThreadState* const detached = PyEval_SaveThread();
  void* const plugin = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  auto* const enter =
      plugin == nullptr ? nullptr : reinterpret_cast<int (*)()>(dlsym(plugin, "enter"));
  if (enter == nullptr) {
    the_sums.failures.fetch_add(1);
  } else {
    std::thread([enter] {
      (enter() != 0 ? the_sums.calls : the_sums.failures).fetch_add(1);
    }).join();
    dlclose(plugin);
  }
  PyEval_RestoreThread(detached);
  Py_RETURN_NONE;
}

}  // namespace torture
