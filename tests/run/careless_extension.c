/* careless_extension: native code that leaves things behind when it lets go of Python, as published
   extensions do. Its threads are native; where nothing else is said they enter Python by
   PyGILState_Ensure and leave by PyGILState_Release, or as BY_... says (see plain_extension.c). */
#include <Python.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#if defined(BY_VIEW)
static PyInterpreterView* view;
typedef PyThreadStateToken* entry;
static entry enter(void) {
  return PyThreadState_EnsureFromView(view);
}
#define leave PyThreadState_Release
#elif defined(BY_OWN_STATE)
/* As pybind11's gil_scoped_acquire does it: a state of its own for a thread that has none, its
   scopes counted from 0 in the state; since 3.0.2 (BY_OWN_STATE=2) the clearing counts as one. */
typedef PyThreadState* entry;
static _Thread_local PyThreadState* own;
static entry enter(void) {
  PyThreadState* state = own;
  if (state == NULL) state = PyGILState_GetThisThreadState();
  if (state == NULL) {
    own = state = PyThreadState_New(PyInterpreterState_Main());
    state->gilstate_counter = 0;
  }
  PyEval_AcquireThread(state);
  ++state->gilstate_counter;
  return state;
}
static void leave(entry state) {
  if (--state->gilstate_counter == 0) {
    state->gilstate_counter += BY_OWN_STATE - 1;
    PyThreadState_Clear(state);
    state->gilstate_counter -= BY_OWN_STATE - 1;
    PyThreadState_DeleteCurrent();
    own = NULL;
  } else {
    PyEval_SaveThread();
  }
}
#else
typedef PyGILState_STATE entry;
#define enter PyGILState_Ensure
#define leave PyGILState_Release
#endif

static PyObject* callback;
static long times;
static long failed;
static sem_t called, may_end;
static pthread_t staying;

static void call_and_ignore(void) {
  const entry begun = enter();
  PyObject* const result = PyObject_CallNoArgs(callback);
  if (result == NULL) ++failed; /* and no PyErr_Clear */
  Py_XDECREF(result);
  leave(begun);
}

static void* call_often(void* unused) {
  (void)unused;
  for (long at = 0; at < times; ++at) call_and_ignore();
  return NULL;
}

static void note(PyObject* called_back, long how_often) {
#ifdef BY_VIEW
  if (view == NULL) view = PyInterpreterView_FromCurrent();
#endif
  Py_XSETREF(callback, Py_NewRef(called_back));
  times = how_often;
  failed = 0;
}

static void run(void* (*work)(void*), void* argument) {
  Py_BEGIN_ALLOW_THREADS;
  pthread_t thread;
  if (pthread_create(&thread, NULL, work, argument) == 0) pthread_join(thread, NULL);
  Py_END_ALLOW_THREADS;
}

/* call(callback, times): how many of the calls failed. */
static PyObject* call(PyObject* self, PyObject* arguments) {
  (void)self;
  PyObject* called_back;
  long how_often;
  if (!PyArg_ParseTuple(arguments, "Ol", &called_back, &how_often)) return NULL;
  note(called_back, how_often);
  run(call_often, NULL);
  return PyLong_FromLong(failed);
}

/* The same on the calling thread, which Python made; raises what the last call has left. */
static PyObject* call_here(PyObject* self, PyObject* called_back) {
  (void)self;
  note(called_back, 1);
  Py_BEGIN_ALLOW_THREADS;
  call_and_ignore();
  Py_END_ALLOW_THREADS;
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

static void* call_and_stay(void* unused) {
  (void)unused;
  for (;;) {
    call_and_ignore();
    sem_post(&called);
    while (sem_wait(&may_end) != 0) {
    }
    if (times-- == 0) return NULL;
  }
}

/* start(callback): calls once, and has returned from it when this returns. */
static PyObject* start(PyObject* self, PyObject* called_back) {
  (void)self;
  note(called_back, 0);
  sem_init(&called, 0, 0);
  sem_init(&may_end, 0, 0);
  Py_BEGIN_ALLOW_THREADS;
  if (pthread_create(&staying, NULL, call_and_stay, NULL) != 0) abort();
  while (sem_wait(&called) != 0) {
  }
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

/* again(): the same thread calls once more; end(): it ends. */
static PyObject* again(PyObject* self, PyObject* unused) {
  (void)self, (void)unused;
  Py_BEGIN_ALLOW_THREADS;
  times = 1;
  sem_post(&may_end);
  while (sem_wait(&called) != 0) {
  }
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}
static PyObject* end(PyObject* self, PyObject* unused) {
  (void)self, (void)unused;
  Py_BEGIN_ALLOW_THREADS;
  sem_post(&may_end);
  pthread_join(staying, NULL);
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

/* Enters three times, and each time again within that call: whether the outer call's exception is
   still set when the inner ones have left. */
static void* enter_within(void* stays_set) {
  for (int at = 0; at < 3; ++at) {
    const entry outer = enter();
    PyErr_SetString(PyExc_ValueError, "of the outer call");
#if !defined(BY_OWN_STATE)
    leave(enter());
#endif
    PyThreadState* const me = PyEval_SaveThread();
    leave(enter());
    PyEval_RestoreThread(me);
    ((char*)stays_set)[at] = PyErr_ExceptionMatches(PyExc_ValueError) ? 'y' : 'n';
    PyErr_Clear();
    leave(outer);
  }
  return NULL;
}
static PyObject* nested(PyObject* self, PyObject* unused) {
  (void)self, (void)unused;
  char stays_set[4] = "";
#ifdef BY_VIEW
  if (view == NULL) view = PyInterpreterView_FromCurrent();
#endif
  run(enter_within, stays_set);
  return PyUnicode_FromString(stays_set);
}

static PyMethodDef methods[] = {{"call", call, METH_VARARGS, ""},
                                {"call_here", call_here, METH_O, ""},
                                {"start", start, METH_O, ""},
                                {"again", again, METH_NOARGS, ""},
                                {"end", end, METH_NOARGS, ""},
                                {"nested", nested, METH_NOARGS, ""},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "careless_extension", NULL, -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit_careless_extension(void) {
  return PyModule_Create(&definition);
}
