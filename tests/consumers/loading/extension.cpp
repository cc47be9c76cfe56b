// extension: what an extension with moored may look like to the loader. NAME is its module's name;
// TLS bytes of thread_locals are its own; with VERSION 2 its moored has another layout (the test
// compiles against changed headers).
#include <moored/moored.hpp>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>

#if TLS
thread_local volatile char own[TLS];
#endif

namespace {

moored::channel<long>* feed = nullptr;

PyObject* touch(PyObject*, PyObject*) {
#if TLS
  own[TLS - 1] = 1;
#endif
  const moored::attachment attached = moored::try_attach();
  return PyBool_FromLong(static_cast<bool>(attached));
}

/// Sends two numbers to the handler, by a channel of this extension's.
PyObject* tell(PyObject*, PyObject* handler) {
  if (feed == nullptr) {
    moored::channel_options options;
    options.by = moored::delivery::enter;
    feed = new moored::channel<long>(options);
  }
  feed->on_batch(handler);
  feed->send(1);
  feed->send(2);
  Py_RETURN_NONE;
}

/// Has a native thread attach when Python is gone, and say what came of it. Another one has
/// attached before, and so keeps a state.
PyObject* attach_late(PyObject*, PyObject*) {
  static std::thread late;
  static std::atomic<bool> has_attached{false};
  static std::atomic<bool> is_late{false};
  const auto attach = [] { return moored::try_attach().why(); };
  late = std::thread([attach] {
    (void)attach();
    has_attached = true;
    while (!is_late) std::this_thread::yield();
    std::puts(moored::describe(attach()));
  });
  std::atexit([] {
    is_late = true;
    late.join();
    std::thread([] { std::puts(moored::describe(moored::try_attach().why())); }).join();
  });
  {
    const moored::detachment detached;
    while (!has_attached) std::this_thread::yield();
  }
  Py_RETURN_NONE;
}

/// Where this extension's copy of moored keeps what all of it shares.
PyObject* where(PyObject*, PyObject*) {
  return PyLong_FromSize_t(reinterpret_cast<std::uintptr_t>(&moored::detail::the_gate));
}

PyMethodDef methods[] = {{"touch", touch, METH_NOARGS, ""},
                         {"tell", tell, METH_O, ""},
                         {"attach_late", attach_late, METH_NOARGS, ""},
                         {"where", where, METH_NOARGS, ""},
                         {nullptr, nullptr, 0, nullptr}};
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, TEXT(NAME), "", -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC INIT(NAME)() {
  (void)moored::install();
  if (!moored::open()) return nullptr;
  return PyModule_Create(&definition);
}
