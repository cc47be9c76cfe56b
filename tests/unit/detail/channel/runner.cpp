// unit/detail/channel/runner.cpp: the thread that runs a channel's handler, and what the handler
// may do to its channel, to the sender and to the end of Python.
#include "child.hpp"
#include "options.hpp"

#include <csignal>
#include <memory>
#include <stdexcept>

#include <pthread.h>

using moored::channel;
using moored::channel_options;
using moored::delivery;
using moored::sent;
using namespace moored_test;
using namespace std::chrono_literals;

namespace {

using numbers = moored::view<int>;

/// The interpreter that the calling thread is attached to.
std::int64_t here() {
  return PyInterpreterState_GetID(PyInterpreterState_Get());
}

TEST(handler, runs_in_main_though_its_sender_visits_a_subinterpreter) {
  if (!has_gil) GTEST_SKIP() << "there are no subinterpreters without a GIL";
  in_child([] {
    const python interpreter;
    channel<int> events(options(delivery::enter));
    std::vector<std::int64_t> ran_in;
    events.on_batch([&](numbers) { ran_in.push_back(here()); });
    PyThreadState* const main = PyThreadState_Get();
    PyThreadState* const sub = Py_NewInterpreter();
    std::optional<moored::interpreter> there(moored::interpreter::current());
    EXPECT_EQ(events.send(1), sent::queued);  // on the subinterpreter's own state
    PyThreadState_Swap(main);
    on_foreign_thread([&] {
      const moored::attachment visit = moored::try_attach(*there);
      if (!visit) return;
      events.send(2);
      EXPECT_NE(here(), 0);
    });
    for (const std::int64_t each : ran_in) EXPECT_EQ(each, 0);
    EXPECT_FALSE(ran_in.empty());
    PyThreadState_Swap(sub);
    Py_EndInterpreter(sub);
    PyThreadState_Swap(main);
  });
}

TEST(handler, leaves_the_exception_of_its_sender_set) {
  for (const bool is_python : {false, true}) {
    in_child([is_python] {
      const python interpreter;
      run("def handler(batch): pass\ndef failing(batch): 1 / 0\n"
          "import sys\nsys.unraisablehook = lambda report: None\n");
      channel<int> events(options(delivery::enter));
      for (const char* const which : {"handler", "failing"}) {
        if (is_python) {
          events.on_batch(global(which));
        } else {
          events.on_batch([](numbers) { PyErr_Clear(); });
        }
        PyErr_SetString(PyExc_KeyError, "the caller's");
        events.send(1);
        EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_KeyError));
        PyErr_Clear();
      }
    });
  }
}

TEST(handler, may_drop_the_last_handle_of_its_channel) {
  for (const delivery how : {delivery::enter, delivery::adaptive, delivery::wake}) {
    in_child([how] {
      const python interpreter;
      std::optional<channel<int>> events(options(how));
      int handled = 0;
      events->on_batch([&](numbers batch) {
        handled += static_cast<int>(batch.size());
        events.reset();
      });
      on_foreign_thread([&] { events->send(1); });
      if (events) events->deliver();
      EXPECT_EQ(handled, 1);
    });
  }
}

/// Asks its channel something when it ends.
struct asks_at_its_end {
  channel<int>* of;
  std::atomic<int>* ended;
  ~asks_at_its_end() {
    (void)of->stats();
    ++*ended;
  }
};

TEST(handler, is_destroyed_without_the_channels_lock) {
  in_child([] {
    const python interpreter;
    std::atomic<int> ended = 0;
    {
      channel<int> events(options(delivery::enter));
      const auto handle = [&] {
        auto held = std::make_shared<asks_at_its_end>(asks_at_its_end{&events, &ended});
        ended = 0;  // the temporary's
        events.on_batch([held](numbers) {});
      };
      handle();
      handle();
      EXPECT_EQ(ended, 1) << "replaced";
      events.on_batch(nullptr);
      EXPECT_EQ(ended, 2) << "taken away";
      handle();
      events.close();
      EXPECT_EQ(ended, 1) << "of a channel that is closed and empty";
    }
  });
}

/// An event that asks its channel something when it ends.
struct asking_event {
  channel<asking_event>* of = nullptr;
  asking_event() = default;
  explicit asking_event(channel<asking_event>* channel) : of(channel) {}
  asking_event(asking_event&& other) noexcept : of(std::exchange(other.of, nullptr)) {}
  asking_event& operator=(asking_event&&) = delete;
  ~asking_event() {
    if (of != nullptr) (void)of->stats();
  }
};

TEST(handler, events_are_destroyed_without_the_lock_after_it_threw_and_at_the_end) {
  in_child([] {
    Py_InitializeEx(0);
    auto* const events = new channel<asking_event>(options(4));
    run("import sys\nsys.unraisablehook = lambda report: None\n");
    events->on_batch([](moored::view<asking_event>) { throw std::runtime_error("no"); });
    for (int number = 0; number < 3; ++number) events->send(asking_event(events));
    while (events->deliver()) {
    }
    events->on_batch(nullptr);
    for (int number = 0; number < 3; ++number) events->send(asking_event(events));
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(events->stats().undelivered, 3U);
  });
}

TEST(handler, may_throw_what_is_no_std_exception) {
  in_child([] {
    const python interpreter;
    run("import sys\nreports = []\nsys.unraisablehook = lambda r: reports.append(r.exc_value)\n");
    channel<int> events(options(delivery::enter));
    events.on_batch([](numbers) { throw 5; });
    on_foreign_thread([&] { EXPECT_EQ(events.send(1), sent::queued); });
    EXPECT_EQ(value_of("len(reports) == 1 and isinstance(reports[0], RuntimeError)"), 1);
  });
}

TEST(handler, hears_of_a_changed_delivery_at_its_next_batch) {
  in_child([] {
    const python interpreter;
    channel<int> events(options(delivery::enter, 1h));
    std::atomic<int> after = 0;
    std::atomic<bool> changed = false;
    // Each batch is followed by another one, for ever.
    events.on_batch([&](numbers) {
      if (changed) ++after;
      events.send(1);
      if (!changed) {
        events.deliver_by(delivery::poll);
        changed = true;
      }
    });
    on_foreign_thread([&] { events.send(1); });
    EXPECT_EQ(after, 0);
    EXPECT_EQ(events.stats().depth, 1U);
    EXPECT_EQ(events.stats().wakes, 0U);
  });
}

TEST(handler, that_raises_anything_under_wake_is_told_of_the_rest) {
  in_child([] {
    const python interpreter;
    run("import asyncio\nseen = []\n"
        "def handler(batch):\n"
        "    seen.extend(batch)\n"
        "    if len(seen) < 100: raise asyncio.CancelledError\n");
    channel<int> events;
    events.on_batch(global("handler"));
    const auto capsule = moored::reference::steal(events.capsule());
    const auto* const table = static_cast<moored::channel_capsule*>(
        PyCapsule_GetPointer(capsule.get(), moored::channel_capsule_name));
    for (int number = 0; number < 200; ++number) events.send(number);
    table->acknowledge(table->channel);
    const std::uint64_t wakes = events.stats().wakes;
    EXPECT_EQ(table->deliver(table->channel), -1);
    PyErr_Clear();
    EXPECT_EQ(events.stats().wakes, wakes + 1) << "its loop hears of what is left";
    while (table->deliver(table->channel) != 0) PyErr_Clear();
    EXPECT_EQ(value_of("len(seen)"), 200);
  });
}

TEST(handler, that_was_interrupted_by_ctrl_c_loses_no_further_event) {
  in_child([] {
    Py_InitializeEx(1);
    run("import signal\nseen = []\n"
        "def handler(batch):\n"
        "    seen.extend(batch)\n"
        "    if len(seen) == 1: raise KeyboardInterrupt\n"
        "def go(send):\n"
        "    send()\n"
        "    for _ in range(10**9): pass\n"
        "caught = 0\n");
    static channel<int>* events = nullptr;
    events = new channel<int>(options(delivery::enter));
    events->on_batch(global("handler"));
    static PyMethodDef send = {"send",
                               [](PyObject*, PyObject*) -> PyObject* {
                                 events->send(1);
                                 Py_RETURN_NONE;
                               },
                               METH_NOARGS, nullptr};
    give("send", PyCFunction_New(&send, nullptr));
    run("try: go(send)\nexcept KeyboardInterrupt: caught = 1\n");
    EXPECT_EQ(value_of("caught"), 1);
    events->send(2);
    EXPECT_EQ(value_of("seen == [1, 2]"), 1);
    delete events;
    EXPECT_EQ(Py_FinalizeEx(), 0);
  });
}

TEST(handler, of_a_last_handle_that_is_dropped_by_a_thread_which_is_joined_with_the_gil) {
  in_child([] {
    const python interpreter;
    run("def handler(batch): pass\n");
    std::optional<channel<int>> events(options(delivery::poll));
    events->on_batch(global("handler"));
    std::thread([&] { events.reset(); }).join();
  });
}

TEST(handler, that_is_a_method_of_what_owns_the_channel_is_let_go_when_that_is_closed_and_empty) {
  in_child([] {
    const python interpreter;
    run("ended = 0\n"
        "class Owner:\n"
        "    def handle(self, batch): pass\n"
        "    def __del__(self):\n"
        "        global ended\n"
        "        ended += 1\n"
        "owner = Owner()\n");
    channel<int> events;
    events.on_batch(
        moored::reference::steal(PyObject_GetAttrString(global("owner"), "handle")).get());
    PyObject_SetAttrString(global("owner"), "channel",
                           moored::reference::steal(events.capsule()).get());
    events.send(1);
    events.close();
    run("del owner\n");
    EXPECT_EQ(value_of("ended"), 0) << "an event is queued for it";
    while (events.deliver()) {
    }
    EXPECT_EQ(value_of("ended"), 1);
  });
}

TEST(handler, all_that_do_not_end_hold_python_up_for_one_bound) {
  in_child([] {
    Py_InitializeEx(0);
    EXPECT_TRUE(moored::open());
    constexpr int handlers = 100;
    moored::set_closing_bound(600ms);
    std::vector<std::unique_ptr<channel<int>>> all;
    semaphore inside;
    for (int number = 0; number < handlers; ++number) {
      all.push_back(std::make_unique<channel<int>>(options(delivery::enter)));
      all.back()->on_batch([&](numbers) {
        const moored::detachment detached;
        inside.release();
        for (;;) pause();
      });
      std::thread([&, number] { all[static_cast<std::size_t>(number)]->send(1); }).detach();
      const moored::detachment detached;
      inside.acquire();
    }
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(Py_FinalizeEx(), 0);
    // One bound for each would be a minute, by sleeping alone; the rest takes no half of that, also
    // on a busy machine.
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
}

TEST(handler, gets_what_is_queued_at_the_end_though_senders_enter_meanwhile) {
  in_child([] {
    std::atomic<bool> stop = false;
    std::vector<std::thread> senders;
    std::uint64_t handled = 0;
    auto* const events = new channel<int>(options(delivery::enter));
    {
      const python interpreter;
      events->on_batch([&](numbers batch) { handled += batch.size(); });
      for (int sender = 0; sender < 4; ++sender) {
        senders.emplace_back([&] {
          while (!stop) events->send(1);
        });
      }
      while (events->stats().delivered == 0) const moored::detachment others_turn;
    }
    stop = true;
    for (std::thread& sender : senders) sender.join();
    EXPECT_EQ(events->stats().undelivered, 0U);
    EXPECT_EQ(events->stats().delivered, handled);
    expect_balance(events->stats());
  });
}

TEST(handler, of_an_adaptive_channel_runs_though_the_loop_that_listened_has_gone) {
  in_child([] {
    const python interpreter;
    channel<int> events(options(delivery::adaptive));
    std::atomic<int> handled = 0;
    events.on_batch([&](numbers batch) { handled += static_cast<int>(batch.size()); });
    events.listen(true);  // and no loop ever looks
    Py_MakePendingCalls();
    // Sent from when main holds the GIL on, which it then lets go of without running Python. Where
    // the holder cannot be seen, the first event enters, and meets a busy main.
    std::thread sender([&] {
      for (int number = 0; number < 5; ++number) events.send(number);
    });
    while (events.stats().sent == 0) std::this_thread::yield();
    const moored::detachment asleep;
    sender.join();
    while (handled != 5) std::this_thread::yield();
  });
}

TEST(handler, is_interrupted_for_though_cpythons_places_are_full) {
  if (!moored::cpython::pending_calls_interrupt) GTEST_SKIP() << "needs CPython 3.13";
  for (const delivery how : {delivery::adaptive, delivery::interrupt}) {
    in_child([how] {
      const python interpreter;
      channel<int> events(options(how));
      std::atomic<int> handled = 0;
      events.on_batch([&](numbers batch) { handled += static_cast<int>(batch.size()); });
      Py_MakePendingCalls();
      const auto nothing = [](void*) { return 0; };
      std::thread([&] {
        while (Py_AddPendingCall(nothing, nullptr) == 0) {
        }
        events.send(1);
      }).join();
      while (handled == 0) {  // main runs Python now and then; no further event comes
        Py_MakePendingCalls();
        const moored::detachment asleep;
        std::this_thread::yield();
      }
    });
  }
}

TEST(handler, a_thread_that_was_cancelled_sends_and_ends_where_it_may_be_cancelled) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer takes the stack of a thread that was cancelled for its frames'";
#endif
  for (const delivery how : {delivery::wake, delivery::enter}) {
    in_child([how] {
      const python interpreter;
      channel<int> events(options(how));
      events.on_batch([](numbers) {});
      struct argument {
        channel<int>& events;
        bool went_on = false;
      } shared{events};
      const moored::detachment detached;
      pthread_t thread{};
      ASSERT_EQ(pthread_create(
                    &thread, nullptr,
                    [](void* given) -> void* {
                      auto& mine = *static_cast<argument*>(given);
                      pthread_cancel(pthread_self());
                      EXPECT_EQ(mine.events.send(1), sent::queued);
                      mine.went_on = true;
                      pthread_testcancel();
                      return nullptr;
                    },
                    &shared),
                0);
      void* came = nullptr;
      pthread_join(thread, &came);
      EXPECT_EQ(came, PTHREAD_CANCELED);
      EXPECT_TRUE(shared.went_on);
    });
  }
}

}  // namespace
