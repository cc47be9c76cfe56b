/* An extension in C: its pthread nests moored_attach and PyGILState_Ensure both ways. It has the
 * chunk cache, too. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <moored/moored.h>
#include <pthread.h>

typedef struct job {
  PyObject* callback;
  int rounds;
  moored_status status; /* of the first attach that was refused */
} job;

static void call(PyObject* callback) {
  PyObject* result = PyObject_CallNoArgs(callback);
  if (result == NULL) PyErr_WriteUnraisable(callback);
  Py_XDECREF(result);
}

static void* work(void* argument) {
  job* todo = argument;
  moored_attachment attached;
  for (int i = 0; i < todo->rounds && todo->status == MOORED_OK; ++i) {
    todo->status = moored_attach(&attached);
    if (todo->status != MOORED_OK) break;
    PyGILState_STATE inner = PyGILState_Ensure();
    call(todo->callback);
    PyGILState_Release(inner);
    moored_detach(&attached);

    PyGILState_STATE outer = PyGILState_Ensure();
    todo->status = moored_attach(&attached);
    if (todo->status == MOORED_OK) call(todo->callback);
    moored_detach(&attached);
    PyGILState_Release(outer);
  }
  return NULL;
}

static PyObject* call_from_thread(PyObject* module, PyObject* args) {
  (void)module;
  job todo = {NULL, 0, MOORED_OK};
  if (!PyArg_ParseTuple(args, "Oi", &todo.callback, &todo.rounds)) return NULL;
  pthread_t thread;
  int failed = pthread_create(&thread, NULL, work, &todo);
  if (failed == 0) {
    Py_BEGIN_ALLOW_THREADS
    pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS
  }
  if (failed != 0 || todo.status != MOORED_OK) {
    PyErr_SetString(PyExc_RuntimeError, failed ? "no thread" : moored_describe(todo.status));
    return NULL;
  }
  Py_RETURN_NONE;
}

static PyObject* install(PyObject* module, PyObject* args) {
  (void)module, (void)args;
  return PyLong_FromLong(moored_install());
}

static PyObject* chunk_hits(PyObject* module, PyObject* args) {
  (void)module, (void)args;
  return PyLong_FromUnsignedLongLong(moored_stats_of_chunks().hits);
}

static PyMethodDef methods[] = {
    {"call_from_thread", call_from_thread, METH_VARARGS, "Call back from a native thread."},
    {"install", install, METH_NOARGS, "Put the chunk cache in place."},
    {"chunk_hits", chunk_hits, METH_NOARGS, "How often it has served."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "consumer", .m_size = -1,
                                 .m_methods = methods};

PyMODINIT_FUNC PyInit_consumer(void) {
  if (moored_open() != MOORED_OK) return NULL;
  return PyModule_Create(&definition);
}
