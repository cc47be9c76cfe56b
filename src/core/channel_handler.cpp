// channel_handler.cpp: the holder, which owns a handler, and the link, which the channel has.
#include "channel_handler.hpp"

#include <structmember.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <new>
#include <utility>

// Since 3.13; before, the GIL is all that there is.
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

namespace moored_core {

namespace {

template <class Function>
void* slot(Function* function) noexcept {
  return reinterpret_cast<void*>(function);
}

/// What a weak reference refers to, as a new reference, or null.
PyObject* strong(PyObject* weak) noexcept {
  if (weak == nullptr) return nullptr;
#if PY_VERSION_HEX >= 0x030d0000
  PyObject* object = nullptr;
  (void)PyWeakref_GetRef(weak, &object);
  return object;
#else
  PyObject* const object = PyWeakref_GetObject(weak);
  return object == nullptr || object == Py_None ? nullptr : Py_NewRef(object);
#endif
}

PyTypeObject* holder_type = nullptr;
PyTypeObject* link_type = nullptr;

// ---- the holder: it owns the handler, and the collector sees it
// ------------------------------------

struct holder {
  PyObject_HEAD PyObject* handler;
  PyObject* link;  // weak
  channel_calls calls;
  PyObject* weak_references;
};

holder* as_holder(PyObject* self) noexcept {
  return reinterpret_cast<holder*>(self);
}

int traverse_holder(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(as_holder(self)->handler);
  return 0;
}

/// The collector alone calls this: nothing but a cycle has the holder. While the channel has the
/// link still, it is told first that there is no handler, so that no events go into a dead one.
void finalize_holder(PyObject* self) {
  PyObject* const link = strong(as_holder(self)->link);
  if (link == nullptr) return;
  as_holder(self)->calls->set_handler(as_holder(self)->calls.channel(), nullptr);
  Py_DECREF(link);
}

int clear_holder(PyObject* self) {
  Py_CLEAR(as_holder(self)->handler);
  return 0;
}

void destroy_holder(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  if (as_holder(self)->weak_references != nullptr) PyObject_ClearWeakRefs(self);
  clear_holder(self);
  Py_CLEAR(as_holder(self)->link);
  as_holder(self)->calls.let_go();
  type->tp_free(self);
  Py_DECREF(type);
}

constexpr Py_ssize_t weak_references_of_holder = offsetof(holder, weak_references);
std::array holder_members{
    PyMemberDef{"__weaklistoffset__", T_PYSSIZET, weak_references_of_holder, READONLY, nullptr},
    PyMemberDef{nullptr, 0, 0, 0, nullptr},
};
std::array holder_slots{
    PyType_Slot{Py_tp_traverse, slot(traverse_holder)},
    PyType_Slot{Py_tp_finalize, slot(finalize_holder)},
    PyType_Slot{Py_tp_clear, slot(clear_holder)},
    PyType_Slot{Py_tp_dealloc, slot(destroy_holder)},
    PyType_Slot{Py_tp_members, holder_members.data()},
    PyType_Slot{0, nullptr},
};

// ---- the link: what the channel calls
// ---------------------------------------------------------------

struct link_object {
  PyObject_HEAD PyObject* holder;  // weak
  std::atomic<PyObject*> kept;     // the holder, owned, once its Python object has gone; else null
  PyObject* weak_references;
  vectorcallfunc vectorcall;
};

link_object* as_link(PyObject* self) noexcept {
  return reinterpret_cast<link_object*>(self);
}

/// The handler, as a new reference, or null. The Python object gives the holder to the link before
/// it lets it go, so the holder is in one of the two places unless it is garbage.
PyObject* handler_of(PyObject* self) noexcept {
  PyObject* const kept = as_link(self)->kept.load(std::memory_order_acquire);
  PyObject* const found = kept != nullptr ? Py_NewRef(kept) : strong(as_link(self)->holder);
  if (found == nullptr) return nullptr;
  PyObject* const handler = Py_XNewRef(as_holder(found)->handler);
  Py_DECREF(found);
  return handler;
}

PyObject* call_link(PyObject* self, PyObject* const* arguments, std::size_t count,
                    PyObject* names) {
  PyObject* const handler = handler_of(self);
  if (handler == nullptr) Py_RETURN_NONE;
  PyObject* const result = PyObject_Vectorcall(handler, arguments, count, names);
  Py_DECREF(handler);
  return result;
}

/// Reports of a handler that raised show the handler.
PyObject* represent_link(PyObject* self) {
  PyObject* const handler = handler_of(self);
  if (handler == nullptr) return PyUnicode_FromString("<the handler of a channel>");
  PyObject* const text = PyObject_Repr(handler);
  Py_DECREF(handler);
  return text;
}

void destroy_link(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  if (as_link(self)->weak_references != nullptr) PyObject_ClearWeakRefs(self);
  Py_CLEAR(as_link(self)->holder);
  Py_XDECREF(as_link(self)->kept.exchange(nullptr));
  type->tp_free(self);
  Py_DECREF(type);
}

constexpr Py_ssize_t weak_references_of_link = offsetof(link_object, weak_references);
constexpr Py_ssize_t vectorcall_of_link = offsetof(link_object, vectorcall);
std::array link_members{
    PyMemberDef{"__weaklistoffset__", T_PYSSIZET, weak_references_of_link, READONLY, nullptr},
    PyMemberDef{"__vectorcalloffset__", T_PYSSIZET, vectorcall_of_link, READONLY, nullptr},
    PyMemberDef{nullptr, 0, 0, 0, nullptr},
};
std::array link_slots{
    PyType_Slot{Py_tp_call, slot(PyVectorcall_Call)},
    PyType_Slot{Py_tp_repr, slot(represent_link)},
    PyType_Slot{Py_tp_dealloc, slot(destroy_link)},
    PyType_Slot{Py_tp_members, link_members.data()},
    PyType_Slot{0, nullptr},
};

PyObject* make_holder(const channel_calls& calls, PyObject* handler) {
  PyObject* const self = holder_type->tp_alloc(holder_type, 0);
  if (self == nullptr) return nullptr;
  as_holder(self)->calls.hold(calls);
  as_holder(self)->handler = Py_NewRef(handler);
  return self;
}

/// A link to the holder, which gets a weak reference to the link.
PyObject* make_link(PyObject* to) {
  PyObject* const self = link_type->tp_alloc(link_type, 0);
  if (self == nullptr) return nullptr;
  new (&as_link(self)->kept) std::atomic<PyObject*>(nullptr);
  as_link(self)->vectorcall = call_link;
  as_link(self)->holder = PyWeakref_NewRef(to, nullptr);
  as_holder(to)->link = PyWeakref_NewRef(self, nullptr);
  if (as_link(self)->holder != nullptr && as_holder(to)->link != nullptr) return self;
  Py_DECREF(self);
  return nullptr;
}

}  // namespace

PyObject* channel_handler::set([[maybe_unused]] PyObject* self, const channel_calls& calls,
                               PyObject* handler) noexcept {
  PyObject* new_held = nullptr;
  PyObject* new_weak = nullptr;
  PyObject* new_link = nullptr;
  if (handler != nullptr) {
    new_held = make_holder(calls, handler);
    if (new_held == nullptr) return nullptr;
    new_link = make_link(new_held);
    if (new_link == nullptr) {
      Py_DECREF(new_held);
      return nullptr;
    }
    new_weak = Py_NewRef(as_holder(new_held)->link);
  }
  Py_BEGIN_CRITICAL_SECTION(self);
  std::swap(held, new_held);
  std::swap(link, new_weak);
  Py_END_CRITICAL_SECTION();
  // A batch that is on its way to the old handler reaches it.
  hand_over(new_held, new_weak);
  calls->set_handler(calls.channel(), new_link);
  return new_link != nullptr ? new_link : Py_NewRef(Py_None);
}

int channel_handler::traverse(visitproc visit, void* arg) const noexcept {
  Py_VISIT(held);
  return 0;
}

void channel_handler::clear() noexcept {
  Py_CLEAR(held);
  Py_CLEAR(link);
}

void channel_handler::leave() noexcept {
  hand_over(std::exchange(held, nullptr), std::exchange(link, nullptr));
}

/// Steals both. The holder goes to the link, if the channel has that still, and lets go of the
/// channel, which has it now.
void channel_handler::hand_over(PyObject* old_held, PyObject* old_link) noexcept {
  if (PyObject* const there = strong(old_link)) {
    as_holder(old_held)->calls.let_go();
    as_link(there)->kept.store(old_held, std::memory_order_release);
    old_held = nullptr;
    Py_DECREF(there);
  }
  Py_XDECREF(old_link);
  Py_XDECREF(old_held);
}

bool channel_handler::make_types() noexcept {
  // The types are the package's for the life of the process, as the module is.
  PyType_Spec holds{"moored._core._HandlerHolder", sizeof(holder), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                        Py_TPFLAGS_DISALLOW_INSTANTIATION,
                    holder_slots.data()};
  PyType_Spec links{"moored._core._HandlerLink", sizeof(link_object), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE |
                        Py_TPFLAGS_DISALLOW_INSTANTIATION,
                    link_slots.data()};
  holder_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&holds));
  if (holder_type == nullptr) return false;
  link_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&links));
  return link_type != nullptr;
}

}  // namespace moored_core
