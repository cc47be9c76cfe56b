// ending.hpp: native threads that enter, or end, while the interpreter does.
#pragma once

#include "ways.hpp"

#include <atomic>
#include <chrono>
#include <mutex>

namespace {

std::atomic<bool> was_ended{false};

/// Says that its thread was ended, if the scope is left by unwinding.
struct obituary {
  bool alive = false;
  ~obituary() {
    if (alive) return;
    say("the thread is ended in PyGILState_Ensure");
    was_ended = true;
  }
};

void enter_late(std::string_view way) {
  obituary thread;
  enter(way, [] {
    PyObject* const module = PyImport_ImportModule("colorsys");
    say(module != nullptr ? "enters" : "enters a half torn-down interpreter: import fails");
    if (module == nullptr) PyErr_Clear();
    Py_XDECREF(module);
  });
  thread.alive = true;
}

void enter_late_from_noexcept(std::string_view way) noexcept {
  enter_late(way);
}

/// Waits for a thread that enters late, which may also be ended.
void wait_for(std::binary_semaphore& done) {
  if (!comes([&] { return done.try_acquire() || was_ended; }))
    say("the thread hangs in PyGILState_Ensure");
}

/// Called while the interpreter is being finalised: a thread enters from a noexcept function.
PyObject* enter_from_noexcept(PyObject*, PyObject* way) {
  static std::binary_semaphore done{0};
  const char* const name = PyUnicode_AsUTF8(way);
  const without_gil detached;
  std::thread([name] {
    enter_late_from_noexcept(name);
    done.release();
  }).detach();
  wait_for(done);
  while (was_ended) pause();  // it takes the process along
  return detached.none();
}

/// The same, with a lock held, and joined.
PyObject* enter_and_be_joined(PyObject*, PyObject* way) {
  static std::mutex lock;
  const char* const name = PyUnicode_AsUTF8(way);
  const without_gil detached;
  std::thread([name] {
    const std::lock_guard held(lock);
    enter_late(name);
  }).join();
  const std::lock_guard held(lock);
  say("joined");
  return detached.none();
}

/// A thread looks whether the interpreter is finalising, and enters when enter_now() says so.
PyObject* look_then_enter(PyObject*, PyObject*) {
  const without_gil detached;
  std::thread([] {
    // Py_IsFinalizing(), by the name that it has in this version.
    say(moored::cpython::is_finalizing() ? "finalising" : "Py_IsFinalizing() says no");
    started.release();
    go.acquire();
    enter_late("stock");
    went.release();
  }).detach();
  started.acquire();
  return detached.none();
}

PyObject* enter_now(PyObject*, PyObject*) {
  const without_gil detached;
  go.release();
  wait_for(went);
  return detached.none();
}

/// A thread that moored let in is outside the GIL until shutdown has begun, and calls then.
PyObject* be_inside_when_it_closes(PyObject*, PyObject* callable) {
  Py_INCREF(callable);  // for ever: threads may outlive every owner
  const without_gil detached;
  std::thread([callable] {
    const moored::attachment attached = moored::attach();
    {
      const moored::detachment outside;
      started.release();
      go.acquire();
    }
    call(callable);
  }).detach();
  started.acquire();
  std::thread([] {  // is refused as soon as the gate has closed
    while (moored::try_attach()) std::this_thread::yield();
    go.release();
  })
      .detach();
  return detached.none();
}

/// A thread that has entered once idles for ever, in the stock way with an interpreter guard.
PyObject* idle_with_guard(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  const without_gil detached;
  std::thread([stock] {
    const auto idle = [] {
      started.release();
      for (;;) pause();
    };
    if (stock) {
      // PyInterpreterGuard_FromView, where there is one.
      [[maybe_unused]] const moored::cpython::interpreter_guard guard;
      enter("hoarded", [] {});
      idle();
    }
    enter("moored", [] {});
    idle();
  }).detach();
  started.acquire();
  return detached.none();
}

void release_kept(void* state) {
  PyEval_RestoreThread(static_cast<PyThreadState*>(state));
  PyGILState_Release(PyGILState_UNLOCKED);
}

/// A thread's state is freed by the destructor of a pthread key.
PyObject* free_by_key(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  pthread_key_t key{};
  if (pthread_key_create(&key, release_kept) != 0) return PyErr_NoMemory();
  const without_gil detached;
  std::thread([&] {
    if (!stock) {
      enter("moored", [] {});
      return;
    }
    (void)PyGILState_Ensure();
    pthread_setspecific(key, PyEval_SaveThread());
  }).join();
  return detached.none();
}

struct frees_in_destructor {
  PyThreadState* state = nullptr;
  ~frees_in_destructor() {
    if (state != nullptr) release_kept(state);
  }
};

/// A thread that keeps a state ends when end_now() says so.
PyObject* keep_and_wait(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  const without_gil detached;
  the_idle_thread = std::thread([stock] {
    thread_local frees_in_destructor mine;
    if (stock) {
      (void)PyGILState_Ensure();
      mine.state = PyEval_SaveThread();
    } else {
      enter("moored", [] {});
    }
    started.release();
    go.acquire();
  });
  started.acquire();
  return detached.none();
}

PyObject* end_now(PyObject*, PyObject*) {
  const without_gil detached;
  go.release();
  the_idle_thread.join();
  say("joined");
  return detached.none();
}

/// A thread that keeps a state ends while this thread joins it, with the GIL held.
PyObject* join_with_gil_held(PyObject*, PyObject* way) {
  const bool stock = is_stock(way);
  std::thread thread([stock] {
    thread_local frees_in_destructor mine;
    const PyGILState_STATE token = PyGILState_Ensure();
    if (stock) {
      mine.state = PyEval_SaveThread();
    } else {
      moored::keep_thread();  // as in a callback of code that knows nothing of moored
      PyGILState_Release(token);
    }
    started.release();
    go.acquire();
  });
  {
    const without_gil detached;
    started.acquire();
  }
  go.release();
  thread.join();
  say("joined");
  Py_RETURN_NONE;
}

}  // namespace
