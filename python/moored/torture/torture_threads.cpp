// torture_threads: the native threads of `moored torture`, and what must be true when they are
// done.
//
// Plain C API and moored's headers, so that it works in every interpreter and in every life of one.
// The report is written when the process ends, after Python: only then is everything counted.
#include <moored/call.hpp>
#include <moored/channel.hpp>
#include <moored/moored.hpp>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using moored::refusal;

constexpr auto patience = 20s;        // for a thread's end, after Python's
constexpr auto little_patience = 1s;  // if some were too late: those never end

struct sums {
  std::atomic<std::uint64_t> calls{0};       // Python functions that native threads called
  std::atomic<std::uint64_t> refusals{0};    // and attaches that they were refused
  std::atomic<std::uint64_t> failures{0};    // and what should have been one of both
  std::atomic<std::uint64_t> attempts{0};    // sends
  std::atomic<std::uint64_t> taken{0};       // events that handlers saw
  std::atomic<std::uint64_t> farewells{0};   // attaches by the user's own thread_local destructors
  std::atomic<std::uint64_t> visits{0};      // calls in a subinterpreter
  std::atomic<std::uint64_t> overstayed{0};  // threads that stayed inside until shutdown gave up
};

// No function-local statics: a fork may come while another thread makes one, and the child then
// waits for that thread for ever.
constinit sums the_sums;

/// Which life of the interpreter this is. A callable of an earlier one is gone.
std::atomic<int> the_life{0};

using events = moored::channel<std::int64_t>;

/// What one worker thread is to do.
struct work {
  std::string kind;
  int life = 0;
  unsigned long calls = 0;           // 0: until attaching is refused
  bool comes_back = false;           // tries on after it was refused
  bool farewell_first = false;       // its thread_local is older than moored's, and goes later
  bool says_farewell = false;        // that thread_local's destructor attaches
  PyObject* callable = nullptr;      // for ever: threads outlive every owner
  void (*binding)(void*) = nullptr;  // another binding's callback
  void* context = nullptr;
  events* channel = nullptr;  // for ever, too
};

// Never destroyed: native threads live longer than static storage.
auto& the_channels = *new std::vector<events*>;  // one a life; the last one is this life's
auto& joined = *new std::vector<pthread_t>;

std::mutex the_subinterpreters_turn;
std::optional<moored::interpreter> the_subinterpreter;

int report_fd = -1;
pid_t reporter = 0;
std::atomic<bool> senders_stop{false};

/// Python's answer does not matter, but an error that is not expected does. Attached.
void call_python(PyObject* callable, int of_life) {
  PyObject* const result =
      of_life == the_life ? PyObject_CallNoArgs(callable) : PyLong_FromLong(PyRun_SimpleString(""));
  if (result == nullptr) PyErr_WriteUnraisable(nullptr);
  (result != nullptr ? the_sums.calls : the_sums.failures).fetch_add(1);
  Py_XDECREF(result);
}

struct farewell {
  PyObject* callable = nullptr;
  int life = 0;
  farewell() noexcept = default;
  farewell(const farewell&) = delete;
  farewell& operator=(const farewell&) = delete;
  ~farewell() {
    if (callable == nullptr) return;
    const moored::attachment attached = moored::try_attach();
    if (!attached) return;
    call_python(callable, life);
    the_sums.farewells.fetch_add(1);
  }
};
thread_local farewell this_threads_farewell;

/// One round of a worker's job; false when it was refused.
class rounds {
 public:
  explicit rounds(const work& job) : job_(job) {}

  refusal attach(moored::strategy how) {
    const moored::attachment attached = moored::try_attach(how);
    if (attached) call_python(job_.callable, job_.life);
    return attached.why();
  }

  refusal keep() {
    const moored::attachment attached = moored::try_attach(moored::strategy::temporary);
    if (attached) {
      (void)moored::keep_thread();
      call_python(job_.callable, job_.life);
    }
    return attached.why();
  }

  refusal nest() {
    const moored::attachment outer = moored::try_attach();
    if (!outer) return outer.why();
    {
      const moored::detachment others_turn;
      const moored::attachment inner = moored::try_attach();
      // A thread that is counted in is never refused, so that what has begun can be ended.
      if (!inner) the_sums.failures.fetch_add(1);
      const PyGILState_STATE token = PyGILState_Ensure();
      const moored::attachment innermost = moored::try_attach();
      if (innermost) call_python(job_.callable, job_.life);
      PyGILState_Release(token);
    }
    call_python(job_.callable, job_.life);
    return refusal::none;
  }

  /// Another binding's callback, protected by an attachment around it.
  refusal bind() {
    const moored::attachment attached = moored::try_attach();
    if (attached) {
      const moored::detachment others_turn;
      job_.binding(job_.context);
      the_sums.calls.fetch_add(1);
    }
    return attached.why();
  }

  refusal ask() {
    try {
      const moored::reference callable = borrowed();
      moored::call(callable);
      the_sums.calls.fetch_add(1);
      return refusal::none;
    } catch (const moored::interpreter_closed& closed) {
      return closed.why();
    } catch (const std::exception&) {
      the_sums.failures.fetch_add(1);
      return refusal::none;
    }
  }

  refusal send() {
    the_sums.attempts.fetch_add(1);
    const moored::sent came = job_.channel->send(1);
    if (came == moored::sent::rejected) std::this_thread::yield();
    return came == moored::sent::closed ? refusal::closing : refusal::none;
  }

  /// In the subinterpreter, if there is one that can be entered, or else in the main one.
  refusal visit() {
    moored::interpreter where = moored::interpreter::main();
    {
      const std::lock_guard lock(the_subinterpreters_turn);
      if (the_subinterpreter) where = *the_subinterpreter;
    }
    const moored::attachment attached = moored::try_attach(where);
    if (!attached) return where.is_main() ? attached.why() : refusal::none;
    if (PyRun_SimpleString("sum(range(100))") != 0) the_sums.failures.fetch_add(1);
    the_sums.calls.fetch_add(1);
    if (!where.is_main()) the_sums.visits.fetch_add(1);
    return refusal::none;
  }

  /// Stays inside, without the GIL, until shutdown has given up waiting, and then wants it back.
  refusal overstay() {
    const moored::attachment attached = moored::try_attach();
    if (attached) {
      const moored::detachment others_turn;
      while (moored::count().overdue == 0) std::this_thread::sleep_for(1ms);
      the_sums.overstayed.fetch_add(1);
    }
    return attached.why();
  }

 private:
  [[nodiscard]] moored::reference borrowed() const {
    const moored::attachment attached = moored::attach();
    return moored::reference::borrow(job_.callable);
  }

  const work& job_;
};

refusal once(rounds& of, const std::string& kind) {
  if (kind == "attach") return of.attach(moored::strategy::kept);
  if (kind == "temporary") return of.attach(moored::strategy::temporary);
  if (kind == "side") return of.attach(moored::strategy::side);
  if (kind == "keep") return of.keep();
  if (kind == "nest") return of.nest();
  if (kind == "call") return of.ask();
  if (kind == "send") return of.send();
  if (kind == "visit") return of.visit();
  if (kind == "overstay") return of.overstay();
  return of.bind();
}

void run(const work& job) {
  const auto will_say_farewell = [&job] {
    this_threads_farewell.callable = job.callable;
    this_threads_farewell.life = job.life;
  };
  if (job.says_farewell && job.farewell_first) will_say_farewell();
  rounds mine(job);
  for (unsigned long done = 0; job.calls == 0 || done < job.calls; ++done) {
    const refusal why = once(mine, job.kind);
    if (job.says_farewell && !job.farewell_first) will_say_farewell();
    if (why == refusal::none) continue;
    the_sums.refusals.fetch_add(1);
    if (why == refusal::unsupported || why == refusal::stale_thread) return;
    if (job.kind == "send" && senders_stop) return;
    if (!job.comes_back) return;
    std::this_thread::sleep_for(100us);
  }
}

void* run_owned(void* owned) {
  const std::unique_ptr<work> job(static_cast<work*>(owned));
  run(*job);
  return nullptr;
}

/// start(kind, threads, calls, joined, comes_back, farewell, callable, function, context)
PyObject* start(PyObject*, PyObject* arguments) {
  const char* kind = nullptr;
  const char* farewell = nullptr;
  int threads = 0;
  int joins = 0;
  int comes_back = 0;
  unsigned long calls = 0;
  PyObject* callable = nullptr;
  unsigned long long function = 0;
  unsigned long long context = 0;
  if (!PyArg_ParseTuple(arguments, "sikppsOKK", &kind, &threads, &calls, &joins, &comes_back,
                        &farewell, &callable, &function, &context)) {
    return nullptr;
  }
  const std::string_view says = farewell;
  for (int i = 0; i < threads; ++i) {
    auto job = std::make_unique<work>(
        work{.kind = kind,
             .life = the_life,
             .calls = calls,
             .comes_back = comes_back != 0,
             .farewell_first = says == "first",
             .says_farewell = says != "none",
             .callable = Py_NewRef(callable),
             .binding = reinterpret_cast<void (*)(void*)>(static_cast<std::uintptr_t>(function)),
             .context = reinterpret_cast<void*>(static_cast<std::uintptr_t>(context)),
             .channel = the_channels.empty() ? nullptr : the_channels.back()});
    pthread_t thread{};
    if (pthread_create(&thread, nullptr, run_owned, job.get()) != 0) {
      PyErr_SetString(PyExc_OSError, "a thread could not be started");
      return nullptr;
    }
    (void)job.release();
    if (joins != 0) {
      joined.push_back(thread);
    } else {
      pthread_detach(thread);
    }
  }
  Py_RETURN_NONE;
}

/// open_channel(delivery, overflow, capacity): from here on "send" sends.
PyObject* open_channel(PyObject*, PyObject* arguments) {
  const char* by = nullptr;
  const char* when_full = nullptr;
  unsigned long capacity = 0;
  PyObject* handler = nullptr;
  if (!PyArg_ParseTuple(arguments, "sskO", &by, &when_full, &capacity, &handler)) return nullptr;
  const auto how = moored::delivery_named(by);
  const auto policy = moored::overflow_named(when_full);
  if (!how || !policy) return PyErr_Format(PyExc_ValueError, "no channel is %s, %s", by, when_full);
  try {
    the_channels.push_back(new events(moored::channel_options{
        .name = "torture", .capacity = capacity, .when_full = *policy, .by = *how}));
  } catch (const std::exception& error) {
    return PyErr_Format(PyExc_RuntimeError, "%s", error.what());
  }
  the_channels.back()->on_batch(handler);
  Py_RETURN_NONE;
}

/// A handler of events says how many it saw.
PyObject* saw(PyObject*, PyObject* batch) {
  const Py_ssize_t size = PyObject_Length(batch);
  if (size < 0) return nullptr;
  the_sums.taken.fetch_add(static_cast<std::uint64_t>(size));
  Py_RETURN_NONE;
}

/// Runs the handler on what is queued, as an event loop would that was told.
PyObject* deliver(PyObject*, PyObject*) {
  if (!the_channels.empty()) (void)the_channels.back()->deliver();
  Py_RETURN_NONE;
}

/// Waits for so many attaches and sends.
PyObject* wait_for_work(PyObject*, PyObject* wanted) {
  const unsigned long long number = PyLong_AsUnsignedLongLong(wanted);
  if (PyErr_Occurred()) return nullptr;
  const auto until = std::chrono::steady_clock::now() + patience;
  {
    const moored::detachment others_turn;
    while (moored::count().attaches + the_sums.attempts < number &&
           std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(100us);
  }
  Py_RETURN_NONE;
}

/// Makes a subinterpreter, works in it, and ends it. Gives false where there is none of this kind.
PyObject* visit_subinterpreter(PyObject*, PyObject* own_gil) {
  PyThreadState* const mine = PyThreadState_Get();
  PyThreadState* other = nullptr;
  if (own_gil == Py_True) {
#if PY_VERSION_HEX >= 0x030C0000
    PyInterpreterConfig config{};
    config.check_multi_interp_extensions = 1;
    config.allow_threads = 1;
    config.gil = PyInterpreterConfig_OWN_GIL;
    const PyStatus status = Py_NewInterpreterFromConfig(&other, &config);
    if (PyStatus_Exception(status)) other = nullptr;
#else
    Py_RETURN_FALSE;
#endif
  } else {
    other = Py_NewInterpreter();
  }
  if (other == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "a subinterpreter could not be made");
    return nullptr;
  }
  const auto set_subinterpreter = [](std::optional<moored::interpreter> to) {
    const std::lock_guard lock(the_subinterpreters_turn);
    the_subinterpreter = std::move(to);
  };
  set_subinterpreter(moored::interpreter::current());
  const int failed = PyRun_SimpleString(
      "import threading\n"
      "assert sum(range(1000)) == 499500\n"
      "own = threading.local()\n"
      "own.value = [own]\n");
  {
    const moored::detachment others_turn;
    const std::uint64_t before = the_sums.visits;
    for (int looks = 0; looks < 100 && the_sums.visits < before + 20; ++looks)
      std::this_thread::sleep_for(100us);
  }
  Py_EndInterpreter(other);  // while native threads visit it
  PyThreadState_Swap(mine);
  set_subinterpreter(std::nullopt);
  return PyBool_FromLong(failed == 0);
}

PyObject* set_bound(PyObject*, PyObject* milliseconds) {
  const long bound = PyLong_AsLong(milliseconds);
  if (PyErr_Occurred()) return nullptr;
  moored::set_closing_bound(std::chrono::milliseconds(bound));
  Py_RETURN_NONE;
}

/// fork() as a native thread would, and what came of the child: its exit code, or minus its signal.
PyObject* fork_natively(PyObject*, PyObject*) {
  const pid_t child = fork();
  if (child == 0) {
    const moored::counters counted = moored::count();
    _exit(counted.states_kept == 0 ? 0 : 9);
  }
  int status = 0;
  {
    const moored::detachment others_turn;
    waitpid(child, &status, 0);
  }
  return PyLong_FromLong(WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
}

/// report_to(fd): at the end of the process, and of no child's.
PyObject* report_to(PyObject*, PyObject* descriptor) {
  report_fd = static_cast<int>(PyLong_AsLong(descriptor));
  reporter = getpid();
  if (PyErr_Occurred()) return nullptr;
  Py_RETURN_NONE;
}

[[nodiscard]] unsigned long unjoined() {
  timespec until{};
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += (moored::count().overdue == 0 ? patience : little_patience) / 1s;
  unsigned long left = 0;
  for (const pthread_t thread : joined) {
    if (pthread_timedjoin_np(thread, nullptr, &until) != 0) ++left;
  }
  return left;
}

struct numbers {
  std::string text;
  bool in_send;  // an attempt is not counted yet
  friend bool operator==(const numbers&, const numbers&) = default;
};

/// A consistent set: threads that Python does not wait for may still be at it.
[[nodiscard]] numbers look() {
  const sums& mine = the_sums;
  const std::uint64_t attempts = mine.attempts;
  const moored::counters now = moored::count();
  moored::channel_stats all;
  for (const events* const channel : the_channels) {
    const moored::channel_stats one = channel->stats();
    all.sent += one.sent;
    all.delivered += one.delivered;
    all.dropped_oldest += one.dropped_oldest;
    all.dropped_newest += one.dropped_newest;
    all.rejected += one.rejected;
    all.refused += one.refused;
    all.undelivered += one.undelivered;
    all.unconvertible += one.unconvertible;
    all.depth += one.depth;
  }
  const std::pair<const char*, std::uint64_t> said[] = {
      {"attaches", now.attaches},
      {"refused_attaches", now.refusals},
      {"made", now.states_made},
      {"adopted", now.states_adopted},
      {"kept", now.states_kept},
      {"freed", now.states_freed},
      {"forgotten", now.states_forgotten},
      {"overdue", now.overdue},
      {"calls", mine.calls},
      {"refusals", mine.refusals},
      {"failures", mine.failures},
      {"farewells", mine.farewells},
      {"visits", mine.visits},
      {"overstayed", mine.overstayed},
      {"attempts", attempts},
      {"taken", mine.taken},
      {"sent", all.sent},
      {"delivered", all.delivered},
      {"dropped_oldest", all.dropped_oldest},
      {"dropped_newest", all.dropped_newest},
      {"rejected", all.rejected},
      {"refused", all.refused},
      {"undelivered", all.undelivered},
      {"unconvertible", all.unconvertible},
      {"depth", all.depth},
  };
  std::string text;
  for (const auto& [name, value] : said)
    text += ", \"" + std::string(name) + "\": " + std::to_string(value);
  const std::uint64_t unsent = all.dropped_newest + all.rejected + all.refused;
  return {text, attempts != all.sent + unsent};
}

[[gnu::destructor]] void report() {
  if (report_fd < 0 || reporter != getpid()) return;
  senders_stop = true;
  const unsigned long left = unjoined();
  numbers seen = look();
  // The same for 50 ms; on a busy machine a thread may be in the middle of something for a while.
  for (int looks = 0, alike = 0; looks < 2000 && (alike < 10 || seen.in_send); ++looks) {
    std::this_thread::sleep_for(5ms);
    const numbers before = std::exchange(seen, look());
    alike = seen == before ? alike + 1 : 0;
  }
  const std::string text = "{\"unjoined\": " + std::to_string(left) + seen.text + "}\n";
  if (write(report_fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(99);
}

PyMethodDef methods[] = {
    {"start", start, METH_VARARGS, nullptr},
    {"open_channel", open_channel, METH_VARARGS, nullptr},
    {"saw", saw, METH_O, nullptr},
    {"deliver", deliver, METH_NOARGS, nullptr},
    {"wait_for_work", wait_for_work, METH_O, nullptr},
    {"visit_subinterpreter", visit_subinterpreter, METH_O, nullptr},
    {"set_bound", set_bound, METH_O, nullptr},
    {"fork_natively", fork_natively, METH_NOARGS, nullptr},
    {"report_to", report_to, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "torture_threads",
    .m_doc = nullptr,
    .m_size = -1,
    .m_methods = methods,
    .m_slots = nullptr,
    .m_traverse = nullptr,
    .m_clear = nullptr,
    .m_free = nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit_torture_threads() {
  (void)Py_AtExit([] { the_life.fetch_add(1); });
  if (!moored::open()) return nullptr;
  return PyModule_Create(&definition);
}
