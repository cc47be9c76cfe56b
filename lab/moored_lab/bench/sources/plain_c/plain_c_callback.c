// plain_c_callback.c: the callback of an extension in C, by CPython's own calls.
#include <Python.h>

static void call(void* callable) {
  const PyGILState_STATE state = PyGILState_Ensure();
  PyObject* const result = PyObject_CallNoArgs(callable);
  if (result == NULL) PyErr_WriteUnraisable(callable);
  Py_XDECREF(result);
  PyGILState_Release(state);
}

/// The callable lives from now on for as long as the process.
static PyObject* make(PyObject* module, PyObject* callable) {
  (void)module;
  PyObject* const function = PyLong_FromVoidPtr((void*)call);
  PyObject* const context = PyLong_FromVoidPtr(Py_NewRef(callable));
  return Py_BuildValue("NN", function, context);
}

static PyMethodDef functions[] = {{"make", make, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "plain_c_callback",
                                        .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit_plain_c_callback(void) {
  return PyModule_Create(&definition);
}
