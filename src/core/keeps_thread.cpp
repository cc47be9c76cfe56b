// keeps_thread.cpp: a native type, because a decorator in Python would cost a Python call more at
// every callback.
#include "keeps_thread.hpp"

#include "foreign_thread.hpp"

#include <structmember.h>

#include <array>
#include <cstddef>

namespace moored_core {

namespace {

struct wrapper {
  PyObject_HEAD PyObject* wrapped;
  PyObject* attributes;
  PyObject* weak_references;
  vectorcallfunc vectorcall;
  bool urgent;
};

wrapper* as_wrapper(PyObject* self) noexcept {
  return reinterpret_cast<wrapper*>(self);
}

template <class Function>
void* slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

PyObject* call(PyObject* self, PyObject* const* arguments, std::size_t count, PyObject* names) {
  const bool keeps = keep_foreign_thread();
  const bool pays = keeps && as_wrapper(self)->urgent;
  if (pays) moored::cpython::be_urgent();
  PyObject* const result = PyObject_Vectorcall(as_wrapper(self)->wrapped, arguments, count, names);
  if (pays) moored::cpython::settle_urgent_turn();
  if (result == nullptr && keeps) [[unlikely]]
    look_after_exception();
  return result;
}

/// __wrapped__, __name__, __doc__ and so on, by functools.
bool look_like(PyObject* self, PyObject* wrapped) {
  PyObject* const functools = PyImport_ImportModule("functools");
  PyObject* const done =
      functools ? PyObject_CallMethod(functools, "update_wrapper", "OO", self, wrapped) : nullptr;
  Py_XDECREF(functools);
  Py_XDECREF(done);
  return done != nullptr;
}

/// keeps_thread(urgent=...) without a callback is what decorates one.
PyObject* make_decorator(PyTypeObject* type, bool urgent) {
  PyObject* const functools = PyImport_ImportModule("functools");
  PyObject* const partial = functools ? PyObject_GetAttrString(functools, "partial") : nullptr;
  PyObject* const given = Py_BuildValue("(O)", type);
  PyObject* const names = Py_BuildValue("{s:O}", "urgent", urgent ? Py_True : Py_False);
  PyObject* const made = partial && given && names ? PyObject_Call(partial, given, names) : nullptr;
  Py_XDECREF(functools);
  Py_XDECREF(partial);
  Py_XDECREF(given);
  Py_XDECREF(names);
  return made;
}

PyObject* make(PyTypeObject* type, PyObject* arguments, PyObject* names) {
  PyObject* wrapped = nullptr;
  int urgent = 0;
  std::array<char*, 3> keywords{const_cast<char*>(""), const_cast<char*>("urgent"), nullptr};
  if (!PyArg_ParseTupleAndKeywords(arguments, names, "|O$p:keeps_thread", keywords.data(), &wrapped,
                                   &urgent))
    return nullptr;
  if (wrapped == nullptr) return make_decorator(type, urgent != 0);
  if (!PyCallable_Check(wrapped)) {
    return PyErr_Format(PyExc_TypeError,
                        "keeps_thread needs something callable, not %.100s; put it below "
                        "classmethod and property",
                        Py_TYPE(wrapped)->tp_name);
  }
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  as_wrapper(self)->wrapped = Py_NewRef(wrapped);
  as_wrapper(self)->vectorcall = call;
  as_wrapper(self)->urgent = urgent != 0;
  if (look_like(self, wrapped)) return self;
  Py_DECREF(self);
  return nullptr;
}

/// A plain function has more attributes than functools copies; inspect knows a coroutine function,
/// or a generator, by its code.
constexpr std::array attributes_of_functions{"__code__",    "__defaults__", "__kwdefaults__",
                                             "__closure__", "__globals__",  "__annotations__"};

PyObject* get_attribute(PyObject* self, PyObject* name) {
  PyObject* const own = PyObject_GenericGetAttr(self, name);
  if (own != nullptr || !PyErr_ExceptionMatches(PyExc_AttributeError)) return own;
  for (const char* const one : attributes_of_functions) {
    if (PyUnicode_CompareWithASCIIString(name, one) != 0) continue;
    PyErr_Clear();
    return PyObject_GetAttr(as_wrapper(self)->wrapped, name);
  }
  return nullptr;
}

/// As a function is pickled: by the name under which its module has it.
PyObject* reduce(PyObject* self, PyObject*) {
  for (const char* const name : {"__qualname__", "__name__"}) {
    PyObject* const found = PyObject_GetAttrString(self, name);
    if (found != nullptr || !PyErr_ExceptionMatches(PyExc_AttributeError)) return found;
    PyErr_Clear();
  }
  return PyErr_Format(PyExc_TypeError, "cannot pickle %R, for what it decorates has no name", self);
}

/// As a function is copied: not at all.
PyObject* copy(PyObject* self, PyObject*) {
  return Py_NewRef(self);
}

/// Binds to an instance, as functions do.
PyObject* bind(PyObject* self, PyObject* instance, PyObject*) {
  return instance == nullptr || instance == Py_None ? Py_NewRef(self)
                                                    : PyMethod_New(self, instance);
}

PyObject* represent(PyObject* self) {
  return PyUnicode_FromFormat("<moored.keeps_thread %R>", as_wrapper(self)->wrapped);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(as_wrapper(self)->wrapped);
  Py_VISIT(as_wrapper(self)->attributes);
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(as_wrapper(self)->wrapped);
  Py_CLEAR(as_wrapper(self)->attributes);
  return 0;
}

void destroy(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  if (as_wrapper(self)->weak_references != nullptr) PyObject_ClearWeakRefs(self);
  clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

constexpr Py_ssize_t offset_of_attributes = offsetof(wrapper, attributes);
constexpr Py_ssize_t offset_of_weak_references = offsetof(wrapper, weak_references);
constexpr Py_ssize_t offset_of_vectorcall = offsetof(wrapper, vectorcall);

std::array members{
    PyMemberDef{"__dictoffset__", T_PYSSIZET, offset_of_attributes, READONLY, nullptr},
    PyMemberDef{"__weaklistoffset__", T_PYSSIZET, offset_of_weak_references, READONLY, nullptr},
    PyMemberDef{"__vectorcalloffset__", T_PYSSIZET, offset_of_vectorcall, READONLY, nullptr},
    PyMemberDef{nullptr, 0, 0, 0, nullptr},
};

std::array methods{
    PyMethodDef{"__reduce__", reduce, METH_NOARGS, nullptr},
    PyMethodDef{"__copy__", copy, METH_NOARGS, nullptr},
    PyMethodDef{"__deepcopy__", copy, METH_O, nullptr},
    PyMethodDef{nullptr, nullptr, 0, nullptr},
};

std::array getters{
    PyGetSetDef{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    PyGetSetDef{nullptr, nullptr, nullptr, nullptr, nullptr},
};

constexpr const char* documentation =
    "keeps_thread(callback, /, *, urgent=False)\n--\n\n"
    "Decorate a callback so that its first call on each foreign thread keeps the thread's "
    "state.\n\n"
    "With urgent, later callbacks get the GIL from a busy thread in microseconds, once "
    "install(urgent=True) was called. "
    "Calls go straight to the callback otherwise, at a cost of some nanoseconds.";

std::array slots{
    PyType_Slot{Py_tp_doc, const_cast<char*>(documentation)},
    PyType_Slot{Py_tp_new, slot(make)},
    PyType_Slot{Py_tp_call, slot(PyVectorcall_Call)},
    PyType_Slot{Py_tp_descr_get, slot(bind)},
    PyType_Slot{Py_tp_getattro, slot(get_attribute)},
    PyType_Slot{Py_tp_repr, slot(represent)},
    PyType_Slot{Py_tp_traverse, slot(traverse)},
    PyType_Slot{Py_tp_clear, slot(clear)},
    PyType_Slot{Py_tp_dealloc, slot(destroy)},
    PyType_Slot{Py_tp_members, members.data()},
    PyType_Slot{Py_tp_methods, methods.data()},
    PyType_Slot{Py_tp_getset, getters.data()},
    PyType_Slot{0, nullptr},
};

}  // namespace

PyObject* make_keeps_thread_type() {
  // A method descriptor: calling obj.callback() makes no bound method.
  PyType_Spec spec{"moored.keeps_thread", sizeof(wrapper), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                       Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
                   slots.data()};
  return PyType_FromSpec(&spec);
}

}  // namespace moored_core
