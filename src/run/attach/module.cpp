// module.cpp: moored._attach, which `moored doctor attach` has a running process import.
//
// It is imported by a path, from a script that the process's main thread runs, and stays mapped
// until the process ends. All functions: attached to the main interpreter, which orders them.
#include "../preload/weak_python.hpp"

#include <Python.h>

#include <string>

#include "../preload/writing.hpp"
#include "../recorder/recorder.hpp"
#include "hooks.hpp"

namespace moored::run {

namespace {

/// What the recorder would have said on stderr: that is the program's here, so the doctor says it.
std::string& said() {
  static std::string& text = *new std::string;
  return text;
}

PyObject* begin(PyObject*, PyObject* words) {
  const char *path = nullptr, *command = nullptr;
  if (PyArg_ParseTuple(words, "ss", &path, &command) == 0) return nullptr;
  said().clear();
  recorder::start(path, command, false, false, true);
  if (!recorder::is_on.load(std::memory_order_relaxed)) {
    PyErr_SetString(PyExc_RuntimeError, said().c_str());
    return nullptr;
  }
  recorder::meet_python(Py_GetVersion());
  return PyLong_FromSize_t(redirect(attach::hooks()));
}

PyObject* look_again(PyObject*, PyObject*) {
  if (!recorder::is_on.load(std::memory_order_relaxed)) return PyLong_FromLong(0);
  recorder::meet_modules();
  return PyLong_FromSize_t(redirect(attach::hooks()));
}

PyObject* end(PyObject*, PyObject*) {
  const std::size_t changed = take_back(attach::hooks());
  recorder::stop();
  return PyLong_FromSize_t(changed);
}

PyObject* is_recording(PyObject*, PyObject*) {
  return PyBool_FromLong(static_cast<long>(recorder::is_on.load(std::memory_order_relaxed)));
}

[[gnu::destructor]] void at_exit() {
  recorder::end();
}

PyMethodDef functions[] = {
    {"begin", begin, METH_VARARGS,
     "Record into a file of this name with the process's number behind it, and redirect "
     "references; "
     "return how many."},
    {"look_again", look_again, METH_NOARGS,
     "Redirect the references of what was loaded since; return how many."},
    {"end", end, METH_NOARGS, "Take it all back; return how many references."},
    {"is_recording", is_recording, METH_NOARGS, "Say whether the process is recorded."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
    {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "moored._attach",
                          "Records a process that is already running.",
                          0,
                          functions,
                          slots,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

void say(std::string_view text) noexcept {
  said() = text;
}

}  // namespace moored::run

PyMODINIT_FUNC PyInit__attach() {
  return PyModuleDef_Init(&moored::run::definition);
}
