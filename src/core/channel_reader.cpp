// channel_reader.cpp: the Python type Reader: a wake of an event loop without a frame of Python's,
// except the handler's own.
//
// moored/_watches.py derives its watch from it, and so the loop keeps one object, and calls it.
#include "channel_reader.hpp"

#include "channel_descriptor.hpp"

#include <moored/detail/cpython/calls.hpp>

#include <array>
#include <atomic>
#include <new>

namespace moored_core {

namespace {

namespace cpython = moored::cpython;

struct reader {
  PyObject_HEAD PyObject* descriptor;  // a Descriptor, or null before __init__
  std::atomic<bool> delivers;
};

PyObject* on_told = nullptr;  // the names of the methods that a subclass has
PyObject* on_left = nullptr;

reader* as_reader(PyObject* self) noexcept {
  return reinterpret_cast<reader*>(self);
}

PyObject* make(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* const self = type->tp_alloc(type, 0);
  if (self != nullptr) new (&as_reader(self)->delivers) std::atomic<bool>(false);
  return self;
}

int initialize(PyObject* self, PyObject* arguments, PyObject* names) {
  PyObject* descriptor = nullptr;
  std::array<char*, 2> keywords{const_cast<char*>(""), nullptr};
  if (!PyArg_ParseTupleAndKeywords(arguments, names, "O!:Reader", keywords.data(),
                                   descriptor_type(), &descriptor))
    return -1;
  Py_XSETREF(as_reader(self)->descriptor, Py_NewRef(descriptor));
  return 0;
}

/// The handler has raised, or `hold` was over before all was delivered.
PyObject* see_to_the_rest(PyObject* self, bool has_raised) {
  if (!has_raised) return PyObject_CallMethodOneArg(self, on_left, Py_None);
  // These end the loop's run, as from any other callback.
  const bool is_loops = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) != 0 ||
                        PyErr_ExceptionMatches(PyExc_SystemExit) != 0;
  PyObject* const error = cpython::take_exception();
  PyObject* const result = PyObject_CallMethodOneArg(self, on_left, is_loops ? Py_None : error);
  if (!is_loops) {
    Py_DECREF(error);
    return result;
  }
  if (result == nullptr) PyErr_WriteUnraisable(self);
  Py_XDECREF(result);
  cpython::set_exception(error);
  return nullptr;
}

PyObject* call(PyObject* self, PyObject* arguments, PyObject* names) {
  if (PyTuple_GET_SIZE(arguments) != 0 || names != nullptr) {
    PyErr_SetString(PyExc_TypeError, "a reader takes no arguments");
    return nullptr;
  }
  PyObject* const descriptor = as_reader(self)->descriptor;
  if (descriptor == nullptr) Py_RETURN_NONE;
  // First: an event that comes from now on is either delivered below or told anew.
  acknowledge(descriptor);
  const channel_calls& calls = calls_of_descriptor(descriptor);
  if (!as_reader(self)->delivers.load(std::memory_order_acquire) ||
      calls->closed(calls.channel()) != 0)
    return PyObject_CallMethodNoArgs(self, on_told);
  const int left = calls->deliver(calls.channel());
  if (left != 0) return see_to_the_rest(self, left < 0);
  Py_RETURN_NONE;
}

PyObject* delivers(PyObject* self, void*) {
  return PyBool_FromLong(as_reader(self)->delivers.load(std::memory_order_relaxed));
}

int set_delivers(PyObject* self, PyObject* value, void*) {
  const int truth = value == nullptr ? 0 : PyObject_IsTrue(value);
  if (truth < 0) return -1;
  as_reader(self)->delivers.store(truth != 0, std::memory_order_release);
  return 0;
}

void destroy(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  Py_CLEAR(as_reader(self)->descriptor);
  type->tp_free(self);
  Py_DECREF(type);
}

template <class Function>
void* slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

std::array getters{
    PyGetSetDef{"delivers", delivers, set_delivers,
                "Whether a call runs the channel's handler, rather than on_told().", nullptr},
    PyGetSetDef{nullptr, nullptr, nullptr, nullptr, nullptr},
};

std::array slots{
    PyType_Slot{Py_tp_doc, const_cast<char*>("What a loop calls when a descriptor is readable.")},
    PyType_Slot{Py_tp_new, slot(make)},
    PyType_Slot{Py_tp_init, slot(initialize)},
    PyType_Slot{Py_tp_call, slot(call)},
    PyType_Slot{Py_tp_dealloc, slot(destroy)},
    PyType_Slot{Py_tp_getset, getters.data()},
    PyType_Slot{0, nullptr},
};

}  // namespace

PyObject* make_reader_type() {
  on_told = PyUnicode_InternFromString("on_told");
  on_left = PyUnicode_InternFromString("on_left");
  if (on_told == nullptr || on_left == nullptr) return nullptr;
  PyType_Spec spec{"moored._core.Reader", sizeof(reader), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
                   slots.data()};
  return PyType_FromSpec(&spec);
}

}  // namespace moored_core
