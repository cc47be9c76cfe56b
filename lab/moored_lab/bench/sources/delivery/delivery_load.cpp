// delivery_load.cpp: native senders for `moored bench delivery`: each event into a channel, or into
// any Python callable from a temporary or a kept state.
#include <moored/moored.hpp>

#include <time.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using payload = std::array<std::byte, 64>;
using clock_type = std::chrono::steady_clock;

[[nodiscard]] std::int64_t cpu_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

[[nodiscard]] std::int64_t now_ns() noexcept {
  return clock_type::now().time_since_epoch().count();
}

/// An event that tells when it was due, as a number or as 64 bytes.
template <class T>
[[nodiscard]] T event_of(std::int64_t due) noexcept {
  if constexpr (std::is_same_v<T, payload>) {
    payload made{};
    std::memcpy(made.data(), &due, sizeof due);
    return made;
  } else {
    return due;
  }
}

// -- what one send costs --------------------------------------------------------------------------

/// Nanoseconds of CPU that each of `count` calls of push() takes, from so many threads at once.
template <class Push>
double cpu_per_push(int senders, int count, Push push) {
  std::atomic<bool> go = false;
  std::vector<std::thread> threads;
  for (int sender = 0; sender < senders; ++sender) {
    threads.emplace_back([&] {
      while (!go) std::this_thread::yield();
      for (int i = 0; i < count; ++i) push(i);
    });
  }
  const std::int64_t before = cpu_ns();
  go = true;
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(cpu_ns() - before) / (static_cast<double>(senders) * count);
}

/// The queue that a channel is measured against: a mutex and a vector, with nothing else.
template <class T>
struct plain_queue {
  std::mutex mutex;
  std::vector<T> events;
  void push(T event) {
    const std::lock_guard lock(mutex);
    events.push_back(event);
  }
};

template <class T>
PyObject* send_cost(int senders, int count) {
  const auto all = static_cast<std::size_t>(senders) * static_cast<std::size_t>(count);
  double plain_ns = 0;
  double channel_ns = 0;
  std::uint64_t queued = 0;
  {
    const moored::detachment detached;
    plain_queue<T> plain;
    moored::channel<T> channel({.capacity = all, .by = moored::delivery::poll});
    // Twice, so that the memory is there: what is measured is the queue, not page faults.
    for (int turn = 0; turn < 2; ++turn) {
      plain.events.clear();
      plain_ns = cpu_per_push(senders, count, [&](int i) { plain.push(event_of<T>(i)); });
    }
    channel_ns = cpu_per_push(senders, count, [&](int i) { channel.send(event_of<T>(i)); });
    (void)channel.take_native();
    channel_ns = cpu_per_push(senders, count, [&](int i) { channel.send(event_of<T>(i)); });
    queued = channel.stats().sent - all;
  }
  return Py_BuildValue("(ddK)", plain_ns, channel_ns,
                       static_cast<unsigned long long>(all - queued));
}

PyObject* send_ns(PyObject*, PyObject* arguments) {
  int senders = 0;
  int wide = 0;
  int count = 0;
  if (!PyArg_ParseTuple(arguments, "ipi", &senders, &wide, &count)) return nullptr;
  return wide ? send_cost<payload>(senders, count) : send_cost<std::int64_t>(senders, count);
}

// -- what a batch of 64 costs
// -----------------------------------------------------------------------

constexpr int batch = 64;

/// What a channel has to do, by hand and with nothing else.
PyObject* ideal_batch(plain_queue<std::int64_t>& queue, std::vector<std::int64_t>& taken,
                      PyObject* handler) {
  for (int i = 0; i < batch; ++i) queue.push(i);
  taken.clear();
  {
    const std::lock_guard lock(queue.mutex);
    taken.swap(queue.events);
  }
  PyObject* const list = PyList_New(static_cast<Py_ssize_t>(taken.size()));
  if (list == nullptr) return nullptr;
  for (std::size_t i = 0; i < taken.size(); ++i)
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(taken[i]));
  PyObject* const result = PyObject_CallOneArg(handler, list);
  Py_DECREF(list);
  return result;
}

PyObject* batch_ns(PyObject*, PyObject* arguments) {
  PyObject* handler = nullptr;
  int batches = 0;
  if (!PyArg_ParseTuple(arguments, "Oi", &handler, &batches)) return nullptr;
  plain_queue<std::int64_t> queue;
  std::vector<std::int64_t> taken;
  moored::channel<std::int64_t> channel({.by = moored::delivery::poll});
  channel.on_batch(handler);
  const auto per_event = [&](std::int64_t since) {
    return static_cast<double>(cpu_ns() - since) / (static_cast<double>(batches) * batch);
  };
  for (int i = 0; i < 100; ++i) {
    Py_XDECREF(ideal_batch(queue, taken, handler));
    for (int n = 0; n < batch; ++n) channel.send(n);
    while (channel.deliver()) {
    }
  }
  std::int64_t since = cpu_ns();
  for (int i = 0; i < batches; ++i) {
    PyObject* const result = ideal_batch(queue, taken, handler);
    if (result == nullptr) return nullptr;
    Py_DECREF(result);
  }
  const double ideal = per_event(since);
  since = cpu_ns();
  for (int i = 0; i < batches; ++i) {
    for (int n = 0; n < batch; ++n) channel.send(n);
    while (channel.deliver()) {
    }
  }
  const double ours = per_event(since);
  channel.on_batch(nullptr);
  return Py_BuildValue("(dd)", ideal, ours);
}

// -- a load ---------------------------------------------------------------------------------------

enum class way { ensure, kept, channel };

struct load {
  PyObject_HEAD;
  std::unique_ptr<moored::channel<std::int64_t>> numbers;
  std::unique_ptr<moored::channel<payload>> wide;
  std::vector<std::thread> threads;
  std::atomic<std::uint64_t> sent;
  std::atomic<std::uint64_t> done;
  std::atomic<bool> stop;
};

constexpr std::uint64_t outstanding = 1024;

load* as_load(PyObject* self) noexcept {
  return reinterpret_cast<load*>(self);
}

/// One sender's work: every event by `give`, at `gap_ns`, or, if that is 0, as fast as at most 1024
/// unhandled ones allow.
template <class Give>
void send_all(load& me, std::int64_t gap_ns, Give give) {
  std::int64_t due = now_ns();
  while (!me.stop.load(std::memory_order_relaxed)) {
    if (gap_ns != 0) {
      due += gap_ns;
      if (due > now_ns()) {
        const timespec at{.tv_sec = due / 1'000'000'000, .tv_nsec = due % 1'000'000'000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
      }
    } else {
      while (me.sent.load() - me.done.load() >= outstanding && !me.stop) std::this_thread::yield();
      due = now_ns();
    }
    if (me.stop) return;
    me.sent.fetch_add(1);
    if (!give(due)) return;
  }
}

/// Calls target(*before, event). Attached.
bool call(PyObject* target, PyObject* before, std::int64_t due, bool wide) {
  PyObject* event = nullptr;
  if (wide) {
    auto made = event_of<payload>(due);
    event = moored::converter<payload>::to_python(std::move(made));
  } else {
    event = PyLong_FromLongLong(due);
  }
  PyObject* const result = event == nullptr ? nullptr
                           : before == Py_None
                               ? PyObject_CallOneArg(target, event)
                               : PyObject_CallFunctionObjArgs(target, before, event, nullptr);
  if (result == nullptr) PyErr_WriteUnraisable(target);
  Py_XDECREF(event);
  const bool fine = result != nullptr;
  Py_XDECREF(result);
  return fine;
}

PyObject* start(PyObject* self, PyObject* arguments) {
  const char* name = nullptr;
  PyObject* target = nullptr;
  PyObject* before = nullptr;
  int senders = 0;
  int wide = 0;
  double rate = 0;
  if (!PyArg_ParseTuple(arguments, "sOOipd", &name, &target, &before, &senders, &wide, &rate))
    return nullptr;
  load& me = *as_load(self);
  const std::string_view named = name;
  const way how = named == "ensure" ? way::ensure : named == "kept" ? way::kept : way::channel;
  const auto gap = rate > 0 ? static_cast<std::int64_t>(1e9 * senders / rate) : 0;
  Py_INCREF(target);  // for ever: the process ends with its measurement
  Py_INCREF(before);
  for (int sender = 0; sender < senders; ++sender) {
    me.threads.emplace_back([&me, how, target, before, wide, gap] {
      switch (how) {
        case way::channel:
          if (wide != 0) {
            send_all(me, gap, [&](std::int64_t due) {
              return me.wide->send(event_of<payload>(due)) == moored::sent::queued;
            });
          } else {
            send_all(me, gap, [&](std::int64_t due) {
              return me.numbers->send(due) == moored::sent::queued;
            });
          }
          return;
        case way::ensure:
          send_all(me, gap, [&](std::int64_t due) {
            const PyGILState_STATE token = PyGILState_Ensure();
            const bool fine = call(target, before, due, wide != 0);
            PyGILState_Release(token);
            return fine;
          });
          return;
        case way::kept:
          send_all(me, gap, [&](std::int64_t due) {
            const moored::attachment attached = moored::try_attach();
            return attached && call(target, before, due, wide != 0);
          });
          return;
      }
    });
  }
  Py_RETURN_NONE;
}

PyObject* capsule(PyObject* self, PyObject* wide) {
  return PyObject_IsTrue(wide) ? as_load(self)->wide->capsule() : as_load(self)->numbers->capsule();
}

PyObject* done(PyObject* self, PyObject* count) {
  as_load(self)->done.fetch_add(PyLong_AsUnsignedLongLong(count));
  Py_RETURN_NONE;
}

PyObject* counts(PyObject* self, PyObject*) {
  return Py_BuildValue("(KK)", static_cast<unsigned long long>(as_load(self)->sent.load()),
                       static_cast<unsigned long long>(as_load(self)->done.load()));
}

PyObject* stop(PyObject* self, PyObject*) {
  as_load(self)->stop = true;
  Py_RETURN_NONE;
}

PyObject* join(PyObject* self, PyObject*) {
  load& me = *as_load(self);
  me.stop = true;
  const moored::detachment detached;
  me.numbers->close();
  me.wide->close();
  for (std::thread& thread : me.threads) thread.join();
  me.threads.clear();
  Py_RETURN_NONE;
}

PyObject* make(PyTypeObject* type, PyObject*, PyObject*) {
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  load& me = *as_load(self);
  const moored::channel_options options{.name = "bench", .by = moored::delivery::wake};
  new (&me.numbers) auto(std::make_unique<moored::channel<std::int64_t>>(options));
  new (&me.wide) auto(std::make_unique<moored::channel<payload>>(options));
  new (&me.threads) std::vector<std::thread>();
  return self;
}

PyMethodDef load_methods[] = {
    {"start", start, METH_VARARGS, "start(way, target, before, senders, wide, rate)"},
    {"capsule", capsule, METH_O, "The channel of 64 bytes, or of numbers."},
    {"done", done, METH_O, "So many events have been handled."},
    {"counts", counts, METH_NOARGS, "Events sent and handled."},
    {"stop", stop, METH_NOARGS, "Ask the senders to end."},
    {"join", join, METH_NOARGS, "End and join the senders."},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot load_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(make)},
    {Py_tp_methods, load_methods},
    {0, nullptr},
};

// Never freed: the process ends with its measurement.
PyType_Spec load_spec{"delivery_load.Load", sizeof(load), 0, Py_TPFLAGS_DEFAULT, load_slots};

PyMethodDef methods[] = {
    {"send_ns", send_ns, METH_VARARGS, "send_ns(senders, wide, count) -> plain, channel, lost"},
    {"batch_ns", batch_ns, METH_VARARGS, "batch_ns(handler, batches) -> ideal, channel"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module{PyModuleDef_HEAD_INIT,
                   "delivery_load",
                   nullptr,
                   -1,
                   methods,
                   nullptr,
                   nullptr,
                   nullptr,
                   nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_delivery_load() {
  if (!moored::open()) return nullptr;
  PyObject* const made = PyModule_Create(&module);
  PyObject* const type = PyType_FromSpec(&load_spec);
  if (made == nullptr || type == nullptr || PyModule_AddObject(made, "Load", type) != 0)
    return nullptr;
  return made;
}
