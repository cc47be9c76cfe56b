// moored/detail/channel/core.hpp: a channel, whatever its events are.
//
// One mutex guards the queue and everything else. It is held for nanoseconds, never while Python
// runs, a user's object is destroyed, or its holder waits for the GIL; so a thread that holds the
// GIL may take it. What it guards is in rooms, each with one job: queue.hpp (what is queued),
// runner.hpp (whose turn it is to run the handler), consumers.hpp (which consumers wait).
// What is declared here and is longer is in notify.hpp (the deliveries), running.hpp (one turn of
// the handler), waiting.hpp (the consumers' side) and ending.hpp.
#pragma once

#include <Python.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "../../attach.hpp"
#include "../../delivery.hpp"
#include "../../reference.hpp"
#include "../lock.hpp"
#include "consumers.hpp"
#include "exceptions.hpp"
#include "runner.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// How long a channel accepts, and what is left of it.
enum class life : std::uint8_t {
  open,    ///< It accepts events.
  closed,  ///< It refuses them; what is queued may still be taken, and is given to the handler.
  ended,   ///< As closed; Python has ended, or it is a fork's child: the handler runs no more.
};

/// What runs on batches: a callable, or a native function of the channel's own type, or nothing.
struct batch_handler {
  reference python;
  std::shared_ptr<const void> native;

  [[nodiscard]] explicit operator bool() const noexcept {
    return static_cast<bool>(python) || native != nullptr;
  }
};

class channel_core;
/// A thread of moored's sees that the channel's handler is run, if that is late; see registry.hpp.
/// False when there is neither memory nor a thread for that.
[[nodiscard]] inline bool watch_over(channel_core& channel) noexcept;

class channel_core : public std::enable_shared_from_this<channel_core> {
 public:
  using clock = std::chrono::steady_clock;

  /// Throws unsupported, and std::system_error without descriptors.
  explicit channel_core(channel_options options);
  channel_core(const channel_core&) = delete;
  channel_core& operator=(const channel_core&) = delete;
  virtual ~channel_core() = default;

  // Any thread, attached or not, but where something else is said.

  [[nodiscard]] const char* name() const noexcept { return options_.name.c_str(); }
  [[nodiscard]] channel_stats stats() const noexcept;
  [[nodiscard]] bool closed() const noexcept;
  void close() noexcept;

  /// Under `enter` the handler may run before it returns.
  void deliver_by(delivery how);
  void set_times(std::optional<std::chrono::nanoseconds> hold,
                 std::optional<std::chrono::nanoseconds> linger) noexcept;
  [[nodiscard]] delivery delivered_by(std::chrono::nanoseconds* hold = nullptr,
                                      std::chrono::nanoseconds* linger = nullptr) const noexcept;

  /// A callable, or null. Attached to main.
  void set_handler(PyObject* handler) noexcept { handle_by({reference::borrow(handler), nullptr}); }
  void handle_by(batch_handler fresh) noexcept;

  // Consumers; see consumers.hpp.

  [[nodiscard]] wakeup& told_by() noexcept { return consumers_.own(); }
  void listen(bool listening) noexcept;
  /// A new subscription's descriptor. Throws std::bad_alloc, and std::system_error without
  /// descriptors.
  [[nodiscard]] int subscribe();
  void acknowledge(int fd) noexcept;
  void unsubscribe(int fd) noexcept;

  enum class waited : std::uint8_t { ready, timed_out, signal };
  /// Waits until something is queued or the channel is closed; lets go of the GIL meanwhile.
  /// `signal`: look for one, then wait on.
  [[nodiscard]] waited wait(deadline& due) noexcept;

  enum class left : std::uint8_t { nothing, something, error };
  /// Runs the handler for at most `hold`, unless it is running. It runs in main. Attached. `error`
  /// comes only where errors are not reported: the handler's exception is set, and something may be
  /// left, of which the consumers have been told.
  [[nodiscard]] left deliver(bool reports);

  /// At most `limit` events as a new list; null with an exception. Attached.
  [[nodiscard]] virtual PyObject* take(std::size_t limit) = 0;

  // For the registry.

  /// Events are queued for a handler, and no thread runs it.
  [[nodiscard]] bool is_late() const noexcept;
  /// Sees that the handler is run. Not attached.
  void look_after() noexcept;

  /// The end of Python: the handler gets what is queued, and what then is left is counted and told.
  /// Attached to main.
  void farewell(deadline& due) noexcept;
  /// The same where Python can run no more.
  void end_without_python() noexcept;

  // Around a fork: the parent's lock is let go of on both sides, and the child's channel is closed,
  // for its events and its senders are the parent's. Nothing is destroyed there.
  void before_fork() noexcept MOORED_UNCHECKED { mutex_.lock(); }
  void after_fork_in_parent() noexcept MOORED_UNCHECKED { mutex_.unlock(); }
  void after_fork_in_child() noexcept MOORED_UNCHECKED;

 protected:
  /// A thread, or a consumer, may have to be told of what is queued. This is all that a send to a
  /// channel costs while its consumers know already.
  [[nodiscard]] bool is_untold() const noexcept MOORED_REQUIRES(mutex_) {
    return consumers_.any_untold() || (runner_.wants_sender() && is_run_by_threads());
  }
  /// Tells them. May run the handler, within which the channel's last handle may go: a caller that
  /// goes on with the channel holds it.
  void tell() noexcept MOORED_EXCLUDES(mutex_);

  /// Waits for room; false when there will be none. Not attached.
  [[nodiscard]] bool wait_for_room() noexcept MOORED_REQUIRES(mutex_);
  /// After so many events have been taken. What is let go by it is destroyed without the lock.
  void made_room(std::size_t taken, outlasting<batch_handler>& done) noexcept
      MOORED_REQUIRES(mutex_);

  [[nodiscard]] bool refuses() const noexcept MOORED_REQUIRES(mutex_) {
    return life_ != life::open;
  }
  [[nodiscard]] const batch_handler& handler() const noexcept MOORED_REQUIRES(mutex_) {
    return handler_;
  }

  [[nodiscard]] virtual std::size_t queued() const noexcept MOORED_REQUIRES(mutex_) = 0;
  /// Destroys what is queued, and counts it as undelivered: how many.
  [[nodiscard]] virtual std::size_t discard() noexcept MOORED_EXCLUDES(mutex_) = 0;
  /// Counts it so and destroys nothing.
  virtual void forget() noexcept MOORED_REQUIRES(mutex_) = 0;

  /// For which delivery a runner runs.
  enum class runs_for : std::uint8_t {
    senders,   ///< A sender that has entered.
    main,      ///< Main, which was interrupted.
    caller,    ///< deliver(), which does not report errors.
    reporter,  ///< deliver(), which does.
    farewell,
  };
  enum class ran : std::uint8_t {
    empty,      ///< Nothing is left, or another runner comes for it.
    hold_over,  ///< The runner has had the GIL for long. A sender's goes on when others had a turn.
    elsewhere,  ///< What is left is for others, and they are to be told.
    error,      ///< An exception is set; the same.
  };
  /// One turn of the handler. The runner's.
  struct stint {
    runs_for what;
    clock::time_point begin = clock::now();
    clock::time_point now = begin;  // since then the batch runs
    ran came = ran::empty;          // when it is over
    bool is_new = true;
  };

  /// Runs the handler on batch after batch. By the runner, attached to main. Its turn is over
  /// afterwards, but for a sender's hold_over.
  [[nodiscard]] virtual ran run(runs_for what) MOORED_EXCLUDES(mutex_) = 0;
  /// How many events the next batch may have; 0 when the stint is over.
  [[nodiscard]] std::size_t fits(stint& its, outlasting<batch_handler>& done) noexcept
      MOORED_REQUIRES(mutex_);
  /// After a batch of so many, which ended with an exception unless it was `fine`. False when the
  /// stint is over.
  [[nodiscard]] bool goes_on(stint& its, std::size_t events, bool fine) MOORED_EXCLUDES(mutex_);

  mutable mutex mutex_;
  channel_options options_;                        // name, capacity, when_full: never changed
  channel_stats stats_ MOORED_GUARDED_BY(mutex_);  // but depth and wakes

 private:
  /// What a sender does after it has told the consumers.
  enum class duty : std::uint8_t { none, enter, relieve, interrupt, adapt };

  [[nodiscard]] bool is_run_by_threads() const noexcept MOORED_REQUIRES(mutex_) {
    return options_.by >= delivery::enter && handler_ && life_ != life::ended;
  }
  [[nodiscard]] bool has_turn_for(runs_for what) const noexcept MOORED_REQUIRES(mutex_);
  [[nodiscard]] bool tells_own() const noexcept MOORED_REQUIRES(mutex_);
  [[nodiscard]] duty find_duty() noexcept MOORED_REQUIRES(mutex_);

  void end_turn(outlasting<batch_handler>& done) noexcept MOORED_REQUIRES(mutex_);
  void hand_on() noexcept MOORED_EXCLUDES(mutex_);
  void let_go_if_done(outlasting<batch_handler>& done) noexcept MOORED_REQUIRES(mutex_);

  /// `looks`: how long the attach takes is to be known.
  void enter(bool looks) noexcept MOORED_EXCLUDES(mutex_);
  [[nodiscard]] bool relieve() noexcept MOORED_EXCLUDES(mutex_);
  void interrupt() noexcept MOORED_EXCLUDES(mutex_);
  void adapt() noexcept MOORED_EXCLUDES(mutex_);
  void tell_own() noexcept MOORED_EXCLUDES(mutex_);
  /// What was called could not be: the next sender tries again, and so do those that are blocked.
  void was_refused() noexcept MOORED_EXCLUDES(mutex_);
  static int run_interrupt(void* self) noexcept;

  void count(told came) noexcept {
    if (came == told::all) wakes_.fetch_add(1, std::memory_order_relaxed);
  }

  consumers consumers_;
  std::atomic<std::uint64_t> wakes_{0};
  pace pace_;        // the runner's
  condition room_;   // for senders that wait, when events have been taken
  condition turns_;  // for a sender that waits, when the runner has stopped
  runner runner_ MOORED_GUARDED_BY(mutex_);
  life life_ MOORED_GUARDED_BY(mutex_) = life::open;
  bool listening_ MOORED_GUARDED_BY(mutex_) = false;  // a loop watches the channel's own descriptor
  std::size_t blocked_ MOORED_GUARDED_BY(mutex_) = 0;  // senders that wait for room
  batch_handler handler_ MOORED_GUARDED_BY(mutex_);
  /// This, while a pending call is on its way to main.
  std::shared_ptr<channel_core> pending_ MOORED_GUARDED_BY(mutex_);
  /// Until then attaching is thought to take long.
  clock::time_point busy_until_ MOORED_GUARDED_BY(mutex_);
};

/// What could not be done is tried again after so long.
inline constexpr std::chrono::milliseconds second_try{10};

/// Python has ended, and no life of it has begun since; or it is ending.
[[nodiscard]] inline bool python_has_ended() noexcept {
  const epoch now = the_gate.now();
  return is_closing(now) || (now != phase::absent && !is_open(now) && Py_IsInitialized() == 0);
}

inline channel_core::channel_core(channel_options options) : options_(std::move(options)) {
  check(options_.by);
  if (options_.capacity == 0) options_.capacity = 1;
  mutex_.expect_short_waits();
  if (!python_has_ended()) return;
  life_ = life::ended;
  (void)consumers_.own().notify();
}

inline channel_stats channel_core::stats() const noexcept {
  const locked lock(mutex_);
  channel_stats now = stats_;
  now.wakes = wakes_.load(std::memory_order_relaxed);
  now.depth = queued();
  return now;
}

inline bool channel_core::closed() const noexcept {
  const locked lock(mutex_);
  return refuses();
}

inline void channel_core::close() noexcept {
  outlasting<batch_handler> done;
  consumers::call all;
  {
    const locked lock(mutex_);
    if (refuses()) return;
    life_ = life::closed;
    room_.notify_all();
    all = consumers_.look(true);
    let_go_if_done(done);
  }
  (void)consumers_.tell(all);
}

inline void channel_core::deliver_by(delivery how) {
  check(how);
  {
    const locked lock(mutex_);
    options_.by = how;
    consumers_.ask_again();
    if (runner_.now() == turn::called) runner_.call_off();
  }
  tell();
}

inline void channel_core::set_times(std::optional<std::chrono::nanoseconds> hold,
                                    std::optional<std::chrono::nanoseconds> linger) noexcept {
  const locked lock(mutex_);
  if (hold) options_.hold = *hold;
  if (linger) options_.linger = *linger;
}

inline delivery channel_core::delivered_by(std::chrono::nanoseconds* hold,
                                           std::chrono::nanoseconds* linger) const noexcept {
  const locked lock(mutex_);
  if (hold != nullptr) *hold = options_.hold;
  if (linger != nullptr) *linger = options_.linger;
  return options_.by;
}

inline void channel_core::handle_by(batch_handler fresh) noexcept {
  {
    outlasting<batch_handler> old, done;
    const locked lock(mutex_);
    old.take(handler_);
    if (life_ != life::ended) std::swap(handler_, fresh);
    consumers_.ask_again();
    if (runner_.now() == turn::called) runner_.call_off();  // it may have been called for another
    let_go_if_done(done);
  }
  tell();
}

/// A channel that is closed and empty will never run its handler again. What the handler holds
/// (often the channel, through Python) is let go.
inline void channel_core::let_go_if_done(outlasting<batch_handler>& done) noexcept {
  if (life_ == life::closed && queued() == 0 && !runner_.is_running()) done.take(handler_);
}

inline void channel_core::made_room(std::size_t taken, outlasting<batch_handler>& done) noexcept {
  if (taken != 0) {
    ++stats_.batches;
    stats_.largest_batch = std::max<std::uint64_t>(stats_.largest_batch, taken);
  }
  if (blocked_ != 0) room_.notify_all();
  let_go_if_done(done);
}

inline bool channel_core::wait_for_room() noexcept {
  if (runner_.is_here()) return false;  // it would wait for itself
  ++stats_.waits;
  ++blocked_;
  while (!refuses() && queued() >= options_.capacity) {
    if (!is_untold()) {
      room_.wait(mutex_);
      continue;
    }
    // What was to be told of what is queued could not be, and nothing would make room.
    mutex_.unlock();
    tell();
    mutex_.lock();
    if (refuses() || queued() < options_.capacity || !is_untold()) continue;
    mutex_.unlock();
    std::this_thread::sleep_for(second_try);
    mutex_.lock();
  }
  --blocked_;
  return !refuses();
}

}  // namespace detail
MOORED_NAMESPACE_END

#include "ending.hpp"
#include "notify.hpp"
#include "running.hpp"
#include "waiting.hpp"
