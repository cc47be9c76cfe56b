// moored/channel.hpp: native events reach Python in batches; their senders never wait for the GIL.
#pragma once

#include <Python.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "detail/channel/capsule.hpp"
#include "detail/channel/core.hpp"
#include "detail/channel/registry.hpp"
#include "converter.hpp"
#include "delivery.hpp"
#include "detail/channel/ring.hpp"

MOORED_NAMESPACE_BEGIN

namespace detail {

template <class T>
class channel_of final : public channel_core {
 public:
  using conversion = PyObject* (*)(T&&);
  using native_handler = std::function<void(view<T>)>;

  channel_of(channel_options options, conversion convert)
      : channel_core(std::move(options)), convert_(convert) {}

  [[nodiscard]] sent send(T&& value, bool may_wait) noexcept {
    tell whom = tell::nobody;
    {
      locked lock(mutex_);
      if (MOORED_UNLIKELY(closed_)) {
        ++stats_.refused;
        return sent::closed;
      }
      if (MOORED_UNLIKELY(queue_.size() >= options_.capacity))
        return send_when_full(lock, std::move(value), may_wait);
      if (MOORED_UNLIKELY(!push(std::move(value))))
        return sent::no_memory;
      whom = whom_to_tell();
    }
    if (MOORED_UNLIKELY(whom != tell::nobody))
      do_tell(whom);
    return sent::queued;
  }

  [[nodiscard]] PyObject* take(std::size_t limit) override;
  [[nodiscard]] std::vector<T> take_native(std::size_t limit);

  void handle_by(native_handler handler) {
    {
      const locked lock(mutex_);
      native_ = handler ? std::make_shared<const native_handler>(std::move(handler)) : nullptr;
    }
    set_handler(nullptr);
  }
  [[nodiscard]] bool converts() const noexcept { return convert_ != nullptr; }
  void reserve(std::size_t events) {
    const locked lock(mutex_);
    queue_.reserve(events);
    spare_.reserve(events);
    reserved_ = std::max(reserved_, events);
  }

 protected:
  [[nodiscard]] std::size_t queued() const noexcept override { return queue_.size(); }
  void discard() noexcept override { queue_.clear(); }
  [[nodiscard]] bool has_native_handler() const noexcept override { return native_ != nullptr; }
  [[nodiscard]] bool run_batch(locked& lock, std::size_t limit) override;

 private:
  [[nodiscard]] sent send_when_full(locked& lock, T&& value, bool may_wait) noexcept;

  [[nodiscard]] bool push(T&& value) noexcept {
    try {
      queue_.push(std::move(value));
    } catch (const std::bad_alloc&) {
      ++stats_.rejected;
      return false;
    }
    ++stats_.sent;
    return true;
  }

  /// Moves at most `limit` events to `batch`, which is empty. Locked. Throws std::bad_alloc, and
  /// has then taken nothing.
  void take_into(ring<T>& batch, std::size_t limit) {
    if (limit >= queue_.size() && spare_.room() >= reserved_) {
      swap(batch, spare_);
      swap(batch, queue_);
    } else {
      const std::size_t count = std::min(limit, queue_.size());
      batch.reserve(count);
      while (batch.size() < count) batch.push(queue_.pop());
    }
    stats_.delivered += batch.size();
    made_room(batch.size());
  }
  /// Its memory is for the next batch. Locked.
  void give_back(ring<T>& batch) noexcept {
    if (spare_.room() < batch.room()) swap(spare_, batch);
  }

  /// A list of the batch's events, or null with an exception, when nothing has been converted yet.
  /// Attached, not locked.
  [[nodiscard]] PyObject* as_list(ring<T>& batch);

  ring<T> queue_;
  ring<T> spare_;
  std::size_t reserved_ = 0;  // so many events the queue always has room for
  conversion convert_;
  std::shared_ptr<const native_handler> native_;
};

template <class T>
sent channel_of<T>::send_when_full(locked& lock, T&& value, bool may_wait) noexcept {
  switch (options_.when_full) {
    case overflow::drop_newest:
      ++stats_.dropped_newest;
      return sent::dropped;
    case overflow::drop_oldest: {
      // Destroyed after the lock: what an event owns is not ours to know.
      std::optional<T> oldest(queue_.pop());
      ++stats_.dropped_oldest;
      const bool pushed = push(std::move(value));
      const tell whom = whom_to_tell();
      lock.unlock();
      oldest.reset();
      do_tell(whom);
      return pushed ? sent::queued : sent::no_memory;
    }
    case overflow::block:
      if (may_wait) break;
      [[fallthrough]];
    case overflow::reject:
      ++stats_.rejected;
      return sent::rejected;
  }
  tell whom = tell::nobody;
  sent came = sent::queued;
  lock.unlock();
  {
    const detachment others_turn;  // the consumer needs the GIL in order to make room
    lock.lock();
    if (!wait_for_room(lock)) {
      came = closed_ ? sent::closed : sent::rejected;
      ++(closed_ ? stats_.refused : stats_.rejected);
    } else if (push(std::move(value))) {
      whom = whom_to_tell();
    } else {
      came = sent::no_memory;
    }
    lock.unlock();
  }
  do_tell(whom);
  return came;
}

template <class T>
PyObject* channel_of<T>::as_list(ring<T>& batch) {
  PyObject* const list = PyList_New(static_cast<Py_ssize_t>(batch.size()));
  if (list == nullptr) return nullptr;
  Py_ssize_t made = 0;
  std::uint64_t unconvertible = 0;
  while (!batch.empty()) {
    if (PyObject* const object = convert_(batch.pop())) {
      PyList_SET_ITEM(list, made++, object);
    } else {
      ++unconvertible;
      PyErr_WriteUnraisable(nullptr);
    }
  }
  if (unconvertible != 0) {
    // Slots that were not filled are null, which a list may be shrunk over.
    Py_SET_SIZE(reinterpret_cast<PyVarObject*>(list), made);
    const locked lock(mutex_);
    stats_.delivered -= unconvertible;
    stats_.unconvertible += unconvertible;
  }
  return list;
}

template <class T>
PyObject* channel_of<T>::take(std::size_t limit) {
  if (convert_ == nullptr) {
    PyErr_Format(PyExc_TypeError, "the events of channel '%.100s' have no Python form", name());
    return nullptr;
  }
  ring<T> batch;
  try {
    const locked lock(mutex_);
    if (!queue_.empty()) take_into(batch, limit);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  PyObject* const list = as_list(batch);
  if (list != nullptr || !batch.empty()) {
    const locked lock(mutex_);
    stats_.undelivered += batch.size();  // no memory for the list
    stats_.delivered -= batch.size();
    give_back(batch);
  }
  return list;
}

template <class T>
std::vector<T> channel_of<T>::take_native(std::size_t limit) {
  std::vector<T> events;
  const locked lock(mutex_);
  if (queue_.empty()) return events;
  const std::size_t count = std::min(limit, queue_.size());
  events.reserve(count);  // before anything is taken: it may throw
  while (events.size() < count) events.push_back(queue_.pop());
  stats_.delivered += count;
  made_room(count);
  return events;
}

template <class T>
bool channel_of<T>::run_batch(locked& lock, std::size_t limit) {
  ring<T> batch;
  const std::shared_ptr<const native_handler> native = native_;
  PyObject* const callable = native == nullptr ? Py_NewRef(handler()) : nullptr;
  bool fine = true;
  try {
    try {
      take_into(batch, limit);
    } catch (const std::bad_alloc&) {
      take_into(batch, queue_.size());  // all of it, for which no memory is needed
    }
    lock.unlock();
    if (native != nullptr) {
      for (auto part = batch.front(); !part.empty(); part = batch.front()) {
        (*native)(part);
        batch.drop_front(part.size());
      }
      fine = PyErr_Occurred() == nullptr;
    } else if (PyObject* const list = as_list(batch)) {
      PyObject* const result =
          PyList_GET_SIZE(list) == 0 ? Py_NewRef(Py_None) : PyObject_CallOneArg(callable, list);
      fine = result != nullptr;
      Py_XDECREF(result);
      Py_DECREF(list);
    } else {
      fine = false;
    }
  } catch (const std::exception& error) {
    if (PyErr_Occurred() == nullptr) PyErr_SetString(PyExc_RuntimeError, error.what());
    fine = false;
  } catch (...) {
    cpython::stop_if_unwound();  // below are noexcept frames
    throw;
  }
  Py_XDECREF(callable);
  if (!lock.owns_lock()) lock.lock();
  if (native == nullptr && !batch.empty()) {
    stats_.undelivered += batch.size();  // no memory for the list
    stats_.delivered -= batch.size();
  }
  batch.clear();
  give_back(batch);
  return fine;
}

template <class T, class = void>
struct has_python_form : std::false_type {};
template <class T>
struct has_python_form<T, std::void_t<decltype(converter<T>::to_python(std::declval<T>()))>>
    : std::true_type {};

/// converter<T>::to_python where there is one. Without, the events are for native handlers alone.
template <class T>
[[nodiscard]] constexpr PyObject* (*default_conversion() noexcept)(T&&) {
  if constexpr (has_python_form<T>::value) {
    return &converter<T>::to_python;
  } else {
    return nullptr;
  }
}

[[nodiscard]] inline PyObject* make_capsule(std::shared_ptr<channel_core> core) noexcept;

}  // namespace detail

/// A bounded queue of events from native threads to Python.
///
/// A handle: copies are the same channel. When the last handle is gone the channel closes; what was
/// sent before is still delivered, as long as Python's side (capsule()) lives. Any thread may call
/// anything, attached or not, unless it says otherwise. Events of one sender stay in order.
///
/// A T is moved, and destroyed by whichever thread has it last. Its move constructor must not
/// throw.
template <class T>
class MOORED_PUBLIC_TYPE channel {
  static_assert(std::is_nothrow_move_constructible_v<T>);

 public:
  /// A new reference, or null with an exception. Called attached.
  using conversion = PyObject* (*)(T&&);
  static constexpr std::size_t all = std::numeric_limits<std::size_t>::max();

  /// Throws unsupported, std::bad_alloc, and std::system_error without descriptors; nothing is then
  /// left of it.
  MOORED_HIDDEN explicit channel(channel_options options = {},
                   conversion convert = detail::default_conversion<T>()) {
    auto core = std::make_shared<detail::channel_of<T>>(std::move(options), convert);
    detail::channel_registry::the().add(core);
    struct native_end {
      std::shared_ptr<detail::channel_of<T>> core;
      explicit native_end(std::shared_ptr<detail::channel_of<T>> of) : core(std::move(of)) {}
      native_end(const native_end&) = delete;
      native_end& operator=(const native_end&) = delete;
      ~native_end() { core->close(); }
    };
    auto* const raw = core.get();
    core_ = {std::make_shared<native_end>(std::move(core)), raw};
  }

  /// Queues it: some ten ns. On a full channel whatever `when_full` says; to wait it lets go of the
  /// GIL. Within the handler it never waits: what would wait is rejected.
  ///
  /// Memory, a thread or a descriptor that is not to be had stops nobody here: an event that cannot
  /// be queued is refused and counted. Where nobody can be told of one that is queued it stays
  /// queued, and the next sender tries again, as a blocked one does by itself.
  MOORED_HIDDEN sent send(T value) noexcept { return core_->send(std::move(value), true); }
  /// The same, but where send() would wait it rejects.
  MOORED_HIDDEN sent try_send(T value) noexcept { return core_->send(std::move(value), false); }

  /// Takes the memory for so many events in advance: no send fails for lack of it as long as no
  /// more are queued. Throws std::bad_alloc.
  MOORED_HIDDEN void reserve(std::size_t events) { core_->reserve(events); }

  /// Refuses from now on, and wakes everybody who waits. What was sent is still delivered.
  MOORED_HIDDEN void close() noexcept { core_->close(); }
  MOORED_HIDDEN [[nodiscard]] bool closed() const noexcept { return core_->closed(); }
  MOORED_HIDDEN [[nodiscard]] channel_stats stats() const noexcept { return core_->stats(); }

  /// Changes the delivery, also while events flow. Throws unsupported.
  MOORED_HIDDEN void deliver_by(delivery how) { core_->deliver_by(how); }
  MOORED_HIDDEN [[nodiscard]] delivery delivered_by() const noexcept { return core_->delivered_by(); }

  /// A native handler, run attached, with the events of one batch. An exception is reported as
  /// unraisable. May be called unattached; attaches.
  MOORED_HIDDEN void on_batch(std::function<void(view<T>)> handler) {
    const attachment attached = try_attach();
    if (attached) detail::channel_registry::the().meet_python();
    core_->handle_by(std::move(handler));
  }
  /// A Python callable, given a list; or null for none. Attached.
  MOORED_HIDDEN void on_batch(PyObject* handler) {
    detail::channel_registry::the().meet_python();
    core_->handle_by(nullptr);
    core_->set_handler(handler);
  }

  /// Runs the handler on what is queued, within the channel's hold, unless it runs already; for
  /// event loops, when wakeup().fd() can be read. True when something is left: call again soon.
  /// Attached. An exception of the handler is reported as unraisable.
  MOORED_HIDDEN bool deliver() {
    using left = detail::channel_core::left;
    const left rest = core_->deliver();
    if (rest == left::error) PyErr_WriteUnraisable(nullptr);
    return rest != left::nothing;
  }

  /// At most `limit` events, as a new list; null with an exception. Attached.
  MOORED_HIDDEN [[nodiscard]] PyObject* take(std::size_t limit = all) { return core_->take(limit); }
  /// Throws std::bad_alloc, and has then taken nothing.
  MOORED_HIDDEN [[nodiscard]] std::vector<T> take_native(std::size_t limit = all) {
    return core_->take_native(limit);
  }
  /// Waits, without the GIL, until something is queued or the channel is closed: true. Throws
  /// std::system_error when the descriptors are no longer what they were.
  MOORED_HIDDEN bool wait(std::optional<std::chrono::nanoseconds> limit = {}) {
    using waited = detail::channel_core::waited;
    detail::deadline until(limit);
    for (;;) {
      const waited came = core_->wait(until);
      if (came != waited::signal) return came == waited::ready;
    }
  }

  /// For an event loop: watch its fd(), and when that can be read acknowledge() and deliver().
  MOORED_HIDDEN [[nodiscard]] wakeup& told_by() noexcept { return core_->told_by(); }
  /// Says that an event loop watches the descriptor, or no longer does; `adaptive` asks.
  MOORED_HIDDEN void listen(bool listening) noexcept { core_->listen(listening); }

  /// What moored.Channel(...) takes: a new reference, or null with an exception. Attached.
  MOORED_HIDDEN [[nodiscard]] PyObject* capsule() const {
    if (!core_->converts()) {
      PyErr_Format(PyExc_TypeError, "the events of channel '%.100s' have no Python form",
                   core_->name());
      return nullptr;
    }
    detail::channel_registry::the().meet_python();
    return detail::make_capsule(
        std::static_pointer_cast<detail::channel_core>(core_->shared_from_this()));
  }

 private:
  std::shared_ptr<detail::channel_of<T>> core_;
};

MOORED_NAMESPACE_END

#include "detail/channel/table.hpp"
