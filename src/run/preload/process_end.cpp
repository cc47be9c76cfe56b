// process_end.cpp: see process_end.hpp.
//
// Without moored what a call keeps in threading.local is finalised when the call returns. Kept, it
// is finalised when its thread ends, or Python does. A process that ends by os._exit (as every
// child of multiprocessing does that was forked), by the C library's exit(), or by os.exec* sees
// neither: files would stay incomplete. So it is done here, before.
#include "weak_python.hpp"

#include "process_end.hpp"

#include <moored/detail/own_thread.hpp>
#include <moored/detail/states/adopted.hpp>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>

#include "next.hpp"
#include "process.hpp"

namespace moored::run {

namespace {

using locals = cpython::state_contents::thread_locals;

constinit next_function<void(int)> next_exit("exit");
constinit next_function<void(int)> next_quick_exit("_exit");

[[gnu::constructor]] void find() {
  (void)next_exit.find();
  (void)next_quick_exit.find();
}

/// How long exit() waits, on a thread that is not attached, for the GIL and for the finalisers.
constexpr std::chrono::seconds longest_wait{1};

/// Python is there, and threads keep states in it. The gate may be shut already: from 3.14 on a
/// forked child of multiprocessing calls what atexit has, and then os._exit.
[[nodiscard]] bool are_states_kept() noexcept {
  return cpython::has_gil && this_process().decided() == keeping::on && this_process().is_here() &&
         detail::the_gate.kept.load(std::memory_order_relaxed) != 0 && cpython::is_running();
}

/// A list of what idle threads keep; empty without memory for it. Attached to the main interpreter.
class idle_locals {
 public:
  idle_locals() noexcept {
    std::size_t states = 0;
    detail::the_keepers.for_each_adopted([&states](PyThreadState*) { ++states; });
    all_ = new (std::nothrow) locals[states];
    if (all_ == nullptr) return;
    detail::the_keepers.for_each_adopted([this, states](PyThreadState* state) {
      // The one entry is the keeping.
      if (size_ < states && state != cpython::current() &&
          !cpython::state_contents::is_ensured_by_others(state, 1))
        all_[size_++] = cpython::state_contents::take_locals(state);
    });
  }
  ~idle_locals() { delete[] all_; }
  idle_locals(const idle_locals&) = delete;
  idle_locals& operator=(const idle_locals&) = delete;

  void finalise() {
    for (std::size_t i = 0; i < size_; ++i) {
      Py_XDECREF(all_[i].key);
      Py_XDECREF(all_[i].sentinel);
      if (all_[i].dict != nullptr) cpython::drop_locals(all_[i].dict, detail::adoption_key);
      Py_XDECREF(all_[i].dict);
    }
  }

 private:
  locals* all_ = nullptr;
  std::size_t size_ = 0;
};

/// Attached to the main interpreter.
void finalise_all() noexcept {
  cpython::detail::stop_if_too_late([] {
    PyObject* const pending = PyErr_Occurred() != nullptr ? cpython::take_exception() : nullptr;
    idle_locals().finalise();
    if (pending != nullptr) cpython::set_exception(pending);
  });
}

/// One that waits for another thread to finalise them. Never destroyed: that thread may come late.
struct turn {
  detail::mutex mutex;
  detail::condition changed;
  bool is_over MOORED_GUARDED_BY(mutex) = false;
};

/// On a thread that is not attached: has another one do it. That may find the GIL held for ever, by
/// a thread that waits for this one, so there is a limit.
void have_them_finalised() noexcept {
  auto* const its = new (std::nothrow) turn;
  if (its == nullptr) return;
  try {
    detail::start_own_thread([its] {
      const PyGILState_STATE token = PyGILState_Ensure();
      finalise_all();
      PyGILState_Release(token);
      const detail::locked lock(its->mutex);
      its->is_over = true;
      its->changed.notify_all();
    }).detach();
  } catch (const std::exception&) {
    return;  // no thread, or no memory
  }
  detail::deadline due(longest_wait);
  const detail::locked lock(its->mutex);
  while (!its->is_over && !due.over()) {
    const auto rest = *due.rest();
    if (!its->changed.wait_for(its->mutex, rest)) due.slept(rest);
  }
}

}  // namespace

void finalise_idle_locals(const void* caller) noexcept {
  if (this_process().is_in_python(caller) && are_states_kept() &&
      detail::is_attached_to_main(detail::this_thread))
    finalise_all();
}

extern "C" {

/// By whatever code, for Rust's and Go's programs end by it: a signal's handler may not call it.
MOORED_EXPORT void exit(int code) noexcept {
  if (are_states_kept()) {
    if (detail::is_attached_to_main(detail::this_thread)) {
      finalise_all();
    } else if (!detail::is_attached()) {
      have_them_finalised();
    }
  }
  next_exit.find()(code);
  __builtin_unreachable();
}

MOORED_EXPORT void _exit(int code) {
  finalise_idle_locals(__builtin_return_address(0));
  next_quick_exit.find()(code);
  __builtin_unreachable();
}

}  // extern "C"

}  // namespace moored::run
