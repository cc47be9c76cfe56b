// lab/native/server/handler.cpp: calling the Python handler for one event, or for all that are
// queued.
#include "handler.hpp"

#include <string>

namespace moored::lab {

namespace {

[[nodiscard]] PyObject* call_for_frame(PyObject* function, const event& what) {
  PyObject* sequence = PyLong_FromUnsignedLongLong(what.sequence);
  if (sequence == nullptr) return nullptr;
  PyObject* result = PyObject_CallOneArg(function, sequence);
  Py_DECREF(sequence);
  return result;
}

// Latin-1, because a path is bytes and every byte is a Latin-1 character.
[[nodiscard]] PyObject* text(const std::string& bytes) {
  return PyUnicode_DecodeLatin1(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), nullptr);
}

[[nodiscard]] PyObject* call_for_request(PyObject* function, const event& what) {
  // "N" hands our references over, and passes a failed conversion on as an error.
  return PyObject_CallFunction(function, "NNK", text(what.request->method()),
                               text(what.request->path()),
                               static_cast<unsigned long long>(what.sequence));
}

}  // namespace

handler::handler(PyObject* on_frame, PyObject* on_request)
    : on_frame_(on_frame), on_request_(on_request) {
  Py_INCREF(on_frame_);
  Py_INCREF(on_request_);
}

handler::~handler() {
  Py_DECREF(on_frame_);
  Py_DECREF(on_request_);
}

void handler::run(event& what, event_stats& mine) const {
  mine.deliver(what);
  PyObject* function = what.request ? on_request_ : on_frame_;
  PyObject* result =
      what.request ? call_for_request(function, what) : call_for_frame(function, what);
  char* bytes = nullptr;
  Py_ssize_t size = 0;
  const bool fine =
      result != nullptr && (!what.request || PyBytes_AsStringAndSize(result, &bytes, &size) == 0);
  if (!fine) PyErr_WriteUnraisable(function);
  if (what.request) {
    if (fine)
      what.request->answer(200, std::string(bytes, static_cast<std::size_t>(size)));
    else
      what.request->answer(500, "the handler failed\n");
  }
  Py_XDECREF(result);
}

void handler::run_queued(event_queue& queue, std::vector<event>& batch, event_stats& mine) const {
  queue.take(batch);
  if (batch.empty()) return;
  mine.enter();
  for (event& e : batch) run(e, mine);
  batch.clear();
}

}  // namespace moored::lab
