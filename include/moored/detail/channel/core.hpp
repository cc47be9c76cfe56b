// moored/detail/channel/core.hpp: what all channels do whatever their events are: tell the consumer, run
// the handler, close.
//
// One mutex guards the queue and everything else. It is held for nanoseconds, never while Python
// runs and never while its holder waits for the GIL; so a thread that holds the GIL may take it.
#pragma once

#include <Python.h>

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "../../attach.hpp"
#include "../../delivery.hpp"
#include "../cpython/gil_view.hpp"
#include "wakeup.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Who waited for so long for the GIL met a main thread that is busy.
inline constexpr std::chrono::microseconds long_attach{500};
/// Longer than that is a clock that has jumped.
inline constexpr std::chrono::seconds longest_attach{1};
/// A waiter looks again after so long, in case the OS refused to tell it.
inline constexpr std::chrono::seconds second_look{1};
/// A blocked sender that could tell nobody tries again after so long.
inline constexpr std::chrono::milliseconds second_try{10};

class channel_core;
/// Enters for a channel whose interrupt main does not see for some ms; see channel_registry.hpp.
/// False when nobody can be had for it.
[[nodiscard]] inline bool watch_over(channel_core& channel) noexcept;

class channel_core : public std::enable_shared_from_this<channel_core> {
 public:
  using locked = std::unique_lock<std::mutex>;
  using clock = std::chrono::steady_clock;

  explicit channel_core(channel_options options) : options_(std::move(options)) {
    check(options_.by);
    if (options_.capacity == 0) options_.capacity = 1;
    init(mutex_);
  }
  channel_core(const channel_core&) = delete;
  channel_core& operator=(const channel_core&) = delete;
  virtual ~channel_core() { drop_handler(); }

  [[nodiscard]] const char* name() const noexcept { return options_.name.c_str(); }
  [[nodiscard]] wakeup& told_by() noexcept { return wakeup_; }
  [[nodiscard]] channel_stats stats() const noexcept;
  [[nodiscard]] bool closed() const noexcept;
  void close() noexcept;

  /// Any thread, attached or not. Under `enter` the handler may run before it returns.
  void deliver_by(delivery how);
  void set_times(std::optional<std::chrono::nanoseconds> hold,
                 std::optional<std::chrono::nanoseconds> linger);
  [[nodiscard]] delivery delivered_by(std::chrono::nanoseconds* hold = nullptr,
                                      std::chrono::nanoseconds* linger = nullptr) const noexcept;
  void listen(bool listening) noexcept;

  /// A callable, or null. Attached.
  void set_handler(PyObject* handler) noexcept;

  enum class waited : std::uint8_t { ready, timed_out, signal };
  /// Waits until something is queued or the channel is closed. Attached or not; lets go of the GIL
  /// meanwhile. `signal`: look for one, then wait on. Throws std::system_error when the OS refuses.
  [[nodiscard]] waited wait(deadline& until);

  enum class left : std::uint8_t { nothing, something, error };
  /// Runs the handler for at most `hold`, unless somebody else is running it. Attached. `error`:
  /// the handler's exception is set, and something may be left.
  [[nodiscard]] left deliver() { return deliver_reporting(false); }

  /// At most `limit` events as a new list; null with an exception. Attached.
  [[nodiscard]] virtual PyObject* take(std::size_t limit) = 0;

  /// Enters, and runs the handler, if a pending call is still on its way.
  [[nodiscard]] bool is_interrupting() const noexcept {
    const locked lock(mutex_);
    return pending_ != nullptr && queued() != 0 && !running_;
  }
  void enter_instead_of_main() noexcept {
    {
      const locked lock(mutex_);
      if (running_ || queued() == 0 || options_.by != delivery::adaptive) return;
      claim();
    }
    enter();
  }

  /// At the end of the interpreter the handler gets what is queued, and what then is left is
  /// counted and told. Attached.
  void farewell() noexcept;

  // Around a fork: the parent's locks are let go of on both sides, and the child's channel is
  // closed, for its events, its senders and its descriptor are the parent's.
  void before_fork() noexcept { mutex_.lock(); }
  void after_fork_in_parent() noexcept { mutex_.unlock(); }
  void after_fork_in_child() noexcept;

 protected:
  /// Who is to be told of an event; found out under the lock, done without it.
  enum class tell : std::uint8_t { nobody, waiters, inside, relief, interrupt, adapt };

  [[nodiscard]] tell whom_to_tell() noexcept {
    if (MOORED_LIKELY(told_))
      return tell::nobody;
    return whom_to_tell_first();
  }
  void do_tell(tell whom) noexcept;

  /// Waits for room with `lock` held again at its end; false when there will be none. Not attached.
  [[nodiscard]] bool wait_for_room(locked& lock) noexcept;

  /// After events have left the queue. Locked.
  void made_room(std::size_t taken) noexcept;

  [[nodiscard]] virtual std::size_t queued() const noexcept = 0;                    // locked
  virtual void discard() noexcept = 0;                                              // locked
  [[nodiscard]] virtual bool has_native_handler() const noexcept { return false; }  // locked
  /// Takes at most `limit` events and runs the handler on them: its success. `lock` is let go of
  /// meanwhile. Attached. On failure an exception is set.
  [[nodiscard]] virtual bool run_batch(locked& lock, std::size_t limit) = 0;
  [[nodiscard]] PyObject* handler() const noexcept { return handler_; }  // locked

  mutable std::mutex mutex_;
  channel_options options_;
  channel_stats stats_;  // depth is queued()
  bool closed_ = false;
  // Whoever is to be told of what is queued has been, if anybody is, and has not emptied the queue
  // since; or somebody is running the handler. The one flag that senders look at.
  bool told_ = false;
  bool running_ = false;  // somebody runs the handler, or is about to attach for it
  std::thread::id runner_;

 private:
  /// It is held for some ns: who finds it taken does better to look again than to sleep at once.
  static void init(std::mutex& mutex) noexcept {
#ifdef __GLIBC__
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(mutex.native_handle(), &attributes);
    pthread_mutexattr_destroy(&attributes);
#endif
  }
  [[nodiscard]] tell whom_to_tell_first() noexcept;
  [[nodiscard]] bool has_handler() const noexcept {
    return handler_ != nullptr || has_native_handler();
  }
  [[nodiscard]] left deliver_reporting(bool report);
  [[nodiscard]] left run(locked& lock, bool report);
  void stop_running(bool told) noexcept;
  void tell_waiters() noexcept;
  void nobody_was_told() noexcept;
  void tell_again() noexcept;
  void enter() noexcept;
  void relieve() noexcept;
  void interrupt() noexcept;
  void adapt() noexcept;
  void claim() noexcept {
    told_ = running_ = true;
    runner_ = std::this_thread::get_id();
  }
  void drop_handler() noexcept;
  static int run_interrupt(void* self) noexcept;

  wakeup wakeup_;
  std::condition_variable room_;  // for senders that wait, when events have been taken
  std::condition_variable turn_;  // for who wants to run the handler, when somebody has stopped
  PyObject* handler_ = nullptr;   // owned
  std::size_t blocked_ = 0;       // senders that wait for room
  std::size_t waiting_ = 0;       // consumers in wait()
  bool listening_ = false;        // an event loop watches the descriptor
  bool wants_relief_ = false;     // the runner has held the GIL for long enough
  bool relieved_ = false;         // and somebody waits to take over
  std::shared_ptr<channel_core> pending_;  // this, while a pending call is on its way to main
  std::chrono::nanoseconds per_event_{0};  // what the handler took lately; its runner's
  clock::time_point busy_until_;           // adaptive: so long, attaching is thought to take long
};

inline channel_stats channel_core::stats() const noexcept {
  const locked lock(mutex_);
  channel_stats now = stats_;
  now.depth = queued();
  return now;
}

inline bool channel_core::closed() const noexcept {
  const locked lock(mutex_);
  return closed_;
}

inline void channel_core::close() noexcept {
  {
    const locked lock(mutex_);
    if (closed_) return;
    closed_ = true;
    room_.notify_all();
    turn_.notify_all();
  }
  wakeup_.notify();
}

inline void channel_core::deliver_by(delivery how) {
  check(how);
  {
    const locked lock(mutex_);
    options_.by = how;
  }
  tell_again();
}

inline void channel_core::set_times(std::optional<std::chrono::nanoseconds> hold,
                                    std::optional<std::chrono::nanoseconds> linger) {
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

inline void channel_core::listen(bool listening) noexcept {
  {
    const locked lock(mutex_);
    listening_ = listening;
  }
  tell_again();
}

inline void channel_core::set_handler(PyObject* handler) noexcept {
  PyObject* old = Py_XNewRef(handler);
  {
    const locked lock(mutex_);
    std::swap(handler_, old);
  }
  Py_XDECREF(old);  // not under the lock: it may run Python
  tell_again();
}

/// What was told is told anew, to whom it now concerns.
inline void channel_core::tell_again() noexcept {
  tell whom = tell::nobody;
  {
    const locked lock(mutex_);
    if (running_) return;
    told_ = false;
    if (queued() == 0) return;
    whom = whom_to_tell();
  }
  do_tell(whom);
}

inline channel_core::tell channel_core::whom_to_tell_first() noexcept {
  told_ = true;
  if (running_) {
    if (!wants_relief_) return tell::nobody;
    wants_relief_ = false;
    return tell::relief;
  }
  const delivery how =
      has_handler() || options_.by == delivery::poll ? options_.by : delivery::wake;
  switch (how) {
    case delivery::poll:
      if (waiting_ == 0 && (!listening_ || has_handler())) return tell::nobody;
      [[fallthrough]];
    case delivery::wake:
      ++stats_.wakes;
      return tell::waiters;
    case delivery::enter:
      claim();
      return tell::inside;
    case delivery::interrupt:
      return tell::interrupt;
    case delivery::adaptive:
      return tell::adapt;
  }
  return tell::nobody;
}

inline void channel_core::do_tell(tell whom) noexcept {
  switch (whom) {
    case tell::nobody:
      return;
    case tell::waiters:
      return tell_waiters();
    case tell::inside:
      return enter();
    case tell::relief:
      return relieve();
    case tell::interrupt:
      return interrupt();
    case tell::adapt:
      return adapt();
  }
}

/// A sender attaches and runs the handler for everybody. Claimed; not locked.
inline void channel_core::enter() noexcept {
  for (;;) {
    const auto asked = clock::now();
    const attachment attached = try_attach();
    const auto took = clock::now() - asked;
    locked lock(mutex_);
    if (took > long_attach)
      busy_until_ = asked + 10 * std::min<std::chrono::nanoseconds>(took, longest_attach);
    if (!attached) {
      // Python is shutting down: what is queued is counted at the farewell. Or there was no memory
      // for a state: the next sender tries again.
      stop_running(false);
      return;
    }
    ++stats_.entries;
    if (run(lock, true) != left::something) return;
    // Long enough. Whoever waits for the GIL gets it now; the next sender takes over, so that no
    // sender is kept from its own work for ever; and while none comes, this one goes on.
    claim();
    wants_relief_ = true;
    told_ = false;
    lock.unlock();
    const detachment others_turn;
  }
}

/// A sender takes over from another one.
inline void channel_core::relieve() noexcept {
  locked lock(mutex_);
  // Who holds the GIL cannot wait for who may want it.
  if (is_attached()) {
    if (running_) told_ = !(wants_relief_ = true);
    return;
  }
  relieved_ = true;
  turn_.wait(lock, [this] { return !running_; });
  relieved_ = false;
  if (closed_ && queued() == 0) return;
  claim();
  lock.unlock();
  enter();
}

/// A pending call makes the main thread run the handler. At most one is on its way.
inline void channel_core::interrupt() noexcept {
  const passage inside;
  {
    const locked lock(mutex_);
    if (pending_ != nullptr) return;
    if (inside) {
      pending_ = shared_from_this();
      ++stats_.interrupts;
    } else {
      return nobody_was_told();
    }
  }
  if (Py_AddPendingCall(run_interrupt, this) == 0) return;
  // Main has not run Python for long. The next sender tries again.
  const locked lock(mutex_);
  pending_.reset();
  --stats_.interrupts;
  nobody_was_told();
}

inline int channel_core::run_interrupt(void* self) noexcept {
  std::shared_ptr<channel_core> me;
  {
    auto* const core = static_cast<channel_core*>(self);
    const locked lock(core->mutex_);
    me = std::move(core->pending_);
  }
  if (me == nullptr) return 0;  // a child of a fork, or the farewell has been
  const left rest = me->deliver();
  if (rest == left::error) {
    // Ctrl-C and sys.exit() in the handler are main's. Of anything else main knows nothing.
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
      me->tell_again();
      return -1;
    }
    PyErr_WriteUnraisable(nullptr);
  }
  if (rest != left::nothing) me->tell_again();
  return 0;
}

/// A free GIL is entered at once. Main, if it holds it, is interrupted, and its loop is told as
/// well, because main may go to sleep in this moment and not see a pending call before it wakes.
/// Where there is no loop, somebody watches over it.
///
/// Where nobody can see who holds the GIL, the last attach tells how long it took.
inline void channel_core::adapt() noexcept {
  using holder = cpython::gil_view::holder;
  const holder now = cpython::gil_view::look();
  const bool interrupts = now == holder::main && cpython::pending_calls_interrupt;
  if (interrupts) interrupt();
  bool enters = false;
  bool listens = false;
  {
    const locked lock(mutex_);
    if (running_) return;
    listens = listening_;
    enters = now == holder::nobody || !(interrupts || listens) ||
             (now == holder::unknown && clock::now() >= busy_until_);
    if (enters) {
      claim();
    } else if (listens) {
      ++stats_.wakes;
    }
  }
  if (enters) return enter();
  if (listens) return tell_waiters();
  if (watch_over(*this)) return;
  // Main still has its pending call, and the sender is not to wait for it.
  const locked lock(mutex_);
  nobody_was_told();
}

inline void channel_core::tell_waiters() noexcept {
  if (MOORED_LIKELY(wakeup_.notify()))
    return;
  const locked lock(mutex_);
  --stats_.wakes;
  nobody_was_told();
}

/// The next sender tries again, and so do those who wait for room. Locked.
inline void channel_core::nobody_was_told() noexcept {
  if (running_) return;
  told_ = false;
  if (blocked_ != 0) room_.notify_all();
}

inline bool channel_core::wait_for_room(locked& lock) noexcept {
  if (running_ && runner_ == std::this_thread::get_id()) return false;  // it would wait for itself
  ++stats_.waits;
  ++blocked_;
  const auto full = [this] { return !closed_ && queued() >= options_.capacity; };
  while (full()) {
    room_.wait(lock, [&] { return !full() || !told_; });
    if (!full()) break;
    // Who was to be told of what is queued could not be, and nobody would make room.
    const tell whom = whom_to_tell();
    lock.unlock();
    do_tell(whom);
    lock.lock();
    if (told_ || !full()) continue;
    lock.unlock();
    std::this_thread::sleep_for(second_try);
    lock.lock();
  }
  --blocked_;
  return !closed_;
}

inline void channel_core::made_room(std::size_t taken) noexcept {
  if (taken != 0) {
    ++stats_.batches;
    stats_.largest_batch = std::max<std::uint64_t>(stats_.largest_batch, taken);
  }
  if (blocked_ != 0) room_.notify_all();
  if (queued() == 0) {
    if (!running_) told_ = false;
  } else if (waiting_ != 0) {
    wakeup_.notify();  // one waiter was told, and has not taken everything
  }
}

inline channel_core::waited channel_core::wait(deadline& until) {
  locked lock(mutex_);
  for (;;) {
    if (queued() != 0 || closed_) {
      if (waiting_ != 0 && closed_) wakeup_.notify();  // each notify wakes one
      return waited::ready;
    }
    if (until.over()) return waited::timed_out;
    ++waiting_;
    if (!running_) told_ = false;
    lock.unlock();
    const std::chrono::nanoseconds limit =
        std::min<std::chrono::nanoseconds>(until.rest().value_or(second_look), second_look);
    wakeup::woken by{};
    try {
      const detachment others_turn;
      by = wakeup_.wait(limit);
    } catch (const std::system_error&) {
      lock.lock();
      --waiting_;
      throw;
    }
    lock.lock();
    --waiting_;
    if (by == wakeup::woken::time_over) until.slept(limit);
    if (by == wakeup::woken::signal && queued() == 0 && !closed_) return waited::signal;
  }
}

inline channel_core::left channel_core::deliver_reporting(bool report) {
  locked lock(mutex_);
  if (running_) return left::nothing;  // whoever is at it will see what is queued
  claim();
  return run(lock, report);
}

/// Claimed and locked. Unless `something` is left, told_ says afterwards whether somebody will come
/// for what is queued.
inline channel_core::left channel_core::run(locked& lock, bool report) {
  using std::chrono::nanoseconds;
  const auto begin = clock::now();
  auto now = begin;
  for (;;) {
    if (queued() == 0 || !has_handler()) {
      stop_running(false);
      return left::nothing;
    }
    if (relieved_) {
      stop_running(true);
      return left::nothing;
    }
    const nanoseconds rest = options_.hold - (now - begin);
    if (rest <= nanoseconds(0) && now != begin) {
      stop_running(true);
      return left::something;
    }
    // A batch that the handler can finish in what is left of the time, going by the last ones.
    const std::size_t fits =
        per_event_ == nanoseconds(0)
            ? 64
            : static_cast<std::size_t>(std::max<std::int64_t>(1, rest / per_event_));
    const std::uint64_t before = stats_.delivered;
    const bool fine = run_batch(lock, fits);
    const auto after = clock::now();
    const auto events =
        static_cast<std::int64_t>(std::max<std::uint64_t>(1, stats_.delivered - before));
    per_event_ = std::max(nanoseconds(1), (per_event_ + (after - now) / events) / 2);
    now = after;
    if (fine) continue;
    if (!report) {
      stop_running(queued() != 0);
      return left::error;
    }
    PyObject* const reported = Py_XNewRef(handler_);
    lock.unlock();
    PyErr_WriteUnraisable(reported);
    Py_XDECREF(reported);
    lock.lock();
  }
}

inline void channel_core::stop_running(bool told) noexcept {
  running_ = false;
  wants_relief_ = false;
  told_ = told;
  turn_.notify_all();
  if (!told && blocked_ != 0) room_.notify_all();
}

inline void channel_core::drop_handler() noexcept {
  if (handler_ == nullptr) return;
  // On whichever thread the last handle ends, with or without the GIL.
  const attachment attached = try_attach();
  if (attached) Py_DECREF(handler_);
  handler_ = nullptr;
}

inline void channel_core::farewell() noexcept {
  close();
  deadline until(the_gate.bound());
  {
    const detachment others_turn;  // a runner may be waiting for the GIL
    const auto is_over = [this] {
      const locked lock(mutex_);
      return !running_;
    };
    look_until(is_over, until);
  }
  while (!until.over() && deliver_reporting(true) == left::something) {
  }
  PyObject* handler = nullptr;
  std::size_t rest = 0;
  {
    const locked lock(mutex_);
    std::swap(handler, handler_);
    rest = queued();
    stats_.undelivered += rest;
    discard();
  }
  Py_XDECREF(handler);
  if (rest != 0) {
    PySys_WriteStderr("moored: channel '%.100s' ends with %zu event(s) that nobody took\n", name(),
                      rest);
  }
}

inline void channel_core::after_fork_in_child() noexcept {
  // Their waiters are not here, and a condition variable that somebody waits on cannot be
  // destroyed.
  new (&room_) std::condition_variable;
  new (&turn_) std::condition_variable;
  blocked_ = waiting_ = 0;
  if (runner_ != std::this_thread::get_id()) running_ = false;
  stats_.undelivered += queued();
  discard();
  closed_ = true;
  mutex_.unlock();
}

}  // namespace detail
MOORED_NAMESPACE_END
