/* plain_extension: an extension in plain C. call_many(callback, times) calls from a thread of its
   own, each time by PyGILState_Ensure and Release, or as BY_... says. */
#include <Python.h>
#include <pthread.h>

struct work {
  PyObject* call;
  long times;
};

#if defined(BY_VIEW) || defined(BY_GUARD)
static PyInterpreterView* view;
typedef struct {
  PyThreadStateToken* token;
  PyInterpreterGuard* guard;
} entry;
static entry enter(void) {
  entry begun = {NULL, NULL};
#ifdef BY_VIEW
  begun.token = PyThreadState_EnsureFromView(view);
#else
  begun.guard = PyInterpreterGuard_FromView(view);
  begun.token = PyThreadState_Ensure(begun.guard);
#endif
  return begun;
}
static void leave(entry begun) {
  PyThreadState_Release(begun.token);
  if (begun.guard != NULL) PyInterpreterGuard_Close(begun.guard);
}
#elif defined(BY_OWN_STATE)
/* As pybind11's gil_scoped_acquire does it: a state of its own for a thread that has none, its
   scopes counted from 0 in the state. */
typedef PyThreadState* entry;
static entry enter(void) {
  PyThreadState* state = PyGILState_GetThisThreadState();
  if (state == NULL) {
    state = PyThreadState_New(PyInterpreterState_Main());
    state->gilstate_counter = 0;
  }
  PyEval_AcquireThread(state);
  ++state->gilstate_counter;
  return state;
}
static void leave(entry state) {
  if (--state->gilstate_counter != 0) {
    PyEval_SaveThread();
  } else {
    PyThreadState_Clear(state);
    PyThreadState_DeleteCurrent();
  }
}
#else
typedef PyGILState_STATE entry;
#ifdef BY_POINTER
/* The address is in the data, and is filled in when the extension is loaded. */
static PyGILState_STATE (*volatile const enter)(void) = PyGILState_Ensure;
#else
#define enter PyGILState_Ensure
#endif
#define leave PyGILState_Release
#endif

static void* call_many(void* argument) {
  const struct work* const work = argument;
  for (long at = 0; at < work->times; ++at) {
    const entry begun = enter();
    PyObject* const result = PyObject_CallNoArgs(work->call);
    if (result == NULL) PyErr_WriteUnraisable(work->call);
    Py_XDECREF(result);
    leave(begun);
  }
  return NULL;
}

static PyObject* start_and_join(PyObject* self, PyObject* arguments) {
  (void)self;
  struct work work;
  if (!PyArg_ParseTuple(arguments, "Ol", &work.call, &work.times)) return NULL;
#if defined(BY_VIEW) || defined(BY_GUARD)
  view = PyInterpreterView_FromCurrent();
#endif
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
