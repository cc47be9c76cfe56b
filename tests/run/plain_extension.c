/* plain_extension: an extension in plain C. call_many(callback, times) calls from a thread of its
   own, each time by PyGILState_Ensure and Release. */
#include <Python.h>
#include <pthread.h>

struct work {
  PyObject* call;
  long times;
};

#ifdef BY_POINTER
/* The address is in the data, and is filled in when the extension is loaded. */
static PyGILState_STATE (*volatile const ensure)(void) = PyGILState_Ensure;
#else
#define ensure PyGILState_Ensure
#endif

static void* call_many(void* argument) {
  const struct work* const work = argument;
  for (long at = 0; at < work->times; ++at) {
    const PyGILState_STATE token = ensure();
    PyObject* const result = PyObject_CallNoArgs(work->call);
    if (result == NULL) PyErr_WriteUnraisable(work->call);
    Py_XDECREF(result);
    PyGILState_Release(token);
  }
  return NULL;
}

static PyObject* start_and_join(PyObject* self, PyObject* arguments) {
  (void)self;
  struct work work;
  if (!PyArg_ParseTuple(arguments, "Ol", &work.call, &work.times)) return NULL;
  int failed = 0;
  Py_BEGIN_ALLOW_THREADS;
  pthread_t thread;
  failed = pthread_create(&thread, NULL, call_many, &work);
  if (!failed) failed = pthread_join(thread, NULL);
  Py_END_ALLOW_THREADS;
  return PyBool_FromLong(!failed);
}

static PyMethodDef methods[] = {{"call_many", start_and_join, METH_VARARGS, ""},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "native_extension", NULL, -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_native_extension(void) {
  return PyModule_Create(&definition);
}
