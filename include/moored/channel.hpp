// moored/channel.hpp: native events reach Python in batches; their senders never wait for the GIL.
#pragma once

#include <Python.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "converter.hpp"
#include "delivery.hpp"
#include "detail/channel/events.hpp"
#include "detail/channel/registry.hpp"
#include "detail/channel/table.hpp"

MOORED_NAMESPACE_BEGIN

/// A bounded queue of events from native threads to Python.
///
/// A handle: copies are the same channel. When the last handle is gone the channel closes; what was
/// sent before is still delivered, as long as Python's side (capsule()) lives. Any thread may call
/// anything, attached or not, unless it says otherwise. Events of one sender stay in order.
///
/// A T is moved, and destroyed by whichever thread has it last. Its move constructor must not
/// throw; it, and the destruction of what has been moved from, must not use Python or the channel.
///
/// A channel belongs to the main interpreter: its handler runs there, also when the sender is
/// attached to a subinterpreter.
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
  /// Memory, a thread or a descriptor that is not to be had holds no sender up: an event that
  /// cannot be queued is refused and counted. Where no consumer can be told of one that is queued
  /// it stays queued, and the next sender tries again, as a blocked one does by itself.
  ///
  /// No point at which a thread is cancelled (pthread_cancel).
  MOORED_HIDDEN sent send(T value) noexcept { return core_->send(std::move(value), true); }
  /// The same, but where send() would wait it rejects.
  MOORED_HIDDEN sent try_send(T value) noexcept { return core_->send(std::move(value), false); }

  /// Takes the memory for so many events in advance: no send fails for lack of it as long as no
  /// more are queued. Throws std::bad_alloc.
  MOORED_HIDDEN void reserve(std::size_t events) { core_->reserve(events); }

  /// Refuses from now on, and wakes all that wait. What was sent is still delivered.
  MOORED_HIDDEN void close() noexcept { core_->close(); }
  MOORED_HIDDEN [[nodiscard]] bool closed() const noexcept { return core_->closed(); }
  MOORED_HIDDEN [[nodiscard]] channel_stats stats() const noexcept { return core_->stats(); }

  /// Changes the delivery, also while events flow. Throws unsupported.
  MOORED_HIDDEN void deliver_by(delivery how) { core_->deliver_by(how); }
  MOORED_HIDDEN [[nodiscard]] delivery delivered_by() const noexcept {
    return core_->delivered_by();
  }

  /// A native handler, run attached, with the events of one batch. An exception is reported as
  /// unraisable. May be called unattached; attaches.
  MOORED_HIDDEN void on_batch(std::function<void(view<T>)> handler) {
    {
      const attachment attached = try_attach(interpreter::main());
      if (attached) detail::channel_registry::the().meet_python();
    }
    core_->handle_by_native(std::move(handler));
  }
  /// A Python callable, given a list; or null for none. Attached to main.
  MOORED_HIDDEN void on_batch(PyObject* handler) {
    detail::channel_registry::the().meet_python();
    core_->set_handler(handler);
  }

  /// Runs the handler on what is queued, within the channel's hold, unless it runs already; for
  /// event loops, when told_by().fd() can be read. True when something is left: call again soon.
  /// Attached. An exception of the handler is reported as unraisable, but Ctrl-C, which is raised
  /// in main.
  MOORED_HIDDEN bool deliver() {
    return core_->deliver(true) == detail::channel_core::left::something;
  }

  /// At most `limit` events, as a new list; null with an exception. Attached.
  MOORED_HIDDEN [[nodiscard]] PyObject* take(std::size_t limit = all) { return core_->take(limit); }
  /// Throws std::bad_alloc, and has then taken nothing.
  MOORED_HIDDEN [[nodiscard]] std::vector<T> take_native(std::size_t limit = all) {
    return core_->take_native(limit);
  }
  /// Waits, without the GIL, until something is queued or the channel is closed: true.
  MOORED_HIDDEN bool wait(std::optional<std::chrono::nanoseconds> limit = {}) {
    using waited = detail::channel_core::waited;
    detail::deadline due(limit);
    for (;;) {
      const waited came = core_->wait(due);
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
