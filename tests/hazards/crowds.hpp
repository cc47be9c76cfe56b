// crowds.hpp: native threads that come and go, idle, and lock.
#pragma once

#include "states.hpp"
#include "ways.hpp"

#include <barrier>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

namespace {

/// crowd(way, callable, threads, times): so many threads at once, each calling so often.
PyObject* crowd(PyObject*, PyObject* arguments) {
  const char* way = nullptr;
  PyObject* callable = nullptr;
  int count = 0, times = 0;
  if (!PyArg_ParseTuple(arguments, "sOii", &way, &callable, &count, &times)) return nullptr;
  const std::string_view name = way;
#if HAS_PYBIND11
  if (name == "pybind11" || name == "both") pybind11::detail::get_internals();
#endif
  const without_gil detached;
  std::barrier together(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&] {
      for (int time = 0; time < times; ++time) enter(name, [&] { call(callable); });
      together.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return detached.none();
}

PyObject* state_id(PyObject*, PyObject*) {
  return PyLong_FromUnsignedLongLong(PyThreadState_GetID(PyThreadState_Get()));
}

PyObject* count_states(PyObject*, PyObject*) {
  long count = 0;
  PyThreadState* state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
  for (; state != nullptr; state = PyThreadState_Next(state)) ++count;
  return PyLong_FromLong(count);
}

PyObject* stats(PyObject*, PyObject*) {
  const moored::state_stats now = moored::stats();
  return Py_BuildValue("{sKsKsKsK}", "made", now.states_made, "kept", now.states_kept, "freed",
                       now.states_freed, "forgotten", now.states_forgotten);
}

/// Enters by PyGILState_Ensure and leaves, on a thread that is inside already.
PyObject* nested(PyObject*, PyObject*) {
  enter_and_leave_again();
  Py_RETURN_NONE;
}

/// A thread idles, in the stock way attached; returns when it does.
PyObject* idle(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  const without_gil detached;
  std::thread([stock] {
    if (stock) {
      (void)PyGILState_Ensure();
    } else {
      enter("moored", [] {});
      say(PyGILState_Check() == 0 ? "idles detached" : "idles attached");
    }
    started.release();
    for (;;) pause();
  }).detach();
  started.acquire();
  return detached.none();
}

std::mutex registry;

/// A thread locks, then enters; this thread, with the GIL held, wants the lock.
PyObject* lock_with_gil_held(PyObject*, PyObject*) {
  std::thread thread([] {
    const std::lock_guard held(registry);
    started.release();
    enter_and_leave_again();
  });
  started.acquire();
  const std::lock_guard held(registry);
  thread.detach();
  Py_RETURN_NONE;
}

/// Threads wait for the GIL in moored; this thread holds it and calls all of moored.
PyObject* call_moored_with_gil_held(PyObject*, PyObject*) {
  constexpr std::uint64_t count = 4;
  const std::uint64_t before = moored::stats().attaches;
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < count; ++i) {
    threads.emplace_back([] {
      enter("moored", [] {});
      moored::keep_thread();
      moored::release_thread();
    });
  }
  while (moored::stats().attaches < before + count) std::this_thread::yield();
  if (!moored::open()) return nullptr;
  (void)moored::install();
  moored::set_closing_bound(5s);
  (void)moored::keep_thread();
  { const moored::attachment attached = moored::try_attach(); }
  moored::release_thread();
  {
    const without_gil detached;
    for (std::thread& thread : threads) thread.join();
  }
  Py_RETURN_NONE;
}

/// A thread keeps a state and holds a lock, for ever.
PyObject* hold_a_lock(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  the_interpreter = PyInterpreterState_Main();
  const without_gil detached;
  std::thread([stock] {
    enter(stock ? "hoarded" : "moored", [] { the_kept = PyThreadState_Get(); });
    const std::lock_guard held(registry);
    started.release();
    for (;;) pause();
  }).detach();
  started.acquire();
  return detached.none();
}

PyObject* can_lock(PyObject*, PyObject*) {
  bool locked = false;
  {
    const without_gil detached;
    locked = comes([] { return registry.try_lock(); });
  }
  if (locked) registry.unlock();
  return PyBool_FromLong(locked);
}

}  // namespace
