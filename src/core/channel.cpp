// channel.cpp: a Python type over the table of functions in a channel's capsule. Thin: every method
// is one call through the table.
//
// Not by nanobind, whose functions are noexcept: a daemon thread that waits here when the
// interpreter ends is ended by Python, on some versions by unwinding it
// (detail/cpython/versions.hpp).
#include "channel.hpp"

#include "channel_calls.hpp"
#include "channel_descriptor.hpp"
#include "channel_handler.hpp"

#include <moored/delivery.hpp>
#include <moored/reference.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moored_core {

namespace {

using table = channel_calls::table;

struct wrapper {
  PyObject_HEAD channel_calls calls;
  channel_handler handler;
};

wrapper* as_wrapper(PyObject* self) noexcept {
  return reinterpret_cast<wrapper*>(self);
}

const table& calls_of(PyObject* self) noexcept {
  return *as_wrapper(self)->calls.functions;
}

/// Nanoseconds of a number of seconds; -1 for None. Nothing, with an exception, for what is
/// neither.
std::optional<std::int64_t> nanoseconds(PyObject* seconds) {
  if (seconds == Py_None) return -1;
  const double value = PyFloat_AsDouble(seconds);
  if (value == -1.0 && PyErr_Occurred() != nullptr) return std::nullopt;
  if (std::isnan(value)) {
    PyErr_SetString(PyExc_ValueError, "a time in seconds cannot be nan");
    return std::nullopt;
  }
  constexpr double most = 9e9;  // seconds; what 63 bits of ns hold
  if (value <= 0.0) return 0;
  return static_cast<std::int64_t>((value < most ? value : most) * 1e9);
}

PyObject* make(PyTypeObject* type, PyObject* arguments, PyObject* names) {
  PyObject* capsule = nullptr;
  std::array<char*, 2> keywords{const_cast<char*>(""), nullptr};
  if (!PyArg_ParseTupleAndKeywords(arguments, names, "O:Channel", keywords.data(), &capsule))
    return nullptr;
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_RuntimeError, "channels belong to the main interpreter");
    return nullptr;
  }
  if (!PyCapsule_IsValid(capsule, moored::channel_capsule_name)) {
    return PyErr_Format(PyExc_TypeError,
                        "Channel needs a capsule named '%s', or an object with "
                        "__moored_channel__() that returns one, not %.100s",
                        moored::channel_capsule_name, Py_TYPE(capsule)->tp_name);
  }
  const auto* const calls =
      static_cast<const table*>(PyCapsule_GetPointer(capsule, moored::channel_capsule_name));
  if (calls->size < channel_calls::least_size) {
    PyErr_SetString(PyExc_TypeError,
                    "this channel's extension was built with an older moored: build it again");
    return nullptr;
  }
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  as_wrapper(self)->calls.hold(channel_calls{capsule, calls});
  return self;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return as_wrapper(self)->handler.traverse(visit, arg);
}

int clear(PyObject* self) {
  as_wrapper(self)->handler.clear();
  return 0;
}

void destroy(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  as_wrapper(self)->handler.leave();
  as_wrapper(self)->calls.let_go();
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* name(PyObject* self, void*) {
  const std::string_view text = calls_of(self).name(calls_of(self).channel);
  return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
}

PyObject* closed(PyObject* self, void*) {
  return PyBool_FromLong(calls_of(self).closed(calls_of(self).channel));
}

PyObject* take(PyObject* self, PyObject* limit) {
  const Py_ssize_t most = PyNumber_AsSsize_t(limit, PyExc_OverflowError);
  if (most == -1 && PyErr_Occurred() != nullptr) return nullptr;
  return calls_of(self).take(calls_of(self).channel, most);
}

PyObject* wait(PyObject* self, PyObject* seconds) {
  const auto ns = nanoseconds(seconds);
  if (!ns) return nullptr;
  const int came = calls_of(self).wait(calls_of(self).channel, *ns);
  return came < 0 ? nullptr : PyBool_FromLong(came);
}

PyObject* descriptor(PyObject* self, PyObject* subscribed) {
  const int truth = PyObject_IsTrue(subscribed);
  return truth < 0 ? nullptr : make_descriptor(as_wrapper(self)->calls, truth != 0);
}

PyObject* can_subscribe(PyObject* self, void*) {
  return PyBool_FromLong(as_wrapper(self)->calls.can_subscribe());
}

PyObject* key(PyObject* self, void*) {
  return PyLong_FromVoidPtr(as_wrapper(self)->calls.channel());
}

PyObject* listen(PyObject* self, PyObject* listening) {
  const int truth = PyObject_IsTrue(listening);
  if (truth < 0) return nullptr;
  calls_of(self).listen(calls_of(self).channel, truth);
  Py_RETURN_NONE;
}

PyObject* set_handler(PyObject* self, PyObject* handler) {
  wrapper& mine = *as_wrapper(self);
  return mine.handler.set(self, mine.calls, handler == Py_None ? nullptr : handler);
}

PyObject* deliver(PyObject* self, PyObject*) {
  const int left = calls_of(self).deliver(calls_of(self).channel);
  return left < 0 ? nullptr : PyBool_FromLong(left);
}

PyObject* deliver_by(PyObject* self, PyObject* arguments) {
  const char* how = nullptr;
  PyObject* hold = nullptr;
  PyObject* linger = nullptr;
  if (!PyArg_ParseTuple(arguments, "sOO:deliver_by", &how, &hold, &linger)) return nullptr;
  const auto wanted = moored::delivery_named(how);
  if (!wanted) {
    return PyErr_Format(PyExc_ValueError,
                        "unknown delivery '%.100s': choose poll, wake, enter, interrupt or "
                        "adaptive",
                        how);
  }
  const auto hold_ns = nanoseconds(hold);
  if (!hold_ns) return nullptr;
  const auto linger_ns = nanoseconds(linger);
  if (!linger_ns) return nullptr;
  const int done = calls_of(self).deliver_by(calls_of(self).channel, static_cast<int>(*wanted),
                                             *hold_ns, *linger_ns);
  if (done < 0) return nullptr;
  Py_RETURN_NONE;
}

PyObject* delivery(PyObject* self, PyObject*) {
  std::int64_t hold = 0;
  std::int64_t linger = 0;
  const int how = calls_of(self).delivery(calls_of(self).channel, &hold, &linger);
  const auto& names = moored::detail::delivery_names;
  return Py_BuildValue("(sdd)", names[static_cast<std::size_t>(how)].data(),
                       static_cast<double>(hold) / 1e9, static_cast<double>(linger) / 1e9);
}

PyObject* close(PyObject* self, PyObject*) {
  calls_of(self).close(calls_of(self).channel);
  Py_RETURN_NONE;
}

PyObject* stats(PyObject* self, PyObject*) {
  const auto& names = moored::detail::channel_stats_names;
  std::array<std::uint64_t, moored::detail::channel_stats_names.size()> numbers{};
  calls_of(self).stats(calls_of(self).channel, numbers.data(), numbers.size());
  moored::reference dict = moored::reference::steal(PyDict_New());
  for (std::size_t index = 0; dict && index < numbers.size(); ++index) {
    const auto number = moored::reference::steal(PyLong_FromUnsignedLongLong(numbers[index]));
    if (!number || PyDict_SetItemString(dict.get(), names[index].data(), number.get()) != 0)
      return nullptr;
  }
  return dict.release();
}

std::array methods{
    PyMethodDef{"take", take, METH_O, "At most so many events, all if negative, as a list."},
    PyMethodDef{"wait", wait, METH_O, "Wait, at most so many seconds, for something to take."},
    PyMethodDef{"descriptor", descriptor, METH_O,
                "A descriptor: one of its own for a consumer, if true, or the handler's."},
    PyMethodDef{"listen", listen, METH_O, "Say whether an event loop watches the handler's."},
    PyMethodDef{"set_handler", set_handler, METH_O,
                "A callable for lists of events, or None; what the channel has then."},
    PyMethodDef{"deliver", deliver, METH_NOARGS, "Run the handler; True when something is left."},
    PyMethodDef{"deliver_by", deliver_by, METH_VARARGS, "Change delivery, hold and linger."},
    PyMethodDef{"delivery", delivery, METH_NOARGS, "The delivery, hold and linger."},
    PyMethodDef{"close", close, METH_NOARGS, "Refuse events from now on."},
    PyMethodDef{"stats", stats, METH_NOARGS, "The numbers of moored::channel_stats, by name."},
    PyMethodDef{nullptr, nullptr, 0, nullptr},
};

std::array getters{
    PyGetSetDef{"name", name, nullptr, "Its name, for reports.", nullptr},
    PyGetSetDef{"closed", closed, nullptr, "Whether events are refused.", nullptr},
    PyGetSetDef{"key", key, nullptr, "The same for all objects of one channel.", nullptr},
    PyGetSetDef{"can_subscribe", can_subscribe, nullptr,
                "Whether consumers get descriptors of their own.", nullptr},
    PyGetSetDef{nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <class Function>
void* slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

std::array slots{
    PyType_Slot{Py_tp_doc, const_cast<char*>("Channel(capsule, /)\n--\n\nA channel's calls.")},
    PyType_Slot{Py_tp_new, slot(make)},
    PyType_Slot{Py_tp_traverse, slot(traverse)},
    PyType_Slot{Py_tp_clear, slot(clear)},
    PyType_Slot{Py_tp_dealloc, slot(destroy)},
    PyType_Slot{Py_tp_methods, methods.data()},
    PyType_Slot{Py_tp_getset, getters.data()},
    PyType_Slot{0, nullptr},
};

}  // namespace

PyObject* make_channel_type() {
  if (!channel_handler::make_types() || make_descriptor_type() == nullptr) return nullptr;
  PyType_Spec spec{"moored._core.Channel", sizeof(wrapper), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                   slots.data()};
  return PyType_FromSpec(&spec);
}

}  // namespace moored_core
