// process/refused_memory.cpp: memory that the allocators refuse, native ones and Python's.
#include "attempts.hpp"
#include "options.hpp"

using moored::channel;
using moored::channel_stats;
using moored::delivery;
using moored::refusal;
using moored::sent;
using namespace moored_test;
using namespace std::chrono_literals;

namespace {

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
    numbers.on_batch([&](moored::view<int> batch) { handled += batch.size(); });
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
    numbers.on_batch([&](moored::view<int> batch) { handled += batch.size(); });
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
      channel<int> numbers(options(how));
      numbers.reserve(1);
      std::size_t handled = 0;
      numbers.on_batch([&](moored::view<int> batch) { handled += batch.size(); });
      Py_MakePendingCalls();  // main introduces itself
      on_foreign_thread([&] {
        const without_memory now;
        EXPECT_EQ(numbers.send(1), sent::queued);
      });
      const bool waits_for_gil =
          how == delivery::enter ||
          (how == delivery::adaptive && !moored::cpython::pending_calls_interrupt);
      if (!waits_for_gil) {
        // Main holds the GIL: to look after an interrupt would take memory and a thread.
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
      each.on_batch([&](moored::view<int> batch) { handled += batch.size(); });
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
       {moored::strategy::kept, moored::strategy::temporary, moored::strategy::shared}) {
    if (!is_supported(how)) continue;
    for (const bool is_open : {true, false}) {
      SCOPED_TRACE(moored::name(how));
      in_child([how, is_open] {
        const short_python interpreter;
        if (is_open) {
          EXPECT_TRUE(moored::open());
        }
        const int before = states();
        on_foreign_thread([&] {
          memory_is_short_everywhere = true;  // the shared state is made by a thread of its own
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
        EXPECT_EQ(moored::stats().refusals, 3U);
        EXPECT_EQ(moored::stats().states_made, 0U);
        on_foreign_thread([&] {
          const moored::attachment attached = moored::try_attach(how);
          if (how != moored::strategy::shared || attached.why() != refusal::unsupported) {
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
          EXPECT_EQ(moored::stats().states_kept, kept ? 1U : 0U);
        });
      });
      until_nothing_is_kept();
    });
    EXPECT_EQ(states(), before);
    EXPECT_EQ(moored::stats().states_forgotten, 0U);
  });
}

TEST(fault, an_adopted_state_whose_reaper_has_no_state_is_left_to_python_and_counted) {
  if (!has_gil) GTEST_SKIP() << "without a GIL no reaper frees it";
  in_child([] {
    const short_python interpreter;
    on_foreign_thread([&] {
      as_another_binding([] { EXPECT_TRUE(moored::keep_thread()); });
      memory_is_short_everywhere = true;
      the_faults.python_memory.arm(ENOMEM);
    });
    {
      const moored::detachment detached;
      while (moored::stats().states_kept != 0) std::this_thread::yield();
    }
    the_faults.python_memory.disarm();
    memory_is_short_everywhere = false;
    EXPECT_EQ(moored::stats().states_forgotten, 1U);
    EXPECT_EQ(moored::stats().states_freed, 0U);
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
      PyObject* const extend = PyObject_GetAttrString(global("seen"), "extend");
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
    channel<int> numbers(options(delivery::enter));
    std::vector<int> handled;
    numbers.on_batch([&](moored::view<int> batch) {
      handled.insert(handled.end(), batch.begin(), batch.end());
    });
    on_foreign_thread([&] {
      {
        const without_python_memory now;
        EXPECT_EQ(numbers.send(1), sent::queued);
      }
      EXPECT_EQ(numbers.stats().depth, 1U);
      EXPECT_EQ(numbers.stats().entries, 0U);
      EXPECT_EQ(moored::stats().refusals, 1U);
      numbers.send(2);
    });
    EXPECT_EQ(handled, (std::vector{1, 2}));
  });
}

TEST(fault, a_sender_that_waits_for_room_tries_again_to_make_it) {
  in_child([] {
    const short_python interpreter;
    channel<int> numbers(options(1, delivery::enter));
    std::vector<int> handled;
    numbers.on_batch([&](moored::view<int> batch) {
      handled.insert(handled.end(), batch.begin(), batch.end());
    });
    on_foreign_thread([&] {
      const without_python_memory now(3);
      EXPECT_EQ(numbers.send(1), sent::queued);
      EXPECT_EQ(numbers.send(2), sent::queued);  // no other thread is there to make room
    });
    EXPECT_EQ(handled, (std::vector{1, 2}));
    EXPECT_EQ(moored::stats().refusals, 3U);
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
      const std::uint64_t misses = moored::stats_of_chunks().misses;
      arenas_fail = true;
      PyObject* const refused = PyObject_CallFunction(deep, "i", 900);
      arenas_fail = false;
      EXPECT_GT(moored::stats_of_chunks().misses, misses);
      EXPECT_EQ(refused, nullptr);
      EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_MemoryError));
      PyErr_Clear();
      PyObject* const result = PyObject_CallFunction(deep, "i", 900);
      EXPECT_NE(result, nullptr);
      Py_XDECREF(result);
    });
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
      EXPECT_EQ(moored::stats().states_kept, 0U);
    };
    with_each_native_allocation_failing(tries);
#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030C0000
    // 3.11 crashes when the very allocation of the state fails, after one like it has not.
    with_each_python_allocation_failing(tries);
#endif
    EXPECT_GE(moored::stats().refusals, 1U);
    EXPECT_EQ(moored::stats().states_made, moored::stats().states_freed);
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

}  // namespace
