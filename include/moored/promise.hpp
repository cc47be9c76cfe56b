// moored/promise.hpp: native threads complete Python futures without taking the GIL.
//
// What a promise is given goes through a channel. An asyncio loop drains its own; for
// concurrent.futures, which have no loop, one native thread drains them all and attaches once for
// as many as there are.
#pragma once

#include <Python.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "attach.hpp"
#include "channel.hpp"
#include "converter.hpp"
#include "detail/own_thread.hpp"
#include "python_error.hpp"
#include "reference.hpp"

MOORED_NAMESPACE_BEGIN

/// What became of the promises of this process. Any thread.
struct promise_stats {
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

/// What a promise was given, on its way to its future. One that ends before it has been completed
/// is lost, and counted.
struct completion {
  reference future;
  std::function<PyObject*()> value;  ///< Called once, attached; null with an exception. Or empty:
  std::optional<std::string> error;  ///< then this is why, or there never was a value.

  completion(reference of, std::function<PyObject*()> with, std::optional<std::string> why) noexcept
      : future(std::move(of)), value(std::move(with)), error(std::move(why)) {}
  completion(completion&&) noexcept = default;
  completion& operator=(completion&&) = delete;
  ~completion() {
    if (future) the_promises.lost.fetch_add(1, std::memory_order_relaxed);
  }
};

/// Completes one future. Attached; leaves no exception.
inline void complete(completion& one) noexcept {
  const reference future = std::move(one.future);
  const auto is_done = [&] {
    const auto said = reference::steal(PyObject_CallMethod(future.get(), "done", nullptr));
    const bool yes = said && PyObject_IsTrue(said.get()) == 1;
    if (PyErr_Occurred() != nullptr && !hand_interrupt_to_main()) PyErr_Clear();
    return yes;
  };
  if (is_done()) {
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
    done = reference::steal(PyObject_CallMethod(future.get(), "set_result", "O", value.get()));
    // What waits for the future is to hear of it, at least: no memory, say.
    if (!done) error = reference::steal(cpython::take_exception());
  }
  if (error) {
    done = reference::steal(PyObject_CallMethod(future.get(), "set_exception", "O", error.get()));
  }
  if (done) {
    the_promises.completed.fetch_add(1, std::memory_order_relaxed);
  } else {
    the_promises.lost.fetch_add(1, std::memory_order_relaxed);
    (void)report(future.get());
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
  [[nodiscard]] bool is_closed() const noexcept { return completions_.closed(); }

  /// For one more promise, which then needs no memory at its end. Throws std::bad_alloc. Attached.
  void expect_one() {
    completions_.reserve(promises_ + 1 - completions_.stats().delivered);
    ++promises_;
  }

  [[nodiscard]] bool put(completion&& one) noexcept {
    return completions_.try_send(std::move(one)) == sent::queued;
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
      completions_.wait();
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

  /// The loop has let its reader go: it has closed, or will never run again. What is set from now
  /// on is refused, and what it has not got is lost.
  void abandon() noexcept {
    completions_.close();
    try {
      (void)completions_.take_native();
    } catch (const std::bad_alloc&) {  // they stay, and are counted when the mailbox ends
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
        const std::unique_ptr<std::shared_ptr<mailbox>> box(
            static_cast<std::shared_ptr<mailbox>*>(PyCapsule_GetPointer(mine, "moored.mailbox")));
        (*box)->abandon();
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

/// The mailboxes of all loops. To ask a loop whether it is closed runs Python, and so does dropping
/// one: neither is done under the lock, nor while the list is looked at.
class loop_mailboxes {
 public:
  /// Never destroyed: the loops would be let go when Python is gone.
  [[nodiscard]] static loop_mailboxes& the() {
    static auto& only = *new loop_mailboxes;
    return only;
  }

  /// The loop's, or null. Attached.
  [[nodiscard]] std::shared_ptr<mailbox> find(PyObject* loop) noexcept {
    const locked lock(mutex_);
    for (const known& one : all_)
      if (one.loop.get() == loop && !one.is_over()) return one.box;
    return nullptr;
  }
  /// Attached, on the loop's thread, after find() was null. Throws std::bad_alloc.
  void add(PyObject* loop, std::shared_ptr<mailbox> box) {
    forget_closed();
    known fresh{reference::borrow(loop), std::move(box), false};
    const locked lock(mutex_);
    all_.push_back(std::move(fresh));
  }

 private:
  struct known {
    reference loop;
    std::shared_ptr<mailbox> box;
    bool closed = false;

    /// Of another life, or of the parent of a fork, it is closed.
    [[nodiscard]] bool is_over() const noexcept {
      return closed || !loop.is_here() || box->is_closed();
    }
  };

  void forget_closed() {
    std::vector<reference> asked;
    {
      const locked lock(mutex_);
      asked.reserve(all_.size());
      for (const known& one : all_)
        if (!one.is_over()) asked.push_back(reference::borrow(one.loop.get()));
    }
    erase_where(asked, [](const reference& loop) {
      const auto closed = reference::steal(PyObject_CallMethod(loop.get(), "is_closed", nullptr));
      if (!closed) PyErr_Clear();
      return closed && PyObject_IsTrue(closed.get()) == 0;
    });
    outlasting<std::vector<known>> gone;
    std::vector<known> stay;
    const locked lock(mutex_);
    stay.reserve(all_.size());
    for (known& one : all_) {
      const auto is_it = [&](const reference& loop) { return loop.get() == one.loop.get(); };
      one.closed = one.is_over() || std::any_of(asked.begin(), asked.end(), is_it);
    }
    for (known& one : all_)
      if (!one.closed) stay.push_back(std::move(one));
    all_.swap(stay);
    gone.take(stay);
  }

  mutex mutex_;
  std::vector<known> all_ MOORED_GUARDED_BY(mutex_);
};

inline std::shared_ptr<mailbox> mailbox::of(PyObject* loop) {
  loop_mailboxes& all = loop_mailboxes::the();
  if (auto known = all.find(loop)) return known;
  auto box = std::make_shared<mailbox>();
  box->completions_.on_batch(complete_all);
  if (!box->watch(loop)) return nullptr;
  all.add(loop, box);
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
  MOORED_HIDDEN [[nodiscard]] PyObject* future() const noexcept {
    return Py_XNewRef(future_.get());
  }

  /// False when it was set before, or when Python has ended; and when there is no memory: the
  /// promise then is as it was, and if it ends so its future gets a RuntimeError.
  MOORED_HIDDEN bool set_value(T value) noexcept {
    try {
      auto held = std::make_shared<T>(std::move(value));
      std::function<PyObject*()> make = [held] {
        return converter<T>::to_python(std::move(*held));
      };
      return put(std::move(make), {});
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
  /// The future gets a RuntimeError with this text.
  MOORED_HIDDEN bool set_error(std::string text) noexcept { return put(nullptr, std::move(text)); }

 private:
  MOORED_HIDDEN promise(std::shared_ptr<detail::mailbox> box, PyObject* future)
      : box_(std::move(box)), future_(reference::steal(future)) {
    if (!future_) throw python_error::current();
    box_->expect_one();
  }

  MOORED_HIDDEN bool put(std::function<PyObject*()> value,
                         std::optional<std::string> error) noexcept {
    if (box_ == nullptr || !future_) return false;
    return std::exchange(box_, nullptr)
        ->put({std::move(future_), std::move(value), std::move(error)});
  }
  MOORED_HIDDEN void break_it() noexcept {
    if (!future_) return;
    detail::the_promises.broken.fetch_add(1, std::memory_order_relaxed);
    (void)put(nullptr, {});
  }

  std::shared_ptr<detail::mailbox> box_;
  reference future_;
};

/// Any thread.
[[nodiscard]] inline promise_stats stats_of_promises() noexcept {
  const auto read = [](const std::atomic<std::uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  return {read(detail::the_promises.completed), read(detail::the_promises.unwanted),
          read(detail::the_promises.broken), read(detail::the_promises.lost)};
}

MOORED_NAMESPACE_END
