// moored/promise.hpp: native threads complete Python futures without taking the GIL.
//
// What a promise is given goes through a channel. An asyncio loop drains its own; for
// concurrent.futures, which have no loop, one native thread drains them all and attaches once for
// as many as there are.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "attach.hpp"
#include "channel.hpp"
#include "converter.hpp"
#include "python_error.hpp"
#include "reference.hpp"

MOORED_NAMESPACE_BEGIN

/// What became of the promises of this process. Any thread.
struct promise_counters {
  std::uint64_t completed;  ///< The future got its result or its exception.
  std::uint64_t unwanted;   ///< The future was cancelled, or done, before.
  std::uint64_t broken;     ///< The promise ended without a value.
  std::uint64_t lost;       ///< Python, or the loop, had ended.
};

namespace detail {

struct promise_counts {
  std::atomic<std::uint64_t> completed{0}, unwanted{0}, broken{0}, lost{0};
};
MOORED_CONSTINIT inline promise_counts the_promises;

/// What a promise was given, on its way to its future.
struct completion {
  reference future;
  std::function<PyObject*()> value;  ///< Called once, attached; null with an exception. Or empty:
  std::optional<std::string> error;  ///< then this is why, or there never was a value.
};

/// Completes one future. Attached; leaves no exception.
inline void complete(completion& one) noexcept {
  const auto ask = [&](const char* method) {
    const auto said = reference::steal(PyObject_CallMethod(one.future.get(), method, nullptr));
    const bool yes = said && PyObject_IsTrue(said.get()) == 1;
    PyErr_Clear();
    return yes;
  };
  if (ask("done")) {
    the_promises.unwanted.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  reference value;
  reference error;
  if (one.value) {
    value = reference::steal(one.value());
    if (!value) error = reference::steal(cpython::take_exception());
  } else {
    const char* const why =
        one.error ? one.error->c_str() : "the native promise ended without a value";
    error = reference::steal(PyObject_CallFunction(PyExc_RuntimeError, "s", why));
    if (!error) error = reference::steal(cpython::take_exception());
  }
  reference done;
  if (value) {
    done = reference::steal(PyObject_CallMethod(one.future.get(), "set_result", "O", value.get()));
    // Whoever waits for the future is to hear of it, at least: no memory, say.
    if (!done) error = reference::steal(cpython::take_exception());
  }
  if (error) {
    done =
        reference::steal(PyObject_CallMethod(one.future.get(), "set_exception", "O", error.get()));
  }
  if (done) {
    the_promises.completed.fetch_add(1, std::memory_order_relaxed);
  } else {
    the_promises.lost.fetch_add(1, std::memory_order_relaxed);
    PyErr_WriteUnraisable(one.future.get());
  }
}

/// The way of completions to one asyncio loop, or to all concurrent futures.
class mailbox : public std::enable_shared_from_this<mailbox> {
 public:
  /// For a loop; null with an exception. Attached.
  [[nodiscard]] static std::shared_ptr<mailbox> of(PyObject* loop);
  /// For concurrent futures. Attached.
  [[nodiscard]] static std::shared_ptr<mailbox> of_all() {
    // Of another life, or of the parent of a fork, it is closed.
    static std::shared_ptr<mailbox> only;
    if (only == nullptr || only->completions_.closed()) {
      auto box = std::make_shared<mailbox>();
      box->completions_.on_batch(complete_all);
      start_own_thread([box] { box->carry(); }).detach();
      only = std::move(box);  // not before it has its thread
    }
    return only;
  }

  mailbox() : completions_(options()) {}

  /// For one more promise, which then needs no memory at its end. Throws std::bad_alloc. Attached.
  void expect_one() {
    completions_.reserve(promises_ + 1 - completions_.stats().delivered);
    ++promises_;
  }

  [[nodiscard]] bool put(completion&& one) noexcept {
    if (completions_.try_send(std::move(one)) == sent::queued) return true;
    the_promises.lost.fetch_add(1, std::memory_order_relaxed);
    return false;
  }

 private:
  [[nodiscard]] static channel_options options() {
    channel_options wanted;
    wanted.name = "promises";
    wanted.capacity = std::size_t{1} << 30;
    return wanted;
  }
  static void complete_all(view<completion> batch) {
    for (completion& one : batch) complete(one);
  }

  /// The native thread's life. It keeps its state, and ends with the channel.
  void carry() {
    for (;;) {
      try {
        completions_.wait();
      } catch (const std::system_error&) {
        std::this_thread::sleep_for(second_try);  // nobody tells this thread any more: it looks
      }
      const attachment attached = try_attach();
      if (attached.why() == refusal::no_memory) {
        std::this_thread::sleep_for(second_try);
        continue;
      }
      if (!attached) return;
      while (completions_.deliver()) {
      }
      if (completions_.closed()) return;
    }
  }

  static PyObject* deliver_in_loop(PyObject* capsule, PyObject*) {
    auto* const held =
        static_cast<std::shared_ptr<mailbox>*>(PyCapsule_GetPointer(capsule, "moored.mailbox"));
    if (held == nullptr) return nullptr;
    const std::shared_ptr<mailbox> box = *held;
    box->completions_.told_by().acknowledge();
    while (box->completions_.deliver()) {
    }
    Py_RETURN_NONE;
  }

  [[nodiscard]] bool watch(PyObject* loop) const;

  channel<completion> completions_;
  std::uint64_t promises_ = 0;  // made so far; the GIL guards it
};

/// Has the loop drain it. Attached; false with an exception.
inline bool mailbox::watch(PyObject* loop) const {
  static PyMethodDef method = {"moored_promises", deliver_in_loop, METH_NOARGS, nullptr};
  auto held = std::make_unique<std::shared_ptr<mailbox>>(
      std::const_pointer_cast<mailbox>(shared_from_this()));
  const auto capsule =
      reference::steal(PyCapsule_New(held.get(), "moored.mailbox", [](PyObject* mine) {
        delete static_cast<std::shared_ptr<mailbox>*>(PyCapsule_GetPointer(mine, "moored.mailbox"));
      }));
  if (!capsule) return false;
  (void)held.release();
  channel<completion> completions = completions_;
  const auto callback = reference::steal(PyCFunction_New(&method, capsule.get()));
  const auto done =
      reference::steal(callback ? PyObject_CallMethod(loop, "add_reader", "iO",
                                                      completions.told_by().fd(), callback.get())
                                : nullptr);
  return static_cast<bool>(done);
}

inline std::shared_ptr<mailbox> mailbox::of(PyObject* loop) {
  struct known {
    reference loop;
    epoch since = 0;
    std::shared_ptr<mailbox> box;
  };
  // Never destroyed: the loops would be let go when Python is gone. The GIL guards it.
  static auto& all = *new std::vector<known>;
  const epoch now = the_gate.now();
  erase_where(all, [&](const known& one) {
    if (one.since != now || one.box->completions_.closed()) return true;
    const auto closed = reference::steal(PyObject_CallMethod(one.loop.get(), "is_closed", nullptr));
    if (!closed) PyErr_Clear();
    return !closed || PyObject_IsTrue(closed.get()) != 0;
  });
  for (const known& one : all)
    if (one.loop.get() == loop) return one.box;
  auto box = std::make_shared<mailbox>();
  box->completions_.on_batch(complete_all);
  all.reserve(all.size() + 1);  // what follows the watching must not fail
  if (!box->watch(loop)) return nullptr;
  all.push_back({reference::borrow(loop), now, box});
  return box;
}

}  // namespace detail

/// The native end of a Python future: any thread, attached or not, gives it its value, without the
/// GIL and in some hundred ns. Moved freely; a promise that ends without a value gives its future a
/// RuntimeError.
template <class T>
class MOORED_PUBLIC_TYPE promise {
 public:
  /// For a new asyncio.Future of this loop. Attached, on the loop's thread. Throws python_error,
  /// std::bad_alloc, and std::system_error without descriptors.
  MOORED_HIDDEN [[nodiscard]] static promise on(PyObject* loop) {
    detail::channel_registry::the().meet_python();
    auto box = detail::mailbox::of(loop);
    if (box == nullptr) throw python_error::current();
    return promise(std::move(box), PyObject_CallMethod(loop, "create_future", nullptr));
  }
  /// For a new concurrent.futures.Future, which is running. Attached. Throws python_error,
  /// std::bad_alloc, and std::system_error without descriptors or threads.
  MOORED_HIDDEN [[nodiscard]] static promise concurrent() {
    detail::channel_registry::the().meet_python();
    const auto futures = reference::steal(PyImport_ImportModule("concurrent.futures"));
    if (!futures) throw python_error::current();
    return promise(detail::mailbox::of_all(),
                   PyObject_CallMethod(futures.get(), "Future", nullptr));
  }

  promise(promise&&) noexcept = default;
  MOORED_HIDDEN promise& operator=(promise&& other) noexcept {
    if (this != &other) {
      break_it();
      box_ = std::move(other.box_);
      future_ = std::move(other.future_);
    }
    return *this;
  }
  MOORED_HIDDEN ~promise() { break_it(); }

  /// The future: a new reference. Attached, and before the promise is set.
  MOORED_HIDDEN [[nodiscard]] PyObject* future() const noexcept { return Py_XNewRef(future_.get()); }

  /// False when it was set before, or when Python has ended; and when there is no memory: the
  /// promise then is as it was, and if it ends so its future gets a RuntimeError.
  MOORED_HIDDEN bool set_value(T value) noexcept {
    try {
      auto held = std::make_shared<T>(std::move(value));
      std::function<PyObject*()> make = [held] {
        return converter<T>::to_python(std::move(*held));
      };
      return put({{}, std::move(make), {}});
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
  /// The future gets a RuntimeError with this text.
  MOORED_HIDDEN bool set_error(std::string text) noexcept { return put({{}, nullptr, std::move(text)}); }

 private:
  MOORED_HIDDEN promise(std::shared_ptr<detail::mailbox> box, PyObject* future)
      : box_(std::move(box)), future_(reference::steal(future)) {
    if (!future_) throw python_error::current();
    box_->expect_one();
  }

  MOORED_HIDDEN bool put(detail::completion one) noexcept {
    if (box_ == nullptr || !future_) return false;
    one.future = std::move(future_);
    return std::exchange(box_, nullptr)->put(std::move(one));
  }
  MOORED_HIDDEN void break_it() noexcept {
    if (!future_) return;
    detail::the_promises.broken.fetch_add(1, std::memory_order_relaxed);
    put({});
  }

  std::shared_ptr<detail::mailbox> box_;
  reference future_;
};

/// Any thread.
[[nodiscard]] inline promise_counters count_promises() noexcept {
  const auto read = [](const std::atomic<std::uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  return {read(detail::the_promises.completed), read(detail::the_promises.unwanted),
          read(detail::the_promises.broken), read(detail::the_promises.lost)};
}

MOORED_NAMESPACE_END
