// moored/interpreter.hpp: the closing gate, which every attach passes and which shutdown closes.
//
// Before CPython 3.15 nothing tells a native thread in time that the interpreter is going away: a
// check of Py_IsFinalizing is out of date when it returns, and PyGILState_Ensure then ends the
// thread (up to 3.13.0), hangs it (later) or lets it into a half torn-down interpreter (3.14). The
// gate closes that window on every version. It shuts in an atexit callback, while Python still
// works, and waits (bounded) for the calls that are inside.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <optional>
#include <thread>

#include "cpython.hpp"
#include "kept_limit.hpp"

namespace moored::inline v0 {

/// Why an attach was refused.
enum class refusal : std::uint8_t {
  none,            ///< It was not: the thread is attached.
  no_interpreter,  ///< There is no running interpreter in this process.
  closing,         ///< The interpreter has started to shut down.
  stale_thread,    ///< 3.15: this thread kept a state of an interpreter that is gone, and CPython
                   ///< still shows it.
  not_idle,        ///< borrowed: no thread is lending its state right now.
  unsupported,     ///< side, borrowed: cannot be made safe with this build of Python.
  no_memory,       ///< A thread state could not be made: no memory, or no thread to make it on.
};

[[nodiscard]] constexpr const char* describe(refusal why) noexcept {
  switch (why) {
    case refusal::none:
      return "attached";
    case refusal::no_interpreter:
      return "there is no running Python interpreter";
    case refusal::closing:
      return "the Python interpreter is shutting down";
    case refusal::stale_thread:
      return "this thread still shows a state of an interpreter that is gone";
    case refusal::not_idle:
      return "no thread is lending its state";
    case refusal::unsupported:
      return "this strategy cannot be made safe with this Python";
    case refusal::no_memory:
      return "no memory for a thread state";
  }
  return "unknown";
}

/// What has happened since the process (or the fork) began. Reading it takes no lock and holds
/// nobody up.
struct counters {
  std::uint64_t attaches;        ///< Outermost attachments that began.
  std::uint64_t refusals;        ///< Attaches that were refused.
  std::uint64_t states_made;     ///< Thread states made by moored.
  std::uint64_t states_adopted;  ///< Thread states made by another binding and kept by moored.
  std::uint64_t states_kept;     ///< States, made or adopted, that are kept now.
  std::uint64_t states_freed;    ///< States, made or adopted, that moored has freed.
  /// Left to CPython: their interpreter closed, their process forked, or Python ended their thread.
  std::uint64_t states_forgotten;
  std::uint64_t overdue;  ///< Calls that were still inside when shutdown stopped waiting.
  /// Of those freed: let go because more were kept than set_kept_limit() allows.
  std::uint64_t states_over_limit;
};

namespace detail {

/// The end of a wait: a moment, or never.
///
/// It goes by the steady clock, and by what its owner says to have slept: a clock that stands still
/// makes no wait longer.
class deadline {
 public:
  using clock = std::chrono::steady_clock;
  using nanoseconds = std::chrono::nanoseconds;
  /// Nothing: never.
  explicit deadline(std::optional<nanoseconds> limit) noexcept {
    const auto now = clock::now();
    if (!limit || *limit >= clock::time_point::max() - now) return;
    until_ = now + *limit;
    left_ = *limit;
  }
  [[nodiscard]] bool over() const noexcept {
    return left_ <= nanoseconds(0) || clock::now() >= until_;
  }
  /// What is left; nothing when there is no end.
  [[nodiscard]] std::optional<nanoseconds> rest() const noexcept {
    if (never()) return std::nullopt;
    return std::max(std::min<nanoseconds>(until_ - clock::now(), left_), nanoseconds(0));
  }
  void slept(nanoseconds time) noexcept {
    if (!never()) left_ -= time;
  }

 private:
  [[nodiscard]] bool never() const noexcept { return until_ == clock::time_point::max(); }
  clock::time_point until_ = clock::time_point::max();
  nanoseconds left_ = nanoseconds::max();
};

/// Looks until `done`, or until the time is over. For shutdown, which happens once and can look
/// again where nobody should have to notify it.
template <class Done>
void look_until(Done done, deadline& until) noexcept {
  auto pause = std::chrono::microseconds(50);
  while (!done() && !until.over()) {
    std::this_thread::sleep_for(pause);
    until.slept(pause);
    if (pause < std::chrono::milliseconds(2)) pause *= 2;
  }
}

/// Waits until nobody is inside a gate that has closed: how many still are when the time is over.
///
/// None, once seen, is final. Whoever is counted in later is on the way to being refused, and a
/// second look would take that for a call.
template <class Inside>
[[nodiscard]] std::uint64_t wait_for_none(Inside inside, deadline::nanoseconds limit) noexcept {
  std::uint64_t still = 0;
  deadline until(limit);
  look_until([&] { return (still = inside()) == 0; }, until);  // leaving notifies nobody: too dear
  return still;
}

class gate {
 public:
  /// Counts the caller in if `expected` is the life that is open now. Every true is followed by one
  /// leave().
  ///
  /// The count must be visible before the life is read, and close() writes the life before it reads
  /// the count: only a sequentially consistent order on both sides lets neither miss the other.
  [[nodiscard]] bool enter(life expected) noexcept {
    entered_.fetch_add(1, std::memory_order_seq_cst);
    if (life_.load(std::memory_order_seq_cst) == expected && is_open(expected)) return true;
    leave_unused();
    return false;
  }
  void leave() noexcept { left_.fetch_add(1, std::memory_order_release); }

  [[nodiscard]] life now() const noexcept { return life_.load(std::memory_order_acquire); }
  [[nodiscard]] static constexpr bool is_open(life which) noexcept { return (which & 1) != 0; }

  /// How often somebody has entered: a clock that runs anyway.
  [[nodiscard]] std::uint64_t clock() const noexcept {
    return entered_.load(std::memory_order_relaxed);
  }

  /// True from close() until the interpreter is gone.
  [[nodiscard]] bool closing() const noexcept { return closing_.load(std::memory_order_acquire); }

  /// Begins a life. The GIL is held. False when Python refused. Not noexcept: it runs Python code,
  /// and up to 3.13.0 a thread that waits for the GIL of a finalising interpreter is unwound.
  [[nodiscard]] bool open();
  /// Ends it: refuses from now on, then waits for the calls inside, at most for the bound. The GIL
  /// is held.
  void close() noexcept;

  /// True when shutdown has stopped waiting for those counted in during a life, of which `now` was
  /// read then or at its end.
  [[nodiscard]] bool gave_up_on(life now) const noexcept {
    return ((now - 1) | 1) <= given_up_.load(std::memory_order_acquire);
  }
  /// A state of the main interpreter for a thread that is counted in; null without memory, and when
  /// shutdown has given up on it: CPython reads what is gone when a state is made too late.
  /// Shutdown in turn gives up when no state is being made. Not attached: with tracemalloc on,
  /// making one waits for the GIL.
  [[nodiscard]] PyThreadState* make_state(life now) noexcept {
    const std::lock_guard lock(making_);
    return gave_up_on(now) ? nullptr : cpython::make_state(PyInterpreterState_Main());
  }
  /// cpython::try_ensure(), likewise.
  [[nodiscard]] std::optional<PyGILState_STATE> try_ensure(life now) noexcept {
    if (gave_up_on(now)) return std::nullopt;
    return cpython::try_ensure([this, now] { return make_state(now); });
  }
  /// Why neither could be done.
  [[nodiscard]] refusal why_no_state(life now) const noexcept {
    return gave_up_on(now) ? refusal::closing : refusal::no_memory;
  }

  void set_bound(std::chrono::milliseconds bound) noexcept {
    constexpr std::chrono::milliseconds none{0}, longest = std::chrono::hours(24 * 365);
    bound_ms_.store(std::clamp(bound, none, longest).count(), std::memory_order_relaxed);
  }

  [[nodiscard]] counters count() const noexcept;

  /// Called by close() with the GIL held, while Python still works and everybody may still enter.
  std::atomic<void (*)() noexcept> before_closing{nullptr};

  [[nodiscard]] std::chrono::milliseconds bound() const noexcept {
    return std::chrono::milliseconds(bound_ms_.load(std::memory_order_relaxed));
  }

  std::atomic<std::uint64_t> side{0};  ///< 1 while there is a side state: made, not kept.
  std::atomic<std::uint64_t> refusals{0}, made{0}, adopted{0}, kept{0}, freed{0}, forgotten{0},
      overdue{0}, over_limit{0};

  /// leave() after an entry that turned out to be something else than an attachment.
  void leave_unused() noexcept {
    turned_back_.fetch_add(1, std::memory_order_relaxed);
    leave();
  }

  /// In a forked child only the forking thread lives on; whoever else was inside is gone without
  /// having left.
  void after_fork(bool this_thread_is_inside) noexcept {
    new (&opening_) std::mutex;
    new (&making_) std::mutex;
    left_.store(entered_.load() - (this_thread_is_inside ? 1 : 0));
    forgotten.fetch_add(kept.exchange(0));
  }

 private:
  [[nodiscard]] std::uint64_t inside() const noexcept {
    const std::uint64_t left =
        left_.load(std::memory_order_acquire);  // first: it never overtakes entered_
    return entered_.load(std::memory_order_seq_cst) - left;
  }

  // Two counters that only grow are both the gate and the statistics. A line of their own:
  // everybody writes them.
  alignas(64) std::atomic<std::uint64_t> entered_{0};
  std::atomic<std::uint64_t> left_{0};
  alignas(64) std::atomic<life> life_{0};
  std::atomic<bool> closing_{false};
  std::atomic<life> given_up_{0};  // the latest life that shutdown has stopped waiting for
  std::atomic<std::uint64_t> turned_back_{0};
  std::atomic<std::int64_t> bound_ms_{5000};
  std::mutex making_;    // held while a state is made
  std::mutex opening_;   // for what open() does last
  bool hooked_ = false;  // pthread_atfork; under opening_
};

inline constinit gate the_gate;

/// Counted in at the gate for a scope, without being attached: shutdown waits for it.
class passage {
 public:
  passage() noexcept : passage(the_gate.now()) {}
  explicit passage(life now) noexcept : inside_(gate::is_open(now) && the_gate.enter(now)) {}
  ~passage() {
    if (inside_) the_gate.leave_unused();
  }
  passage(const passage&) = delete;
  passage& operator=(const passage&) = delete;
  [[nodiscard]] explicit operator bool() const noexcept { return inside_; }

 private:
  bool inside_;
};

/// Whether, and why, a kept state ends with the outermost attachment.
enum class departure : std::uint8_t { none, asked, over_limit };

/// What one thread knows. It has no destructor, so that it can still be read while other
/// thread_locals are destroyed.
struct thread_record {
  PyThreadState* kept = nullptr;  ///< The state that this thread keeps.
  life kept_in = 0;               ///< The life in which it was kept.
  life fast = 0;  ///< The same if moored made the state, which then lives as long as the thread.
  PyThreadState* guest = nullptr;  ///< The side or borrowed state that this thread is using.
  keeper* listed = &unlisted;      ///< What other threads see of its keeping.
  bool inside = false;             ///< Counted in at the gate.
  departure letting_go = departure::none;
  bool lending = false;  ///< Its own state is for others to borrow.
  bool retired = false;  ///< This thread is ending; nothing is kept for it any more.
  bool abroad = false;   ///< Counted in at a subinterpreter's gate as well.
  bool stale = false;    ///< CPython still shows this thread a state of an earlier life.

  [[nodiscard]] bool is_attached() const noexcept {
    return cpython::is_attached(guest != nullptr ? guest : kept);
  }
};

// Reached at a fixed offset from the thread pointer, also from a shared library. The default model
// calls __tls_get_addr, which alone is a tenth of an attach. It takes these few bytes of the room
// that glibc reserves for libraries loaded later; musl reserves none and would refuse to load the
// library.
#ifdef __GLIBC__
[[gnu::tls_model("initial-exec")]]
#endif
inline constinit thread_local thread_record this_thread;
static_assert(sizeof(thread_record) <= 48);

inline PyObject* close_at_exit(PyObject*, PyObject*) noexcept {
  the_gate.close();
  Py_RETURN_NONE;
}

inline bool gate::open() {
  if (is_open(life_.load(std::memory_order_relaxed))) return true;
  if (closing()) return true;  // nobody opens it again before the interpreter is gone
  // A subinterpreter has atexit callbacks of its own, and ends before native threads lose the main
  // one.
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) return true;
  static PyMethodDef method = {"moored_close", close_at_exit, METH_NOARGS,
                               "Refuse native threads and wait for those inside."};
  // The atexit module, not Py_AtExit and not PyUnstable_AtExit: those run when Python code no
  // longer can.
  PyObject* const callback = PyCFunction_New(&method, nullptr);
  PyObject* const module = callback ? PyImport_ImportModule("atexit") : nullptr;
  PyObject* const done = module ? PyObject_CallMethod(module, "register", "O", callback) : nullptr;
  const bool registered = done != nullptr;
  Py_XDECREF(done);
  Py_XDECREF(module);
  Py_XDECREF(callback);
  if (!registered) return false;
  // Importing lets go of the GIL, and another thread may have been faster, or the end have come. A
  // lock, because without a GIL two may be here at once; no Python runs under it.
  const std::lock_guard lock(opening_);
  if (is_open(life_.load(std::memory_order_relaxed)) || closing()) return true;
  if (!hooked_) {
    const int failed = pthread_atfork(nullptr, nullptr, [] {
      thread_record& me = this_thread;
      me.kept = nullptr;
      me.kept_in = me.fast = 0;
      me.letting_go = departure::none;
      me.listed = &unlisted;
      the_keepers.after_fork();
      the_gate.after_fork(me.inside);
    });
    if (failed != 0) return PyErr_NoMemory() != nullptr;
    hooked_ = true;
  }
  // When the interpreter is gone its closing is over, and another may be started. CPython forgets
  // this callback at every end; it holds 32 of them, and if it is full a later interpreter must be
  // opened by hand.
  (void)Py_AtExit([] { the_gate.closing_.store(false, std::memory_order_release); });
  life_.fetch_add(1, std::memory_order_seq_cst);
  return true;
}

inline void gate::close() noexcept {
  if (!is_open(life_.load(std::memory_order_relaxed))) return;
  if (auto* const prepare = before_closing.load(std::memory_order_acquire)) prepare();
  closing_.store(true, std::memory_order_release);
  life_.fetch_add(1, std::memory_order_seq_cst);
  const std::uint64_t mine = this_thread.inside ? 1 : 0;
  PyThreadState* const me = PyEval_SaveThread();  // those inside may be waiting for the GIL
  const std::uint64_t still = wait_for_none([this, mine] { return inside() - mine; }, bound());
  if (still != 0) {
    const std::lock_guard lock(making_);
    given_up_.store(now() - 1, std::memory_order_release);
  }
  PyEval_RestoreThread(me);
  forgotten.fetch_add(side.exchange(0));
  if (still == 0) return;
  overdue.fetch_add(still);
  cpython::end_after_late_threads();
  PySys_WriteStderr(
      "moored: shutdown goes on although %llu native call(s) did not leave Python within %lld ms\n",
      static_cast<unsigned long long>(still),
      static_cast<long long>(bound_ms_.load(std::memory_order_relaxed)));
}

inline counters gate::count() const noexcept {
  const auto read = [](const std::atomic<std::uint64_t>& value) {
    return value.load(std::memory_order_relaxed);
  };
  const std::uint64_t turned_back =
      read(turned_back_);  // first, so that attaches cannot become negative
  return {.attaches = read(entered_) - turned_back,
          .refusals = read(refusals),
          .states_made = read(made),
          .states_adopted = read(adopted),
          .states_kept = read(kept),
          .states_freed = read(freed),
          .states_forgotten = read(forgotten),
          .overdue = read(overdue),
          .states_over_limit = read(over_limit)};
}

}  // namespace detail

/// Opens the closing gate: from here on shutdown waits for native calls, and refuses new ones.
///
/// Call it with the GIL held, as early as you can: in your module's init function, or right after
/// Py_Initialize. atexit callbacks run in reverse order, so those registered earlier than this one
/// run when attaching is refused already. Calling it again does nothing. A thread that attaches
/// first opens the gate by itself, but before 3.15 that first attach alone is not protected against
/// a shutdown in the same moment. False when Python could not register the callback; a Python
/// exception is then set.
inline bool open() {
  return detail::the_gate.open();
}

/// How long shutdown waits for native calls that are inside. 5 seconds unless set; a clock that
/// stands still makes it no longer. Any thread.
inline void set_closing_bound(std::chrono::milliseconds bound) noexcept {
  detail::the_gate.set_bound(bound);
}

/// How many states threads may keep: 0, the default, for any number. Any thread.
///
/// When one more is kept, the state that has been idle longest is marked, and its own thread lets
/// it go at the end of its next attachment; until then it stays, as its thread may be on its way.
/// An adopted one goes when its thread next attaches or calls keep_thread(), which answers false.
/// What threads keep in subinterpreters does not count.
inline void set_kept_limit(std::size_t limit) noexcept {
  detail::the_keepers.set_limit(limit, detail::the_gate.now());
}

/// Any thread, attached or not.
[[nodiscard]] inline counters count() noexcept {
  return detail::the_gate.count();
}

}  // namespace moored::inline v0
