/* embedding: a program with Python in it. Its native thread calls back three times; with the
   argument "again", in two lives of the interpreter. */
#include <Python.h>
#include <pthread.h>

static PyObject* callback;

static void* call_three_times(void* unused) {
  (void)unused;
  for (int at = 0; at < 3; ++at) {
    const PyGILState_STATE token = PyGILState_Ensure();
    PyObject* const result = PyObject_CallNoArgs(callback);
    if (result == NULL) PyErr_Print();
    Py_XDECREF(result);
    PyGILState_Release(token);
  }
  return NULL;
}

static int live(void) {
  Py_Initialize();
  if (PyRun_SimpleString("import threading\n"
                         "here = threading.local()\n"
                         "def visit():\n"
                         "    here.visits = getattr(here, 'visits', 0) + 1\n"
                         "    print(here.visits, flush=True)\n") != 0)
    return 1;
  callback = PyObject_GetAttrString(PyImport_AddModule("__main__"), "visit");
  PyThreadState* const main_state = PyEval_SaveThread();
  pthread_t thread;
  int failed = pthread_create(&thread, NULL, call_three_times, NULL);
  if (!failed) failed = pthread_join(thread, NULL);
  PyEval_RestoreThread(main_state);
  Py_CLEAR(callback);
  return Py_FinalizeEx() != 0 || failed;
}

int main(int count, char** words) {
  (void)words;
  if (live() != 0) return 1;
  return count > 1 ? live() : 0;
}
