// torture_threads: the native threads of `moored torture`, for the program of a case.
//
// Plain C API and moored's headers, so that it works in every interpreter and in every life of one.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>

#include "foreign.hpp"
#include "rounds.hpp"

namespace {

using namespace torture;

void* run_owned(void* owned) {
  const std::unique_ptr<work> job(static_cast<work*>(owned));
  run(*job);
  return nullptr;
}

/// start(kind, threads, calls, joined, comes_back, farewell, callable, function, context)
PyObject* start(PyObject*, PyObject* arguments) {
  const char* kind = nullptr;
  const char* farewell = nullptr;
  int threads = 0;
  int joins = 0;
  int comes_back = 0;
  unsigned long calls = 0;
  PyObject* callable = nullptr;
  unsigned long long function = 0;
  unsigned long long context = 0;
  if (!PyArg_ParseTuple(arguments, "sikppsOKK", &kind, &threads, &calls, &joins, &comes_back,
                        &farewell, &callable, &function, &context)) {
    return nullptr;
  }
  const std::string_view says = farewell;
  for (int i = 0; i < threads; ++i) {
    auto job = std::make_unique<work>();
    job->kind = kind;
    job->life = the_life;
    job->calls = calls;
    job->comes_back = comes_back != 0;
    job->farewell_first = says == "first";
    job->says_farewell = says != "none";
    job->callable = Py_NewRef(callable);
    job->binding = reinterpret_cast<void (*)(void*)>(static_cast<std::uintptr_t>(function));
    job->context = reinterpret_cast<void*>(static_cast<std::uintptr_t>(context));
    job->channel = the_channels.empty() ? nullptr : the_channels.back();
    pthread_t thread{};
    if (pthread_create(&thread, nullptr, run_owned, job.get()) != 0) {
      PyErr_SetString(PyExc_OSError, "a thread could not be started");
      return nullptr;
    }
    (void)job.release();
    if (joins != 0) {
      joined.push_back(thread);
    } else {
      pthread_detach(thread);
    }
  }
  Py_RETURN_NONE;
}

/// be_urgent(): from here on "attach" asks for the GIL at once, and so does a channel that enters.
PyObject* be_urgent(PyObject*, PyObject*) {
  const moored::urgent_support support = moored::install(moored::urgent);
  if (support.why != nullptr) return PyErr_Format(PyExc_OSError, "%s", support.why);
  moored::set_urgent_budget(1);
  asks_for_gil = true;
  Py_RETURN_NONE;
}

/// open_channel(delivery, overflow, capacity): from here on "send" sends.
PyObject* open_channel(PyObject*, PyObject* arguments) {
  const char* by = nullptr;
  const char* when_full = nullptr;
  unsigned long capacity = 0;
  PyObject* handler = nullptr;
  if (!PyArg_ParseTuple(arguments, "sskO", &by, &when_full, &capacity, &handler)) return nullptr;
  const auto how = moored::delivery_named(by);
  const auto policy = moored::overflow_named(when_full);
  if (!how || !policy) return PyErr_Format(PyExc_ValueError, "no channel is %s, %s", by, when_full);
  try {
    moored::channel_options options;
    options.name = "torture";
    options.capacity = capacity;
    options.when_full = *policy;
    options.by = *how;
    the_channels.push_back(new events(options));
  } catch (const std::exception& error) {
    return PyErr_Format(PyExc_RuntimeError, "%s", error.what());
  }
  if (handler != Py_None) the_channels.back()->on_batch(handler);
  Py_RETURN_NONE;
}

/// The channel for consumers of Python's.
PyObject* capsule(PyObject*, PyObject*) {
  return the_channels.back()->capsule();
}

PyObject* close_channel(PyObject*, PyObject*) {
  the_channels.back()->close();
  Py_RETURN_NONE;
}

/// A handler of events says how many it saw.
PyObject* saw(PyObject*, PyObject* batch) {
  const Py_ssize_t size = PyObject_Length(batch);
  if (size < 0) return nullptr;
  the_sums.taken.fetch_add(static_cast<std::uint64_t>(size));
  Py_RETURN_NONE;
}

/// Runs the handler on what is queued, as an event loop would that was told.
PyObject* deliver(PyObject*, PyObject*) {
  if (!the_channels.empty()) (void)the_channels.back()->deliver();
  Py_RETURN_NONE;
}

/// Waits for so many attaches and sends.
PyObject* wait_for_work(PyObject*, PyObject* wanted) {
  const unsigned long long number = PyLong_AsUnsignedLongLong(wanted);
  if (PyErr_Occurred()) return nullptr;
  const auto until = std::chrono::steady_clock::now() + patience;
  {
    const moored::detachment others_turn;
    while (moored::stats().attaches + the_sums.attempts < number &&
           std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(100us);
  }
  Py_RETURN_NONE;
}

/// Makes a subinterpreter, works in it, and ends it. Gives false where there is none of this kind.
PyObject* visit_subinterpreter(PyObject*, PyObject* own_gil) {
  PyThreadState* const mine = PyThreadState_Get();
  PyThreadState* other = nullptr;
  if (own_gil == Py_True) {
#if PY_VERSION_HEX >= 0x030C0000
    PyInterpreterConfig config{};
    config.check_multi_interp_extensions = 1;
    config.allow_threads = 1;
    config.gil = PyInterpreterConfig_OWN_GIL;
    const PyStatus status = Py_NewInterpreterFromConfig(&other, &config);
    if (PyStatus_Exception(status)) other = nullptr;
#else
    Py_RETURN_FALSE;
#endif
  } else {
    other = Py_NewInterpreter();
  }
  if (other == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "a subinterpreter could not be made");
    return nullptr;
  }
  const auto set_subinterpreter = [](std::optional<moored::interpreter> to) {
    const std::lock_guard lock(the_subinterpreters_turn);
    the_subinterpreter = std::move(to);
  };
  set_subinterpreter(moored::interpreter::current());
  const int failed = PyRun_SimpleString(
      "import threading\n"
      "assert sum(range(1000)) == 499500\n"
      "own = threading.local()\n"
      "own.value = [own]\n");
  {
    const moored::detachment others_turn;
    const std::uint64_t before = the_sums.visits;
    for (int looks = 0; looks < 100 && the_sums.visits < before + 20; ++looks)
      std::this_thread::sleep_for(100us);
  }
  Py_EndInterpreter(other);  // while native threads visit it
  PyThreadState_Swap(mine);
  set_subinterpreter(std::nullopt);
  return PyBool_FromLong(failed == 0);
}

PyObject* set_bound(PyObject*, PyObject* milliseconds) {
  const long bound = PyLong_AsLong(milliseconds);
  if (PyErr_Occurred()) return nullptr;
  moored::set_closing_bound(std::chrono::milliseconds(bound));
  Py_RETURN_NONE;
}

/// fork() as a native thread would, and what came of the child: its exit code, or minus its signal.
PyObject* fork_natively(PyObject*, PyObject*) {
  const pid_t child = fork();
  if (child == 0) {
    const moored::state_stats counted = moored::stats();
    _exit(counted.states_kept == 0 ? 0 : 9);
  }
  int status = 0;
  {
    const moored::detachment others_turn;
    waitpid(child, &status, 0);
  }
  return PyLong_FromLong(WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
}

/// report_to(fd): at the end of the process, and of no child's.
PyObject* report_to(PyObject*, PyObject* descriptor) {
  report_fd = static_cast<int>(PyLong_AsLong(descriptor));
  reporter = getpid();
  if (PyErr_Occurred()) return nullptr;
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"start", start, METH_VARARGS, nullptr},
    {"be_urgent", be_urgent, METH_NOARGS, nullptr},
    {"open_channel", open_channel, METH_VARARGS, nullptr},
    {"capsule", capsule, METH_NOARGS, nullptr},
    {"close_channel", close_channel, METH_NOARGS, nullptr},
    {"saw", saw, METH_O, nullptr},
    {"deliver", deliver, METH_NOARGS, nullptr},
    {"wait_for_work", wait_for_work, METH_O, nullptr},
    {"visit_subinterpreter", visit_subinterpreter, METH_O, nullptr},
    {"set_bound", set_bound, METH_O, nullptr},
    {"join_foreign", join_foreign, METH_VARARGS, nullptr},
    {"use_plugin", use_plugin, METH_O, nullptr},
    {"fork_natively", fork_natively, METH_NOARGS, nullptr},
    {"report_to", report_to, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "torture_threads",
                          nullptr,
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_torture_threads() {
  (void)Py_AtExit([] { the_life.fetch_add(1); });
  if (!moored::open()) return nullptr;
  return PyModule_Create(&definition);
}
