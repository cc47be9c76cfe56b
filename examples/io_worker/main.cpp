// io_worker SCRIPT: a plain std::thread reads standard input and tells Python every line.
//
// The script runs on the main thread, has the module `lines`, and gives it a handler:
//
//   import lines
//   lines.on_line(print)   # called on the IO thread
//   lines.wait()           # until standard input ends
#include <moored/moored.hpp>

#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

namespace {

PyObject* handler = nullptr;  // read and written with the GIL held
std::thread reader;

void read_lines() {
  // Reading needs no Python, so the thread attaches per line. Only the first attach makes a thread
  // state; the thread keeps it, so from then on this costs less than the call itself.
  for (std::string line; std::getline(std::cin, line);) {
    const moored::attachment attached = moored::try_attach();
    if (!attached) return;  // Python is shutting down: there is nothing to be told
    PyObject* const result = PyObject_CallFunction(handler, "s", line.c_str());
    if (result == nullptr) PyErr_WriteUnraisable(handler);
    Py_XDECREF(result);
  }
}

PyObject* on_line(PyObject*, PyObject* callable) {
  if (handler != nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "there is a handler already");
    return nullptr;
  }
  handler = Py_NewRef(callable);
  reader = std::thread(read_lines);
  Py_RETURN_NONE;
}

PyObject* wait_for_end(PyObject*, PyObject*) {
  const moored::detachment detached;  // the reader needs the GIL that we hold
  if (reader.joinable()) reader.join();
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"on_line", on_line, METH_O, "Call this with every line, on the IO thread."},
    {"wait", wait_for_end, METH_NOARGS, "Wait until standard input ends."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "lines", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

PyObject* make_lines() {
  return PyModule_Create(&definition);
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* const script = argc == 2 ? std::fopen(argv[1], "r") : nullptr;
  if (script == nullptr) {
    std::fprintf(stderr, "usage: io_worker SCRIPT < LINES\n");
    return 2;
  }
  PyImport_AppendInittab("lines", make_lines);
  Py_Initialize();
  moored::open();
  const int failed = PyRun_SimpleFileEx(script, argv[1], 1);
  Py_FinalizeEx();
  // A script that did not wait leaves a reader behind. It is refused from now on, so let it be.
  if (reader.joinable()) reader.detach();
  return failed == 0 ? 0 : 1;
}
