// channel_descriptor.cpp: the Python type Descriptor.
#include "channel_descriptor.hpp"

#include <unistd.h>

#include <array>

namespace moored_core {

namespace {

template <class Function>
void* slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

struct descriptor {
  PyObject_HEAD channel_calls calls;
  int fd;           // negative: closed
  bool subscribed;  // it is ours to close
  pid_t process;
};

PyTypeObject* the_type = nullptr;

descriptor* as_descriptor(PyObject* self) noexcept {
  return reinterpret_cast<descriptor*>(self);
}

PyObject* fileno(PyObject* self, PyObject*) {
  if (as_descriptor(self)->fd >= 0) return PyLong_FromLong(as_descriptor(self)->fd);
  PyErr_SetString(PyExc_ValueError, "the descriptor is closed");
  return nullptr;
}

PyObject* acknowledge_for_python(PyObject* self, PyObject*) {
  acknowledge(self);
  Py_RETURN_NONE;
}

void close_descriptor(descriptor& mine) noexcept {
  const int fd = mine.fd;
  mine.fd = -1;
  if (fd >= 0 && mine.subscribed) mine.calls->unsubscribe(mine.calls.channel(), fd);
}

PyObject* close(PyObject* self, PyObject*) {
  close_descriptor(*as_descriptor(self));
  Py_RETURN_NONE;
}

PyObject* closed_channel(PyObject* self, void*) {
  const channel_calls& calls = as_descriptor(self)->calls;
  return PyBool_FromLong(calls->closed(calls.channel()));
}

void destroy(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  close_descriptor(*as_descriptor(self));
  as_descriptor(self)->calls.let_go();
  type->tp_free(self);
  Py_DECREF(type);
}

std::array methods{
    PyMethodDef{"fileno", fileno, METH_NOARGS, "Its number."},
    PyMethodDef{"acknowledge", acknowledge_for_python, METH_NOARGS,
                "Make it unreadable until the next wake."},
    PyMethodDef{"close", close, METH_NOARGS, "Give it back."},
    PyMethodDef{nullptr, nullptr, 0, nullptr},
};

std::array getters{
    PyGetSetDef{"channel_closed", closed_channel, nullptr, "Whether events are refused.", nullptr},
    PyGetSetDef{nullptr, nullptr, nullptr, nullptr, nullptr},
};

std::array slots{
    PyType_Slot{Py_tp_doc, const_cast<char*>("What tells an event loop of a channel's events.")},
    PyType_Slot{Py_tp_dealloc, slot(destroy)},
    PyType_Slot{Py_tp_methods, methods.data()},
    PyType_Slot{Py_tp_getset, getters.data()},
    PyType_Slot{0, nullptr},
};

}  // namespace

PyObject* make_descriptor(const channel_calls& calls, bool subscribed) {
  PyObject* const self = the_type->tp_alloc(the_type, 0);
  if (self == nullptr) return nullptr;
  descriptor& mine = *as_descriptor(self);
  mine.calls.hold(calls);
  mine.subscribed = subscribed && calls.can_subscribe();
  mine.process = ::getpid();
  mine.fd = mine.subscribed ? calls->subscribe(calls.channel()) : calls->fileno(calls.channel());
  if (mine.fd >= 0) return self;
  Py_DECREF(self);
  return nullptr;
}

void acknowledge(PyObject* descriptor) noexcept {
  const auto& mine = *as_descriptor(descriptor);
  if (mine.fd < 0) return;
  if (mine.subscribed)
    mine.calls->acknowledge_own(mine.calls.channel(), mine.fd);
  else if (mine.calls.can_subscribe() || mine.process == ::getpid())
    mine.calls->acknowledge(
        mine.calls.channel());  // an older moored's is the parent's in a fork's child
}

const channel_calls& calls_of_descriptor(PyObject* descriptor) noexcept {
  return as_descriptor(descriptor)->calls;
}

PyTypeObject* descriptor_type() noexcept {
  return the_type;
}

PyObject* make_descriptor_type() {
  PyType_Spec spec{
      "moored._core.Descriptor", sizeof(descriptor), 0,
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
      slots.data()};
  PyObject* const type = PyType_FromSpec(&spec);
  the_type = reinterpret_cast<PyTypeObject*>(type);
  return type;
}

}  // namespace moored_core
