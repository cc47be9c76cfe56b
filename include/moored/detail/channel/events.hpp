// moored/detail/channel/events.hpp: a channel of one type of events: sending, taking, and running
// the handler on a batch.
#pragma once

#include <Python.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../converter.hpp"
#include "core.hpp"
#include "queue.hpp"
#include "view.hpp"

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
    bool must_tell = false;
    bool is_plain = true;
    {
      const locked lock(mutex_);
      if (MOORED_UNLIKELY(refuses() || queue_.size() >= options_.capacity)) {
        is_plain = false;
      } else if (MOORED_LIKELY(push(std::move(value)))) {
        must_tell = is_untold();
      } else {
        return sent::no_memory;
      }
    }
    if (MOORED_UNLIKELY(!is_plain)) return send_specially(std::move(value), may_wait);
    if (MOORED_UNLIKELY(must_tell)) tell();
    return sent::queued;
  }

  [[nodiscard]] PyObject* take(std::size_t limit) override;
  [[nodiscard]] std::vector<T> take_native(std::size_t limit);

  void handle_by_native(native_handler handler) {
    if (!handler) return handle_by({});
    handle_by({{}, std::make_shared<const native_handler>(std::move(handler))});
  }
  [[nodiscard]] bool converts() const noexcept { return convert_ != nullptr; }
  void reserve(std::size_t events) {
    const locked lock(mutex_);
    queue_.reserve(events);
  }

 protected:
  [[nodiscard]] std::size_t queued() const noexcept override MOORED_REQUIRES(mutex_) {
    return queue_.size();
  }
  [[nodiscard]] std::size_t discard() noexcept override {
    ring<T> all;  // destroyed without the lock
    const locked lock(mutex_);
    queue_.take_all(all);
    stats_.undelivered += all.size();
    return all.size();
  }
  void forget() noexcept override MOORED_REQUIRES(mutex_) {
    stats_.undelivered += queue_.size();
    queue_.forget();
  }
  [[nodiscard]] ran run(runs_for what) override;

 private:
  /// To a channel that is full, or refuses.
  [[nodiscard]] sent send_specially(T&& value, bool may_wait) noexcept;
  /// What comes of it; an event that made room is moved to `oldest`.
  [[nodiscard]] sent admit(T&& value, bool may_wait, std::optional<T>& oldest) noexcept
      MOORED_REQUIRES(mutex_);

  [[nodiscard]] bool push(T&& value) noexcept MOORED_REQUIRES(mutex_) {
    const bool done = queue_.push(std::move(value));
    ++(done ? stats_.sent : stats_.rejected);
    return done;
  }
  void took(std::size_t events, outlasting<batch_handler>& done) noexcept MOORED_REQUIRES(mutex_) {
    stats_.delivered += events;
    made_room(events, done);
  }

  /// A list of the batch's events, or null with an exception, when nothing has been converted yet.
  /// Attached.
  [[nodiscard]] PyObject* as_list(ring<T>& batch);
  /// What a batch was, and how it ended.
  struct batch_end {
    std::size_t events = 0;  ///< None: the stint is over.
    bool fine = true;        ///< Otherwise an exception is set.
  };
  /// Takes what fits into the stint, and runs the handler on it. `batch` is empty; its memory is
  /// that of the batch before.
  [[nodiscard]] batch_end run_batch(stint& its, ring<T>& batch) MOORED_EXCLUDES(mutex_);
  /// Destroys what is left of a batch, which for lack of memory was not delivered if it was to
  /// be a list.
  void empty(ring<T>& batch, bool as_list) noexcept MOORED_EXCLUDES(mutex_);

  queue<T> queue_ MOORED_GUARDED_BY(mutex_);
  const conversion convert_;
};

template <class T>
sent channel_of<T>::send_specially(T&& value, bool may_wait) noexcept {
  const no_cancellation uncancelled;
  const std::shared_ptr<channel_core> alive = shared_from_this();
  sent came{};
  bool must_tell = false;
  {
    // A sender that waits lets go of the GIL: the consumer needs it in order to make room.
    std::optional<detachment> others_turn;
    if (may_wait && options_.when_full == overflow::block) others_turn.emplace();
    std::optional<T> oldest;  // destroyed without the lock
    const locked lock(mutex_);
    came = admit(std::move(value), may_wait, oldest);
    must_tell = came == sent::queued && is_untold();
  }
  if (must_tell) tell();
  return came;
}

template <class T>
sent channel_of<T>::admit(T&& value, bool may_wait, std::optional<T>& oldest) noexcept {
  bool is_full = !refuses() && queue_.size() >= options_.capacity;
  if (is_full && may_wait && options_.when_full == overflow::block) is_full = !wait_for_room();
  if (refuses()) {
    ++stats_.refused;
    return sent::closed;
  }
  if (is_full) {
    switch (options_.when_full) {
      case overflow::drop_newest:
        ++stats_.dropped_newest;
        return sent::dropped;
      case overflow::drop_oldest:
        oldest.emplace(queue_.pop());
        ++stats_.dropped_oldest;
        break;
      case overflow::block:
      case overflow::reject:
        ++stats_.rejected;
        return sent::rejected;
    }
  }
  return push(std::move(value)) ? sent::queued : sent::no_memory;
}

template <class T>
PyObject* channel_of<T>::as_list(ring<T>& batch) {
  PyObject* const list = PyList_New(static_cast<Py_ssize_t>(batch.size()));
  if (list == nullptr) return nullptr;
  Py_ssize_t made = 0;
  std::uint64_t unconvertible = 0;
  while (!batch.empty()) {
    PyObject* object = nullptr;
    try {
      object = convert_(batch.pop());
    } catch (...) {
      set_exception_for_caught();
    }
    if (object != nullptr) {
      PyList_SET_ITEM(list, made++, object);
    } else {
      ++unconvertible;
      (void)report(nullptr);
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
void channel_of<T>::empty(ring<T>& batch, bool as_list) noexcept {
  if (batch.empty()) return;
  const std::size_t lost = as_list ? batch.size() : 0;
  {
    const exception_apart callers(true);
    batch.clear();
  }
  if (lost == 0) return;
  const locked lock(mutex_);
  stats_.undelivered += lost;
  stats_.delivered -= lost;
}

template <class T>
PyObject* channel_of<T>::take(std::size_t limit) {
  if (convert_ == nullptr) {
    PyErr_Format(PyExc_TypeError, "the events of channel '%.100s' have no Python form", name());
    return nullptr;
  }
  ring<T> batch;
  try {
    outlasting<batch_handler> done;
    const locked lock(mutex_);
    if (queue_.size() != 0) {
      queue_.take(batch, limit);
      took(batch.size(), done);
    }
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  if (batch.empty()) return PyList_New(0);
  PyObject* const list = as_list(batch);
  empty(batch, true);
  const locked lock(mutex_);
  queue_.give_back(batch);
  return list;
}

template <class T>
std::vector<T> channel_of<T>::take_native(std::size_t limit) {
  std::vector<T> events;
  outlasting<batch_handler> done;
  const locked lock(mutex_);
  if (queue_.size() == 0) return events;
  const std::size_t count = std::min(limit, queue_.size());
  events.reserve(count);  // before anything is taken: it may throw
  while (events.size() < count) events.push_back(queue_.pop());
  took(count, done);
  return events;
}

template <class T>
channel_core::ran channel_of<T>::run(runs_for what) {
  stint mine{what};
  ring<T> batch;
  for (;;) {
    const batch_end end = run_batch(mine, batch);
    if (end.events == 0 && end.fine) return mine.came;
    if (goes_on(mine, end.events, end.fine)) continue;
    const locked lock(mutex_);
    queue_.give_back(batch);
    return mine.came;
  }
}

template <class T>
typename channel_of<T>::batch_end channel_of<T>::run_batch(stint& its, ring<T>& batch) {
  std::shared_ptr<const native_handler> native;
  reference callable;
  batch_end end;
  try {
    {
      outlasting<batch_handler> done;
      const locked lock(mutex_);
      queue_.give_back(batch);
      const std::size_t limit = fits(its, done);
      if (limit == 0) return end;
      native = std::static_pointer_cast<const native_handler>(handler().native);
      callable = reference::borrow(handler().python.get());
      try {
        queue_.take(batch, limit);
      } catch (const std::bad_alloc&) {
        queue_.take_all(batch);
      }
      end.events = batch.size();
      took(end.events, done);
    }
    if (native != nullptr) {
      for (auto part = batch.front(); !part.empty(); part = batch.front()) {
        (*native)(part);
        batch.drop_front(part.size());
      }
      end.fine = PyErr_Occurred() == nullptr;
    } else {
      const auto list = reference::steal(as_list(batch));
      if (!list) {
        end.fine = false;
      } else if (PyList_GET_SIZE(list.get()) != 0) {
        end.fine =
            static_cast<bool>(reference::steal(PyObject_CallOneArg(callable.get(), list.get())));
      }
    }
  } catch (...) {
    set_exception_for_caught();
    end.fine = false;
  }
  const exception_apart handlers(!end.fine);  // what is destroyed here may run Python
  empty(batch, native == nullptr);
  native.reset();
  callable = {};
  return end;
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

}  // namespace detail
MOORED_NAMESPACE_END
