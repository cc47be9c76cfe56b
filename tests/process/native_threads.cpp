// native_threads: an extension whose threads enter Python on their own, for the tests of how a
// process ends.
#include <moored/moored.hpp>

#include <chrono>
#include <semaphore>
#include <string>
#include <string_view>
#include <thread>

namespace {

/// Calls `callable` again and again, on `count` detached threads, until attaching is refused for
/// good.
PyObject* start(PyObject*, PyObject* arguments) {
  const char* strategy_name = nullptr;
  int count = 0;
  PyObject* callable = nullptr;
  if (!PyArg_ParseTuple(arguments, "siO", &strategy_name, &count, &callable)) return nullptr;
  const auto how = moored::strategy_named(strategy_name);
  if (!how) return PyErr_Format(PyExc_ValueError, "no strategy is called %s", strategy_name);
  Py_INCREF(callable);  // for ever: threads may outlive every owner
  for (int i = 0; i < count; ++i) {
    std::thread([how = *how, callable] {
      for (;;) {
        const moored::attachment attached = moored::try_attach(how);
        if (!attached) {
          if (attached.why() == moored::refusal::not_idle) continue;
          return;
        }
        PyObject* const result = PyObject_CallNoArgs(callable);
        if (result == nullptr) PyErr_WriteUnraisable(callable);
        Py_XDECREF(result);
      }
    }).detach();
  }
  Py_RETURN_NONE;
}

/// Waits, with this thread's state lent to others, until so many attachments have begun.
PyObject* idle_until(PyObject*, PyObject* argument) {
  const unsigned long long wanted = PyLong_AsUnsignedLongLong(argument);
  if (PyErr_Occurred()) return nullptr;
  {
    const moored::lending lend;
    while (moored::stats().attaches < wanted) std::this_thread::yield();
  }
  Py_RETURN_NONE;
}

/// Starts a thread that is inside an attachment and never leaves it; returns when it is inside.
PyObject* get_stuck(PyObject*, PyObject*) {
  static std::binary_semaphore is_inside{0};
  {
    const moored::detachment detached;
    std::thread([] {
      const moored::attachment attached = moored::attach();
      const moored::detachment waiting;
      is_inside.release();
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }).detach();
    is_inside.acquire();
  }
  Py_RETURN_NONE;
}

/// Runs `callable` once on a new thread, and waits for the end of that thread.
PyObject* run_once(PyObject*, PyObject* callable) {
  bool attached = false;
  {
    const moored::detachment detached;
    std::thread([&] {
      const moored::attachment inside = moored::try_attach();
      if (!inside) return;
      attached = true;
      PyObject* const result = PyObject_CallNoArgs(callable);
      if (result == nullptr) PyErr_WriteUnraisable(callable);
      Py_XDECREF(result);
    }).join();
  }
  return PyBool_FromLong(attached);
}

/// Takes an object along on a detached thread: calls `make` there, and lets what it has returned,
/// or what it has left in a threading.local, end as `way` says.
PyObject* take_along(PyObject*, PyObject* arguments) {
  const char* name = nullptr;
  PyObject* make = nullptr;
  if (!PyArg_ParseTuple(arguments, "sO", &name, &make)) return nullptr;
  Py_INCREF(make);  // for ever, as above
  const auto call = [make] {
    PyObject* const result = PyObject_CallNoArgs(make);
    if (result == nullptr) PyErr_WriteUnraisable(make);
    return moored::reference::steal(result);
  };
  const std::string_view way = name;
  if (way == "adopted state") {
    std::thread([call] {
      const PyGILState_STATE token = PyGILState_Ensure();
      (void)moored::keep_thread();
      (void)call();
      PyGILState_Release(token);
    }).detach();
  } else if (const auto how = moored::strategy_named(way)) {
    std::thread([call, how = *how] {
      const moored::attachment attached = moored::attach(how);
      (void)call();
    }).detach();
  } else {
    std::thread([call] {
      const moored::attachment attached = moored::attach();
      const moored::reference result = call();
    }).detach();
  }
  Py_RETURN_NONE;
}

/// Lets go of the GIL until the interpreter is finalising, and then comes too late for it. Not by
/// moored: as any other code's.
PyObject* come_too_late(PyObject*, PyObject*) {
  PyThreadState* const state = PyEval_SaveThread();
  while (!moored::cpython::is_finalizing()) std::this_thread::yield();
  PyEval_RestoreThread(state);
  Py_RETURN_NONE;
}

/// Attaches this thread anew, from a scope without the GIL, and calls `callable`.
PyObject* attach_and_call(PyObject*, PyObject* callable) {
  const moored::detachment detached;
  const moored::attachment attached = moored::attach();
  return PyObject_CallNoArgs(callable);
}

PyObject* set_bound(PyObject*, PyObject* milliseconds) {
  moored::set_closing_bound(std::chrono::milliseconds(PyLong_AsLong(milliseconds)));
  Py_RETURN_NONE;
}

PyObject* stats(PyObject*, PyObject*) {
  const moored::state_stats now = moored::stats();
  return Py_BuildValue("{sKsKsKsKsK}", "attaches", now.attaches, "states_made", now.states_made,
                       "states_kept", now.states_kept, "states_freed", now.states_freed,
                       "states_forgotten", now.states_forgotten);
}

PyMethodDef methods[] = {
    {"start", start, METH_VARARGS, "start(strategy, threads, callable)"},
    {"idle_until", idle_until, METH_O, "idle_until(attaches)"},
    {"get_stuck", get_stuck, METH_NOARGS, "get_stuck()"},
    {"run_once", run_once, METH_O, "run_once(callable)"},
    {"take_along", take_along, METH_VARARGS, "take_along(way, make)"},
    {"come_too_late", come_too_late, METH_NOARGS, "come_too_late()"},
    {"attach_and_call", attach_and_call, METH_O, "attach_and_call(callable)"},
    {"set_bound", set_bound, METH_O, "set_bound(milliseconds)"},
    {"stats", stats, METH_NOARGS, "stats()"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "native_threads",
    .m_doc = nullptr,
    .m_size = -1,
    .m_methods = methods,
    .m_slots = nullptr,
    .m_traverse = nullptr,
    .m_clear = nullptr,
    .m_free = nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit_native_threads() {
  if (!moored::open()) return nullptr;
  // However busy the machine is: what hangs is ended by the time limit of the test.
  moored::set_closing_bound(std::chrono::hours(1));
  return PyModule_Create(&definition);
}
