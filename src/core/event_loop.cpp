// event_loop.cpp: the wait of moored.EventLoop, within which the handlers of channels run, and the
// decorator by which the wait knows that a handler has asked something of the loop.
#include "event_loop.hpp"

#include <moored/detail/cpython/calls.hpp>

#include <structmember.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>

namespace moored_core {

namespace {

/// A method that is decorated by asks_loop was called on this thread. A handler runs on the thread
/// of its loop, so the thread's flag will do for all loops: at worst a wait ends early.
thread_local bool was_asked = false;

// ---- the wait -----------------------------------------------------------------------------------

using clock = std::chrono::steady_clock;

/// What is left of the time, as epoll takes it: rounded up, -1 for no limit.
int milliseconds_until(const std::optional<clock::time_point>& end) noexcept {
  if (!end) return -1;
  const auto rest = std::chrono::ceil<std::chrono::milliseconds>(*end - clock::now()).count();
  return static_cast<int>(rest < 0 ? 0 : rest < INT_MAX ? rest : INT_MAX);
}

/// The reader of a descriptor, a new reference; null without one, or with an exception.
PyObject* reader_of(PyObject* readers, int fd) noexcept {
  PyObject* const key = PyLong_FromLong(fd);
  if (key == nullptr) return nullptr;
  PyObject* reader = nullptr;
#if PY_VERSION_HEX >= 0x030d0000
  (void)PyDict_GetItemRef(readers, key, &reader);
#else
  reader = Py_XNewRef(PyDict_GetItemWithError(readers, key));
#endif
  Py_DECREF(key);
  return reader;
}

enum class heard : std::uint8_t { nothing, readers, others, error };

/// What a reader raises is reported, but for what ends the loop's run: false.
bool call_reader(PyObject* reader, PyObject* report) {
  PyObject* const result = PyObject_CallNoArgs(reader);
  if (result != nullptr) {
    Py_DECREF(result);
    return true;
  }
  if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) != 0 ||
      PyErr_ExceptionMatches(PyExc_SystemExit) != 0)
    return false;
  PyObject* const error = moored::cpython::take_exception();
  PyObject* const done = PyObject_CallOneArg(report, error);
  Py_DECREF(error);
  Py_XDECREF(done);
  return done != nullptr;
}

/// Waits once, and calls the readers of what is ready if nothing else is.
heard wait_once(int epoll, PyObject* readers, PyObject* report, int milliseconds) {
  constexpr int most = 64;  // what else is ready is reported by the next wait
  std::array<epoll_event, most> events;
  int ready = 0;
  int error = 0;
  Py_BEGIN_ALLOW_THREADS;
  ready = ::epoll_wait(epoll, events.data(), most, milliseconds);
  error = errno;
  Py_END_ALLOW_THREADS;
  if (ready < 0) {
    if (error == EINTR) return heard::readers;
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return heard::error;
  }
  if (ready == 0) return heard::nothing;
  std::array<PyObject*, most> found;
  int count = 0;
  while (count < ready && (found[count] = reader_of(readers, events[count].data.fd)) != nullptr)
    ++count;
  heard came = PyErr_Occurred() != nullptr ? heard::error
               : count < ready             ? heard::others
                                           : heard::readers;
  for (int index = 0; index < count; ++index) {
    if (came == heard::readers) {
      PyObject* const now = index == 0 ? nullptr : reader_of(readers, events[index].data.fd);
      const bool is_there = index == 0 || now == found[index];  // no earlier one has removed it
      Py_XDECREF(now);
      if (PyErr_Occurred() != nullptr || (is_there && !call_reader(found[index], report)))
        came = heard::error;
    }
    Py_DECREF(found[index]);
  }
  return came;
}

/// True when something else than readers is ready. Null with an exception.
PyObject* wait_until(int epoll, PyObject* readers, PyObject* report,
                     const std::optional<clock::time_point>& end) {
  int milliseconds = milliseconds_until(end);
  for (;;) {
    // A signal may have come since Python was last run.
    if (PyErr_CheckSignals() != 0) return nullptr;
    switch (wait_once(epoll, readers, report, milliseconds)) {
      case heard::nothing:
        Py_RETURN_FALSE;
      case heard::others:
        Py_RETURN_TRUE;
      case heard::error:
        return nullptr;
      case heard::readers:
        break;
    }
    if (was_asked) Py_RETURN_FALSE;
    milliseconds = milliseconds_until(end);
    if (milliseconds == 0) Py_RETURN_FALSE;
  }
}

}  // namespace

/// Waits, at most so many seconds, until a descriptor is ready that has no reader in the dict, and
/// calls the readers of those that have. Returns early when a reader has asked something of the
/// loop. What a reader raises is given to report().
PyObject* deliver_or_wait(PyObject*, PyObject* arguments) {
  int epoll = -1;
  PyObject* readers = nullptr;
  PyObject* timeout = nullptr;
  PyObject* report = nullptr;
  if (!PyArg_ParseTuple(arguments, "iO!OO:deliver_or_wait", &epoll, &PyDict_Type, &readers,
                        &timeout, &report))
    return nullptr;
  std::optional<clock::time_point> end;
  if (timeout != Py_None) {
    const double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred() != nullptr) return nullptr;
    constexpr double most = 1e6;  // the loop asks again
    end = clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(
                             std::fmin(std::fmax(seconds, 0.0), most)));
  }
  // A handler may run the loop within itself.
  const bool before = std::exchange(was_asked, false);
  PyObject* const others = wait_until(epoll, readers, report, end);
  was_asked = was_asked || before;
  return others;
}

// ---- the decorator ------------------------------------------------------------------------------

namespace {

struct decorated {
  PyObject_HEAD PyObject* wrapped;
  vectorcallfunc vectorcall;
};

decorated* as_decorated(PyObject* self) noexcept {
  return reinterpret_cast<decorated*>(self);
}

PyObject* call(PyObject* self, PyObject* const* arguments, std::size_t count, PyObject* names) {
  was_asked = true;
  return PyObject_Vectorcall(as_decorated(self)->wrapped, arguments, count, names);
}

PyObject* make(PyTypeObject* type, PyObject* arguments, PyObject* names) {
  PyObject* wrapped = nullptr;
  std::array<char*, 2> keywords{const_cast<char*>(""), nullptr};
  if (!PyArg_ParseTupleAndKeywords(arguments, names, "O:asks_loop", keywords.data(), &wrapped))
    return nullptr;
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  as_decorated(self)->wrapped = Py_NewRef(wrapped);
  as_decorated(self)->vectorcall = call;
  return self;
}

/// Binds to an instance, as functions do.
PyObject* bind(PyObject* self, PyObject* instance, PyObject*) {
  return instance == nullptr || instance == Py_None ? Py_NewRef(self)
                                                    : PyMethod_New(self, instance);
}

/// Its name, its documentation and all else are the function's.
PyObject* get_attribute(PyObject* self, PyObject* name) {
  PyObject* const own = PyObject_GenericGetAttr(self, name);
  if (own != nullptr || !PyErr_ExceptionMatches(PyExc_AttributeError)) return own;
  PyErr_Clear();
  return PyObject_GetAttr(as_decorated(self)->wrapped, name);
}

PyObject* documentation(PyObject* self, void*) {
  return PyObject_GetAttrString(as_decorated(self)->wrapped, "__doc__");
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(as_decorated(self)->wrapped);
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(as_decorated(self)->wrapped);
  return 0;
}

void destroy(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

template <class Function>
void* slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

constexpr Py_ssize_t offset_of_wrapped = offsetof(decorated, wrapped);
constexpr Py_ssize_t offset_of_vectorcall = offsetof(decorated, vectorcall);

std::array members{
    PyMemberDef{"__wrapped__", T_OBJECT, offset_of_wrapped, READONLY, nullptr},
    PyMemberDef{"__vectorcalloffset__", T_PYSSIZET, offset_of_vectorcall, READONLY, nullptr},
    PyMemberDef{nullptr, 0, 0, 0, nullptr},
};

std::array getters{
    PyGetSetDef{"__doc__", documentation, nullptr, nullptr, nullptr},
    PyGetSetDef{nullptr, nullptr, nullptr, nullptr, nullptr},
};

std::array slots{
    PyType_Slot{Py_tp_new, slot(make)},          PyType_Slot{Py_tp_call, slot(PyVectorcall_Call)},
    PyType_Slot{Py_tp_descr_get, slot(bind)},    PyType_Slot{Py_tp_getattro, slot(get_attribute)},
    PyType_Slot{Py_tp_traverse, slot(traverse)}, PyType_Slot{Py_tp_clear, slot(clear)},
    PyType_Slot{Py_tp_dealloc, slot(destroy)},   PyType_Slot{Py_tp_members, members.data()},
    PyType_Slot{Py_tp_getset, getters.data()},   PyType_Slot{0, nullptr},
};

}  // namespace

PyObject* make_asks_loop_type() {
  // Native, and a method descriptor: a loop calls these methods at every step of a task, and one
  // in Python would take a good part of what they take themselves.
  PyType_Spec spec{"moored._core.asks_loop", sizeof(decorated), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                       Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
                   slots.data()};
  return PyType_FromSpec(&spec);
}

}  // namespace moored_core
