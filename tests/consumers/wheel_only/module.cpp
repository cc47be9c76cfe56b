// An extension with no build system: one g++ command with -I moored.get_include().
#include <moored/moored.hpp>

#include <thread>

namespace {

void call(PyObject* callback) {
  PyObject* result = PyObject_CallNoArgs(callback);
  if (result == nullptr) PyErr_WriteUnraisable(callback);
  Py_XDECREF(result);
}

PyObject* call_from_thread(PyObject*, PyObject* args) {
  PyObject* callback = nullptr;
  int rounds = 0;
  if (!PyArg_ParseTuple(args, "Oi", &callback, &rounds)) return nullptr;
  {
    const moored::detachment detached;
    std::thread([=] {
      for (int i = 0; i < rounds; ++i) {
        {
          const auto attached = moored::attach();
          const PyGILState_STATE inner = PyGILState_Ensure();
          call(callback);
          PyGILState_Release(inner);
        }
        {
          const PyGILState_STATE outer = PyGILState_Ensure();
          {
            const auto attached = moored::attach();
            call(callback);
          }
          PyGILState_Release(outer);
        }
      }
    }).join();
  }
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"call_from_thread", call_from_thread, METH_VARARGS, "Call back from a native thread."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "consumer", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_consumer() {
  moored::open();
  return PyModule_Create(&definition);
}
