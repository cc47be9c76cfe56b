// fault_test.cpp: what the OS, the allocators and the clock refuse becomes an error or a counted
// refusal, never a hang, a crash or a lost event.
#include "child.hpp"
#include "faults.hpp"

#include <sys/resource.h>

#include <filesystem>
#include <iterator>
#include <system_error>

using moored::channel;
using moored::channel_stats;
using moored::delivery;
using moored::refusal;
using moored::sent;
using moored::wakeup;
using namespace moored_test;
using namespace std::chrono_literals;

namespace {

std::ptrdiff_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                       std::filesystem::directory_iterator());
}

void expect_balance(const channel_stats& s) {
  EXPECT_EQ(s.sent, s.delivered + s.dropped_oldest + s.unconvertible + s.undelivered + s.depth);
}

/// The errno of the std::system_error that `body` throws; 0 when it throws none.
template <class Body>
int error_of(Body body) {
  try {
    body();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

/// Runs `attempt` again and again: the first of its allocations fails, then the second, and so on,
/// until it gets through with all of them. `Short` is what is short of memory.
template <class Short, class Attempt>
void with_each_allocation_failing(fault& of, Attempt attempt) {
  for (std::int64_t passing = 0;; ++passing) {
    ASSERT_LT(passing, 5000) << "it never gets through";
    SCOPED_TRACE("allocation " + std::to_string(passing));
    std::int64_t failed = 0;
    attempt([&](const auto& body) {
      const Short now(1, passing);
      body();
      failed = of.failed();
    });
    if (failed == 0) return;
  }
}

template <class Attempt>
void with_each_native_allocation_failing(Attempt attempt) {
  with_each_allocation_failing<without_memory>(the_faults.operator_new, attempt);
}

template <class Attempt>
void with_each_python_allocation_failing(Attempt attempt) {
  with_each_allocation_failing<without_python_memory>(the_faults.python_memory, attempt);
}

/// For a scope the process can open nothing.
class without_descriptors {
 public:
  without_descriptors() noexcept {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{.rlim_cur = 3, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~without_descriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  without_descriptors(const without_descriptors&) = delete;
  without_descriptors& operator=(const without_descriptors&) = delete;

 private:
  rlimit before_{};
};

/// An interpreter whose memory can be made short.
class short_python {
 public:
  short_python() {
    own_python_memory();
    Py_InitializeEx(0);
  }
  ~short_python() { EXPECT_EQ(Py_FinalizeEx(), 0); }
  short_python(const short_python&) = delete;
  short_python& operator=(const short_python&) = delete;
};

// ---- descriptors ----

TEST(fault, a_channel_without_descriptors_is_an_error_and_leaves_none_open) {
  in_child([] {
    const std::ptrdiff_t before = open_descriptors();
    for (fault* const each :
         {&the_faults.eventfd, &the_faults.epoll_create1, &the_faults.epoll_ctl}) {
      for (const int error : {EMFILE, ENFILE, ENOMEM, ENOSPC}) {
        each->arm(error, 1);
        EXPECT_EQ(error_of([] { const channel<int> numbers; }), error);
        EXPECT_EQ(open_descriptors(), before);
      }
    }
    channel<int> numbers;
    EXPECT_EQ(numbers.send(1), sent::queued);
  });
}

TEST(fault, a_forked_child_without_descriptors_gets_an_error_and_the_parent_keeps_its_channel) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    EXPECT_EQ(numbers.send(1), sent::queued);
    EXPECT_EQ(fate_of([&] {
                EXPECT_EQ(error_of([] {
                            const without_descriptors now;
                            const channel<int> another;
                          }),
                          EMFILE);
                EXPECT_EQ(numbers.send(2), sent::closed);
                EXPECT_TRUE(numbers.wait());
                expect_balance(numbers.stats());
              }),
              "exit 0");
    EXPECT_EQ(numbers.take_native(), std::vector{1});
  });
}

TEST(fault, interrupted_reads_and_writes_are_made_again) {
  in_child([] {
    wakeup bell;
    the_faults.write.arm(EINTR, 3);
    EXPECT_TRUE(bell.notify());
    EXPECT_EQ(the_faults.write.failed(), 3);
    EXPECT_EQ(bell.wait(0ns), wakeup::woken::told);
    the_faults.read.arm(EINTR, 3);
    bell.acknowledge();
    std::uint64_t count = 0;
    the_faults.read.disarm();
    EXPECT_EQ(::read(bell.fd(), &count, sizeof count), -1) << "it was acknowledged";
    EXPECT_EQ(errno, EAGAIN);
    // A signal that never ends holds nobody up.
    the_faults.write.arm(EINTR);
    the_faults.read.arm(EINTR);
    EXPECT_FALSE(bell.notify());
    bell.acknowledge();
  });
}

TEST(fault, a_full_counter_still_tells) {
  in_child([] {
    wakeup bell;
    const std::uint64_t most = ~std::uint64_t{0} - 1;
    ASSERT_EQ(::write(bell.fd(), &most, sizeof most), static_cast<ssize_t>(sizeof most));
    EXPECT_EQ(bell.wait(0ns), wakeup::woken::told);
    EXPECT_EQ(bell.wait(0ns), wakeup::woken::time_over);
    EXPECT_TRUE(bell.notify());
    EXPECT_EQ(bell.wait(0ns), wakeup::woken::told);
    the_faults.write.arm(EAGAIN);
    EXPECT_FALSE(bell.notify());
  });
}

TEST(fault, a_wake_that_was_refused_is_not_counted_and_the_next_sender_tells) {
  in_child([] {
    channel<int> numbers;
    the_faults.write.arm(EIO);
    EXPECT_EQ(numbers.send(1), sent::queued);
    EXPECT_EQ(numbers.send(2), sent::queued);
    EXPECT_EQ(the_faults.write.failed(), 2);
    EXPECT_EQ(numbers.stats().wakes, 0U);
    the_faults.write.disarm();
    EXPECT_EQ(numbers.send(3), sent::queued);
    EXPECT_EQ(numbers.stats().wakes, 1U);
    EXPECT_EQ(numbers.told_by().wait(0ns), wakeup::woken::told);
    EXPECT_EQ(numbers.take_native(), (std::vector{1, 2, 3}));
  });
}

TEST(fault, who_waits_finds_what_it_could_not_be_told_of) {
  in_child([] {
    const python interpreter;
    const moored::detachment detached;
    channel<int> numbers;
    the_faults.write.arm(EIO);
    std::thread waiter([&] {
      EXPECT_TRUE(numbers.wait());
      EXPECT_EQ(numbers.take_native(), std::vector{1});
      EXPECT_TRUE(numbers.wait());  // until it is closed
    });
    numbers.send(1);
    while (numbers.stats().depth != 0) std::this_thread::yield();
    numbers.close();
    waiter.join();
  });
}

TEST(fault, a_wait_goes_on_after_signals_and_ends_with_an_error) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    the_faults.epoll_wait.arm(EINTR, 3);
    EXPECT_FALSE(numbers.wait(1ms));
    EXPECT_EQ(the_faults.epoll_wait.failed(), 3);

    the_faults.epoll_wait.arm(EBADF);
    EXPECT_EQ(error_of([&] { numbers.wait(); }), EBADF);
    PyObject* const capsule = numbers.capsule();
    const auto* const table = static_cast<moored::channel_capsule*>(
        PyCapsule_GetPointer(capsule, moored::channel_capsule_name));
    EXPECT_EQ(table->wait(table->channel, -1), -1);
    EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_OSError));
    PyErr_Clear();
    the_faults.epoll_wait.disarm();

    numbers.send(1);
    EXPECT_EQ(numbers.stats().wakes, 1U);
    EXPECT_TRUE(numbers.wait());
    Py_DECREF(capsule);
  });
}

// ---- native memory ----

TEST(fault, a_channel_without_memory_is_an_error_and_leaves_no_descriptor_open) {
  in_child([] {
    const std::ptrdiff_t before = open_descriptors();
    with_each_native_allocation_failing([&](const auto& is_short) {
      is_short([] {
        try {
          const channel<int> numbers;
        } catch (const std::bad_alloc&) {
        }
      });
      EXPECT_EQ(open_descriptors(), before);
    });
  });
}

TEST(fault, an_event_without_memory_is_refused_and_counted) {
  in_child([] {
    channel<int> numbers;
    {
      const without_memory now;
      EXPECT_EQ(numbers.send(1), sent::no_memory);
    }
    EXPECT_EQ(numbers.stats().rejected, 1U);
    EXPECT_EQ(numbers.stats().sent, 0U);
    EXPECT_EQ(numbers.send(2), sent::queued);
    EXPECT_EQ(numbers.take_native(), std::vector{2});
  });
}

TEST(fault, reserved_events_need_no_memory) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    std::size_t handled = 0;
    numbers.on_batch([&](std::span<int> batch) { handled += batch.size(); });
    numbers.reserve(100);
    const without_memory now;
    for (int round = 0; round < 5; ++round) {
      for (int number = 0; number < 100; ++number) EXPECT_EQ(numbers.send(number), sent::queued);
      while (numbers.deliver()) {
      }
    }
    EXPECT_EQ(handled, 500U);
  });
}

TEST(fault, what_is_taken_without_memory_stays_queued) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    for (int number = 0; number < 100; ++number) numbers.send(number);
    {
      const without_memory now;
      EXPECT_THROW((void)numbers.take_native(), std::bad_alloc);
      EXPECT_EQ(numbers.take(50), nullptr);
      EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_MemoryError));
      PyErr_Clear();
    }
    EXPECT_EQ(numbers.stats().depth, 100U);
    expect_balance(numbers.stats());
    EXPECT_EQ(numbers.take_native().size(), 100U);
  });
}

TEST(fault, a_handler_gets_everything_where_there_is_no_memory_for_a_part) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    std::size_t handled = 0;
    numbers.on_batch([&](std::span<int> batch) { handled += batch.size(); });
    for (int number = 0; number < 1000; ++number) numbers.send(number);
    const without_memory now;
    EXPECT_FALSE(numbers.deliver());
    EXPECT_EQ(handled, 1000U);
  });
}

TEST(fault, senders_get_through_each_delivery_without_memory) {
  for (const delivery how :
       {delivery::poll, delivery::wake, delivery::enter, delivery::interrupt, delivery::adaptive}) {
    if (how == delivery::interrupt && !moored::cpython::pending_calls_interrupt) continue;
    SCOPED_TRACE(moored::name(how));
    in_child([how] {
      const python interpreter;
      channel<int> numbers({.by = how});
      numbers.reserve(1);
      std::size_t handled = 0;
      numbers.on_batch([&](std::span<int> batch) { handled += batch.size(); });
      Py_MakePendingCalls();  // main introduces itself
      on_foreign_thread([&] {
        const without_memory now;
        EXPECT_EQ(numbers.send(1), sent::queued);
      });
      const bool waits_for_gil =
          how == delivery::enter ||
          (how == delivery::adaptive && !moored::cpython::pending_calls_interrupt);
      if (!waits_for_gil) {
        // Main holds the GIL: whoever looks after an interrupt would need memory and a thread.
        std::thread([&] {
          const without_memory now;
          EXPECT_EQ(numbers.send(2), sent::queued);
        }).join();
      }
      while (numbers.stats().depth != 0) {
        numbers.deliver();
        Py_MakePendingCalls();
      }
      EXPECT_EQ(handled, numbers.stats().sent);
      expect_balance(numbers.stats());
    });
  }
}

TEST(fault, the_end_of_python_needs_no_memory) {
  in_child([] {
    std::vector<channel<int>> all(5);
    std::size_t handled = 0;
    Py_InitializeEx(0);
    for (channel<int>& each : all) {
      each.on_batch([&](std::span<int> batch) { handled += batch.size(); });
      each.send(1);
    }
    {
      const without_memory now;
      EXPECT_EQ(Py_FinalizeEx(), 0);
    }
    EXPECT_EQ(handled, 5U);
  });
}

TEST(fault, a_fork_needs_no_memory) {
  in_child([] {
    channel<int> numbers;
    channel<int> others;
    numbers.send(1);
    const without_memory now;
    const pid_t child = fork();
    if (child == 0) _exit(numbers.send(2) == sent::closed && others.closed() ? 0 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(numbers.send(2), sent::queued);
    EXPECT_EQ(numbers.stats().depth, 2U);
  });
}

// ---- Python's memory ----

TEST(fault, a_thread_without_memory_for_a_state_is_refused_and_counted) {
  for (const moored::strategy how :
       {moored::strategy::kept, moored::strategy::temporary, moored::strategy::side}) {
    for (const bool is_open : {true, false}) {
      SCOPED_TRACE(moored::name(how));
      in_child([how, is_open] {
        const short_python interpreter;
        if (is_open) {
          EXPECT_TRUE(moored::open());
        }
        const int before = states();
        on_foreign_thread([&] {
          memory_is_short_everywhere = true;  // a side state is made by a thread of its own
          the_faults.python_memory.arm(ENOMEM);
          const moored::attachment refused = moored::try_attach(how);
          EXPECT_FALSE(refused);
          EXPECT_EQ(refused.why(), refusal::no_memory);
          EXPECT_THROW((void)moored::attach(how), moored::interpreter_closed);
          EXPECT_FALSE(moored::keep_thread());
          the_faults.python_memory.disarm();
          memory_is_short_everywhere = false;
        });
        EXPECT_EQ(states(), before);
        EXPECT_EQ(moored::count().refusals, 3U);
        EXPECT_EQ(moored::count().states_made, 0U);
        on_foreign_thread([&] {
          const moored::attachment attached = moored::try_attach(how);
          if (how != moored::strategy::side || attached.why() != refusal::unsupported) {
            EXPECT_TRUE(attached);
          }
        });
      });
    }
  }
}

TEST(fault, a_gate_that_cannot_be_opened_is_an_error) {
  in_child([] {
    const short_python interpreter;
    the_faults.pthread_atfork.arm(ENOMEM, 1);
    EXPECT_FALSE(moored::open());
    EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_MemoryError));
    PyErr_Clear();
    the_faults.pthread_atfork.disarm();
    with_each_python_allocation_failing([](const auto& is_short) {
      bool opened = false;
      is_short([&] { opened = moored::open(); });
      EXPECT_EQ(opened, PyErr_Occurred() == nullptr);
      PyErr_Clear();
    });
    EXPECT_TRUE(moored::open());
  });
}

TEST(fault, keeping_without_memory_keeps_nothing) {
  in_child([] {
    const short_python interpreter;
    EXPECT_TRUE(moored::open());
    const int before = states();
    with_each_python_allocation_failing([](const auto& is_short) {
      on_foreign_thread([&] {
        as_another_binding([&] {
          bool kept = false;
          is_short([&] { kept = moored::keep_thread(); });
          EXPECT_EQ(PyErr_Occurred(), nullptr);
          EXPECT_EQ(moored::count().states_kept, kept ? 1U : 0U);
        });
      });
      until_nothing_is_kept();
    });
    EXPECT_EQ(states(), before);
    EXPECT_EQ(moored::count().states_forgotten, 0U);
  });
}

TEST(fault, an_adopted_state_whose_reaper_has_no_state_is_left_to_python_and_counted) {
  in_child([] {
    const short_python interpreter;
    on_foreign_thread([&] {
      as_another_binding([] { EXPECT_TRUE(moored::keep_thread()); });
      memory_is_short_everywhere = true;
      the_faults.python_memory.arm(ENOMEM);
    });
    {
      const moored::detachment detached;
      while (moored::count().states_kept != 0) std::this_thread::yield();
    }
    the_faults.python_memory.disarm();
    memory_is_short_everywhere = false;
    EXPECT_EQ(moored::count().states_forgotten, 1U);
    EXPECT_EQ(moored::count().states_freed, 0U);
  });
}

TEST(fault, a_list_without_memory_is_an_error_and_its_events_are_counted) {
  in_child([] {
    const short_python interpreter;
    run("import sys\nsys.unraisablehook = lambda report: None\nsys.stderr = None\n");
    with_each_python_allocation_failing([](const auto& is_short) {
      channel<int> numbers;
      for (int number = 1000; number < 1005; ++number) numbers.send(number);
      PyObject* list = nullptr;
      is_short([&] { list = numbers.take(); });
      EXPECT_EQ(list == nullptr, PyErr_Occurred() != nullptr);
      PyErr_Clear();
      const channel_stats s = numbers.stats();
      EXPECT_EQ(s.delivered, list == nullptr ? 0U : static_cast<std::uint64_t>(PyList_Size(list)));
      EXPECT_EQ(s.depth, 0U);
      Py_XDECREF(list);
      expect_balance(s);
    });
    with_each_python_allocation_failing([](const auto& is_short) {
      channel<int> numbers;
      for (int number = 1000; number < 1005; ++number) numbers.send(number);
      run("seen = []");
      PyObject* const extend = PyObject_GetAttrString(
          PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "seen"), "extend");
      numbers.on_batch(extend);
      Py_DECREF(extend);
      is_short([&] { numbers.deliver(); });
      EXPECT_EQ(PyErr_Occurred(), nullptr);
      EXPECT_EQ(numbers.stats().depth, 0U);
      expect_balance(numbers.stats());
      numbers.on_batch(nullptr);
    });
  });
}

TEST(fault, events_of_a_sender_that_cannot_enter_stay_queued_for_the_next) {
  in_child([] {
    const short_python interpreter;
    channel<int> numbers({.by = delivery::enter});
    std::vector<int> handled;
    numbers.on_batch(
        [&](std::span<int> batch) { handled.insert(handled.end(), batch.begin(), batch.end()); });
    on_foreign_thread([&] {
      {
        const without_python_memory now;
        EXPECT_EQ(numbers.send(1), sent::queued);
      }
      EXPECT_EQ(numbers.stats().depth, 1U);
      EXPECT_EQ(numbers.stats().entries, 0U);
      EXPECT_EQ(moored::count().refusals, 1U);
      numbers.send(2);
    });
    EXPECT_EQ(handled, (std::vector{1, 2}));
  });
}

TEST(fault, a_sender_that_waits_for_room_tries_again_to_make_it) {
  in_child([] {
    const short_python interpreter;
    channel<int> numbers({.capacity = 1, .by = delivery::enter});
    std::vector<int> handled;
    numbers.on_batch(
        [&](std::span<int> batch) { handled.insert(handled.end(), batch.begin(), batch.end()); });
    on_foreign_thread([&] {
      const without_python_memory now(3);
      EXPECT_EQ(numbers.send(1), sent::queued);
      EXPECT_EQ(numbers.send(2), sent::queued);  // nobody else is there to make room
    });
    EXPECT_EQ(handled, (std::vector{1, 2}));
    EXPECT_EQ(moored::count().refusals, 3U);
  });
}

// ---- threads and keys ----

TEST(fault, a_side_state_without_a_thread_to_make_it_on_is_refused) {
  in_child([] {
    const python interpreter;
    EXPECT_TRUE(moored::open());
    on_foreign_thread([] {
      the_faults.pthread_create.arm(EAGAIN);
      EXPECT_EQ(moored::try_attach(moored::strategy::side).why(), refusal::no_memory);
      {
        the_faults.pthread_create.disarm();
        const without_memory now;
        EXPECT_EQ(moored::try_attach(moored::strategy::side).why(), refusal::no_memory);
      }
      if (moored::try_attach(moored::strategy::side).why() == refusal::unsupported) return;
      EXPECT_TRUE(moored::try_attach(moored::strategy::side));
    });
  });
}

TEST(fault, an_adopted_state_without_a_reaper_is_left_to_python_and_counted) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      as_another_binding([] { EXPECT_TRUE(moored::keep_thread()); });
      the_faults.pthread_create.arm(EAGAIN);
    });
    the_faults.pthread_create.disarm();
    EXPECT_EQ(moored::count().states_kept, 0U);
    EXPECT_EQ(moored::count().states_forgotten, 1U);
  });
}

TEST(fault, a_process_without_keys_keeps_no_adopted_state) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      as_another_binding([] {
        EXPECT_TRUE(moored::open());
        the_faults.pthread_key_create.arm(EAGAIN);
        EXPECT_FALSE(moored::keep_thread());
        EXPECT_EQ(the_faults.pthread_key_create.failed(), 1);
      });
    });
    EXPECT_EQ(moored::count().states_kept, 0U);
  });
}

TEST(fault, an_adaptive_interrupt_without_a_thread_is_looked_after_from_the_next_send_on) {
  if (!moored::cpython::pending_calls_interrupt) GTEST_SKIP() << "needs CPython 3.13";
  in_child([] {
    const python interpreter;
    channel<int> numbers({.by = delivery::adaptive});
    std::atomic<int> handled = 0;
    numbers.on_batch([&](std::span<int> batch) { handled += static_cast<int>(batch.size()); });
    Py_MakePendingCalls();  // main introduces itself
    std::thread([&] {
      the_faults.pthread_create.arm(EAGAIN);
      EXPECT_EQ(numbers.send(1), sent::queued);
      EXPECT_EQ(the_faults.pthread_create.failed(), 1);
      the_faults.pthread_create.disarm();
      EXPECT_EQ(numbers.send(2), sent::queued);
    }).join();
    const moored::detachment asleep;
    while (handled != 2) std::this_thread::yield();
  });
}

TEST(fault, who_looks_after_an_interrupt_needs_no_memory) {
  if (!moored::cpython::pending_calls_interrupt) GTEST_SKIP() << "needs CPython 3.13";
  in_child([] {
    const python interpreter;
    channel<int> numbers({.by = delivery::adaptive});
    std::atomic<int> handled = 0;
    numbers.on_batch([&](std::span<int> batch) { handled += static_cast<int>(batch.size()); });
    Py_MakePendingCalls();
    std::thread([&] {
      numbers.send(1);
      the_faults.operator_new.arm(ENOMEM);
      memory_is_short_everywhere = true;
    }).join();
    {
      const moored::detachment asleep;
      while (handled == 0) std::this_thread::yield();
    }
    memory_is_short_everywhere = false;
  });
}

// ---- subinterpreters ----

/// A subinterpreter for a scope; the thread that makes it is attached to the one before again.
class subinterpreter {
 public:
  explicit subinterpreter(std::optional<moored::interpreter>& found)
      : outer_(PyThreadState_Get()), state_(Py_NewInterpreter()) {
    found.emplace(moored::interpreter::current());
    PyThreadState_Swap(outer_);
  }
  ~subinterpreter() {
    PyThreadState_Swap(state_);
    Py_EndInterpreter(state_);
    PyThreadState_Swap(outer_);
  }
  subinterpreter(const subinterpreter&) = delete;
  subinterpreter& operator=(const subinterpreter&) = delete;

 private:
  PyThreadState* outer_;
  PyThreadState* state_;
};

TEST(fault, a_thread_without_memory_for_a_state_in_a_subinterpreter_is_refused_and_leaves_none) {
  in_child([] {
    const short_python interpreter;
    std::optional<moored::interpreter> found;
    const subinterpreter other(found);
    const auto tries = [&](const auto& is_short) {
      on_foreign_thread([&] {
        refusal why = refusal::none;
        is_short([&] { why = moored::try_attach(*found).why(); });
        EXPECT_TRUE(why == refusal::none || why == refusal::no_memory);
      });
      EXPECT_EQ(moored::count().states_kept, 0U);
    };
    with_each_native_allocation_failing(tries);
#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030C0000
    // 3.11 crashes when the very allocation of the state fails, after one like it has not.
    with_each_python_allocation_failing(tries);
#endif
    EXPECT_GE(moored::count().refusals, 1U);
    EXPECT_EQ(moored::count().states_made, moored::count().states_freed);
  });
}

TEST(fault, a_subinterpreter_without_a_thread_or_memory_is_an_error) {
  in_child([] {
    const python interpreter;
    PyThreadState* const outer = PyThreadState_Get();
    PyThreadState* const inner = Py_NewInterpreter();
    the_faults.pthread_create.arm(EAGAIN, 1);
    EXPECT_THROW((void)moored::interpreter::current(), std::runtime_error);
    the_faults.pthread_create.disarm();
    EXPECT_EQ(PyErr_Occurred(), nullptr);
    with_each_native_allocation_failing([](const auto& is_short) {
      is_short([] {
        try {
          (void)moored::interpreter::current();
        } catch (const std::bad_alloc&) {
        } catch (const std::runtime_error&) {
        }
      });
    });
    Py_EndInterpreter(inner);
    PyThreadState_Swap(outer);
  });
}

// ---- promises and calls ----

using promise = moored::promise<int>;

void name(const char* what, PyObject* object) {
  PyDict_SetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), what, object);
  Py_XDECREF(object);
}

PyObject* global(const char* what) {
  return PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), what);
}

TEST(fault, a_promise_without_descriptors_or_a_thread_is_an_error_and_the_next_one_is_kept) {
  in_child([] {
    const python interpreter;
    run("import asyncio\nloop = asyncio.new_event_loop()\n");
    the_faults.eventfd.arm(EMFILE, 1);
    EXPECT_EQ(error_of([] { (void)promise::on(global("loop")); }), EMFILE);
    the_faults.eventfd.arm(EMFILE, 1);
    EXPECT_EQ(error_of([] { (void)promise::concurrent(); }), EMFILE);
    the_faults.pthread_create.arm(EAGAIN, 1);
    EXPECT_EQ(error_of([] { (void)promise::concurrent(); }), EAGAIN);

    promise one = promise::concurrent();
    promise two = promise::on(global("loop"));
    name("one", one.future());
    name("two", two.future());
    EXPECT_TRUE(one.set_value(7));
    EXPECT_TRUE(two.set_value(8));
    run("seen = [one.result(), loop.run_until_complete(two)]\nloop.close()\n");
    EXPECT_EQ(value_of("seen == [7, 8]"), 1);
  });
}

TEST(fault, a_promise_that_has_no_memory_for_its_value_breaks) {
  in_child([] {
    const python interpreter;
    {
      promise one = promise::concurrent();
      name("one", one.future());
      promise two = promise::concurrent();
      name("two", two.future());
      const without_memory now;
      EXPECT_FALSE(one.set_value(7));
      EXPECT_FALSE(two.set_value(7));
      EXPECT_TRUE(two.set_error("why"));
    }
    run("errors = [str(one.exception()), str(two.exception())]\n");
    EXPECT_EQ(value_of("errors == ['the native promise ended without a value', 'why']"), 1);
    EXPECT_EQ(moored::count_promises().broken, 1U);
    EXPECT_EQ(moored::count_promises().lost, 0U);
  });
}

TEST(fault, many_promises_end_without_memory) {
  in_child([] {
    const python interpreter;
    run("futures = []");
    for (int round = 0; round < 3; ++round) {
      std::vector<promise> promises;
      for (int number = 0; number < 100; ++number) {
        promises.push_back(promise::concurrent());
        name("future", promises.back().future());
        run("futures.append(future)");
      }
      const without_memory now;
      promises.clear();
    }
    run("errors = {type(each.exception()) for each in futures}");
    EXPECT_EQ(value_of("errors == {RuntimeError}"), 1);
    EXPECT_EQ(moored::count_promises().lost, 0U);
  });
}

TEST(fault, promises_are_completed_by_a_thread_that_cannot_wait) {
  in_child([] {
    const python interpreter;
    the_faults.epoll_wait.arm(EBADF);
    run("values = []");
    for (int number = 0; number < 3; ++number) {
      promise one = promise::concurrent();
      name("one", one.future());
      EXPECT_TRUE(one.set_value(number));
      run("values.append(one.result())");
    }
    EXPECT_EQ(value_of("values == [0, 1, 2]"), 1);
    EXPECT_GT(the_faults.epoll_wait.failed(), 0);
  });
}

TEST(fault, a_future_is_done_or_counted_as_lost_without_pythons_memory) {
  in_child([] {
    const short_python interpreter;
    run("import asyncio, sys\nloop = asyncio.new_event_loop()\n"
        "sys.unraisablehook = lambda report: None\nsys.stderr = None\n"
        "loop.set_exception_handler(lambda loop, context: None)\n");
    with_each_python_allocation_failing([](const auto& is_short) {
      const auto before = moored::count_promises();
      promise one = promise::on(global("loop"));
      name("one", one.future());
      EXPECT_TRUE(one.set_value(1000));
      run("import select\nloop.call_soon(loop.stop)\n");
      moored::detail::completion mine{
          moored::reference::borrow(global("one")), [] { return PyLong_FromLong(1000); }, {}};
      is_short([&] { moored::detail::complete(mine); });
      EXPECT_EQ(PyErr_Occurred(), nullptr);
      const auto after = moored::count_promises();
      EXPECT_EQ(after.completed + after.lost, before.completed + before.lost + 1);
      EXPECT_EQ(value_of("one.done()"), static_cast<long>(after.completed - before.completed));
      run("loop.run_forever()\nassert one.done()\none.exception()\n");
    });
    run("loop.close()");
  });
}

TEST(fault, a_call_without_memory_is_an_error) {
  in_child([] {
    const short_python interpreter;
    run("def add(a, b): return a + b\n");
    const auto add = moored::reference::borrow(global("add"));
    with_each_python_allocation_failing([&](const auto& is_short) {
      int sum = 0;
      is_short([&] {
        try {
          sum = moored::call<int>(add, 2000, 3000);
        } catch (const moored::python_error& error) {
          sum = 5000;
          EXPECT_EQ(error.type(), "MemoryError");
        }
      });
      EXPECT_EQ(sum, 5000);
      EXPECT_EQ(PyErr_Occurred(), nullptr);
    });
    on_foreign_thread([&] {
      const without_python_memory now;
      EXPECT_THROW(moored::call(add, 2, 3), moored::interpreter_closed);
    });
  });
}

// ---- arenas ----

PyObjectArenaAllocator real_arenas{};
std::atomic<bool> arenas_fail = false;

TEST(fault, a_chunk_that_cannot_be_mapped_is_a_memory_error) {
  if (PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030C0000)
    GTEST_SKIP() << "3.11 goes on without the chunk, and sets no exception";
  in_child([] {
    if (!moored::cpython::has_data_stacks()) return;
    const python interpreter;
    PyObject_GetArenaAllocator(&real_arenas);
    PyObjectArenaAllocator failing{nullptr,
                                   [](void*, std::size_t size) -> void* {
                                     return arenas_fail ? nullptr
                                                        : real_arenas.alloc(real_arenas.ctx, size);
                                   },
                                   [](void*, void* block, std::size_t size) {
                                     real_arenas.free(real_arenas.ctx, block, size);
                                   }};
    PyObject_SetArenaAllocator(&failing);
    EXPECT_EQ(moored::install(), moored::cache_status::installed);
    run("def deep(depth): return deep(depth - 1) if depth else 7\n");  // some chunks deep
    PyObject* const deep = global("deep");
    on_foreign_thread([&] {
      const moored::attachment attached = moored::try_attach(moored::strategy::temporary);
      ASSERT_TRUE(attached);
      const std::uint64_t misses = moored::count_chunks().misses;
      arenas_fail = true;
      PyObject* const refused = PyObject_CallFunction(deep, "i", 900);
      arenas_fail = false;
      EXPECT_GT(moored::count_chunks().misses, misses);
      EXPECT_EQ(refused, nullptr);
      EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_MemoryError));
      PyErr_Clear();
      PyObject* const result = PyObject_CallFunction(deep, "i", 900);
      EXPECT_NE(result, nullptr);
      Py_XDECREF(result);
    });
  });
}

// ---- the clock ----

/// A call that stays inside Python for ever, detached.
void stay_inside_for_ever() {
  std::binary_semaphore is_inside{0};
  std::thread([&] {
    const moored::attachment attached = moored::attach();
    const moored::detachment detached;
    is_inside.release();
    for (;;) pause();
  }).detach();
  const moored::detachment detached;
  is_inside.acquire();
}

TEST(fault, shutdown_ends_though_the_clock_stands_still) {
  in_child([] {
    Py_InitializeEx(0);
    EXPECT_TRUE(moored::open());
    moored::set_closing_bound(50ms);
    stay_inside_for_ever();
    monotonic_clock::stop();
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(moored::count().overdue, 1U);
  });
}

TEST(fault, shutdown_ends_when_the_clock_jumps) {
  in_child([] {
    Py_InitializeEx(0);
    EXPECT_TRUE(moored::open());
    moored::set_closing_bound(std::chrono::hours(10));
    stay_inside_for_ever();
    std::thread usher([] {
      while (moored::try_attach(moored::strategy::temporary)) std::this_thread::yield();
      monotonic_clock::jump(std::chrono::hours(11));
    });
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(moored::count().overdue, 1U);
    usher.join();
  });
}

TEST(fault, a_handler_that_does_not_end_holds_nothing_up_though_the_clock_stands_still) {
  in_child([] {
    Py_InitializeEx(0);
    EXPECT_TRUE(moored::open());
    moored::set_closing_bound(50ms);
    channel<int> numbers({.by = delivery::enter});
    std::binary_semaphore is_inside{0};
    numbers.on_batch([&](std::span<int>) {
      const moored::detachment detached;
      is_inside.release();
      for (;;) pause();
    });
    std::thread([&] { numbers.send(1); }).detach();
    {
      const moored::detachment detached;
      is_inside.acquire();
    }
    numbers.send(2);
    monotonic_clock::stop();
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(numbers.stats().undelivered, 1U);
    expect_balance(numbers.stats());
    _exit(testing::Test::HasFailure() ? 1 : 0);  // the channel's handler never ends
  });
}

TEST(fault, waits_end_though_the_clock_stands_still) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    monotonic_clock::stop();
    EXPECT_FALSE(numbers.wait(10ms));
    moored::detail::answer none;
    EXPECT_EQ(none.wait(10ms), moored::detail::answer::state::none);
  });
}

TEST(fault, a_wait_ends_when_the_clock_jumps) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    the_faults.epoll_wait.arm(EINTR, 0);
    std::thread usher([] {
      while (the_faults.epoll_wait.calls() == 0) std::this_thread::yield();
      monotonic_clock::jump(std::chrono::hours(11));
    });
    EXPECT_FALSE(numbers.wait(std::chrono::hours(10)));
    usher.join();
  });
}

TEST(fault, a_clock_that_jumps_or_stands_still_loses_no_event) {
  for (const delivery how : {delivery::wake, delivery::enter, delivery::adaptive}) {
    SCOPED_TRACE(moored::name(how));
    in_child([how] {
      const python interpreter;
      channel<int> numbers({.by = how});
      std::uint64_t handled = 0;
      numbers.on_batch([&](std::span<int> batch) {
        handled += batch.size();
        if (handled % 3 == 0) monotonic_clock::jump(std::chrono::hours(24 * 365));
      });
      on_foreign_thread([&] {
        for (int number = 0; number < 100; ++number) {
          EXPECT_EQ(numbers.send(number), sent::queued);
          if (number == 50) monotonic_clock::stop();
        }
      });
      while (numbers.stats().depth != 0) {
        numbers.deliver();
        Py_MakePendingCalls();
      }
      EXPECT_EQ(handled, 100U);
      expect_balance(numbers.stats());
    });
  }
}

}  // namespace
