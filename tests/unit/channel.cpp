// unit/channel.cpp: a channel loses nothing that it does not count: overflow, deliveries, closing,
// forks.
#include "child.hpp"
#include "options.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#if __cplusplus >= 202002L
#include <span>
#endif

using moored::channel;
using moored::channel_options;
using moored::channel_stats;
using moored::delivery;
using moored::overflow;
using moored::sent;
using namespace moored_test;

namespace {

/// An event that tells its sender and its number.
struct event {
  int sender = 0;
  int number = 0;
};

/// Starts `senders` threads that send `each` events, and waits for them without the GIL.
void send_from(channel<event>& into, int senders, int each,
               std::array<std::atomic<int>, 5>* came = nullptr) {
  const moored::detachment detached;
  std::vector<std::thread> threads;
  latch start(senders);
  for (int sender = 0; sender < senders; ++sender) {
    threads.emplace_back([&, sender] {
      start.arrive_and_wait();
      for (int number = 0; number < each; ++number) {
        const sent result = into.send({sender, number});
        if (came != nullptr) ++(*came)[static_cast<std::size_t>(result)];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

/// Runs main as an event loop would, until the channel is empty.
template <class T>
void serve_until_empty(channel<T>& from) {
  while (from.stats().depth != 0) {
    from.told_by().acknowledge();
    from.deliver();
    Py_MakePendingCalls();
  }
}

bool can_be_had(delivery how) {
  return how != delivery::interrupt || moored::cpython::pending_calls_interrupt;
}

struct under : testing::TestWithParam<std::tuple<delivery, overflow, int>> {};

TEST_P(under, every_event_is_delivered_or_counted_and_each_senders_order_is_kept) {
  const auto [how, policy, senders] = GetParam();
  if (!can_be_had(how)) GTEST_SKIP() << "interrupt needs CPython 3.13";
  in_child([how = how, policy = policy, senders = senders] {
    const python interpreter;
    channel<event> events(options(64, policy));
    std::map<int, int> last;
    std::uint64_t handled = 0;
    events.on_batch([&](moored::view<event> batch) {
      handled += batch.size();
      for (const event& each : batch) {
        const auto [at, first] = last.try_emplace(each.sender, each.number);
        EXPECT_TRUE(first || at->second < each.number);
        at->second = each.number;
      }
    });
    events.listen(true);
    events.deliver_by(how);
    constexpr int each = 3000;
    std::array<std::atomic<int>, 5> came{};
    std::atomic<bool> done = false;
    std::thread sending([&] {
      send_from(events, senders, each, &came);
      done = true;
    });
    while (!done) {
      events.told_by().acknowledge();
      events.deliver();
      Py_MakePendingCalls();
      const moored::detachment others_turn;
      std::this_thread::yield();
    }
    sending.join();
    serve_until_empty(events);
    const channel_stats s = events.stats();
    expect_balance(s);
    EXPECT_EQ(s.delivered, handled);
    EXPECT_EQ(s.depth, 0U);
    EXPECT_EQ(s.sent, static_cast<std::uint64_t>(came[0]));
    EXPECT_EQ(s.dropped_newest, static_cast<std::uint64_t>(came[1]));
    EXPECT_EQ(s.rejected, static_cast<std::uint64_t>(came[2]));
    EXPECT_EQ(s.refused, 0U);
    EXPECT_EQ(s.sent + s.dropped_newest + s.rejected, static_cast<std::uint64_t>(senders) * each);
    if (policy != overflow::drop_oldest) {
      EXPECT_EQ(s.dropped_oldest, 0U);
    }
    if (policy == overflow::block) {
      EXPECT_EQ(handled, static_cast<std::uint64_t>(senders) * each);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    channels, under,
    testing::Combine(testing::Values(delivery::poll, delivery::wake, delivery::enter,
                                     delivery::interrupt, delivery::adaptive),
                     testing::Values(overflow::block, overflow::reject, overflow::drop_oldest,
                                     overflow::drop_newest),
                     testing::Values(1, 2, 8)),
    [](const auto& one) {
      return std::string(moored::name(std::get<0>(one.param))) + "_" +
             std::string(moored::name(std::get<1>(one.param))) + "_" +
             std::to_string(std::get<2>(one.param));
    });

TEST(channel, its_events_come_as_a_list_in_the_order_that_they_were_sent) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    for (int number = 0; number < 5; ++number) EXPECT_EQ(numbers.send(number), sent::queued);
    PyObject* const some = numbers.take(2);
    PyObject* const others = numbers.take();
    PyObject* const none = numbers.take();
    PyObject* const all = Py_BuildValue("(NNN)", some, others, none);
    PyObject* const text = PyObject_Repr(all);
    EXPECT_STREQ(PyUnicode_AsUTF8(text), "([0, 1], [2, 3, 4], [])");
    Py_DECREF(text);
    Py_DECREF(all);
    const channel_stats s = numbers.stats();
    EXPECT_EQ(s.batches, 2U);
    EXPECT_EQ(s.largest_batch, 3U);
  });
}

#if __cplusplus >= 202002L
TEST(channel, a_handler_may_take_a_span) {
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(delivery::enter));
    std::size_t handled = 0;
    numbers.on_batch([&](std::span<int> batch) { handled += batch.size(); });
    EXPECT_EQ(numbers.send(1), sent::queued);
    EXPECT_EQ(handled, 1U);
  });
}
#endif

TEST(channel, ready_conversions) {
  in_child([] {
    const python interpreter;
    const auto shows = [](PyObject* made, const char* expected) {
      ASSERT_NE(made, nullptr);
      PyObject* const text = PyObject_ASCII(made);
      EXPECT_STREQ(PyUnicode_AsUTF8(text), expected);
      Py_DECREF(text);
      Py_DECREF(made);
    };
    const std::array two{std::byte{'h'}, std::byte{0}};
    const auto convert = [](auto value) {
      return moored::converter<decltype(value)>::to_python(std::move(value));
    };
    shows(convert(true), "True");
    shows(convert(-5), "-5");
    shows(convert(~std::uint64_t{0}), "18446744073709551615");
    shows(convert(0.5), "0.5");
    shows(convert(std::string("h\xc3\xa9\xff")), "'h\\xe9\\udcff'");
    shows(convert(moored::bytes(two.begin(), two.end())), "b'h\\x00'");
    shows(convert(two), "b'h\\x00'");
    shows(convert(moored::message{7, {std::byte{'x'}}}), "(7, b'x')");
  });
}

TEST(channel, an_event_that_cannot_be_converted_is_counted_and_reported) {
  in_child([] {
    const python interpreter;
    run("import sys\nreports = []\nsys.unraisablehook = reports.append\n");
    channel<int> numbers({}, [](int&& number) -> PyObject* {
      if (number % 2 == 1) return PyErr_Format(PyExc_ValueError, "odd: %d", number);
      return PyLong_FromLong(number);
    });
    for (int number = 0; number < 5; ++number) numbers.send(number);
    PyObject* const even = numbers.take();
    EXPECT_EQ(PyList_Size(even), 3);
    Py_DECREF(even);
    EXPECT_EQ(value_of("len(reports)"), 2);
    EXPECT_EQ(numbers.stats().unconvertible, 2U);
    expect_balance(numbers.stats());
  });
}

TEST(channel, a_handler_that_raises_is_reported_and_gets_the_next_batch) {
  for (const delivery how : {delivery::wake, delivery::enter, delivery::interrupt}) {
    if (!can_be_had(how)) continue;
    in_child([how] {
      const python interpreter;
      run("import sys\nreports = []\nsys.unraisablehook = reports.append\nseen = []\n"
          "def handler(batch):\n    seen.extend(batch)\n    raise ValueError(batch)\n");
      channel<int> numbers;
      numbers.on_batch(global("handler"));
      numbers.deliver_by(how);
      for (int number = 0; number < 3; ++number) {
        on_foreign_thread([&] { numbers.send(number); });
        serve_until_empty(numbers);
      }
      EXPECT_EQ(value_of("seen == [0, 1, 2]"), 1);
      EXPECT_EQ(value_of("len(reports)"), 3);
      numbers.on_batch(nullptr);
    });
  }
}

TEST(channel, a_native_handler_that_throws_is_reported) {
  in_child([] {
    const python interpreter;
    run("import sys\nreports = []\nsys.unraisablehook = lambda r: "
        "reports.append(str(r.exc_value))\n");
    channel<int> numbers(options(delivery::enter));
    numbers.on_batch([](moored::view<int>) { throw std::runtime_error("no"); });
    on_foreign_thread([&] { numbers.send(1); });
    EXPECT_EQ(value_of("reports == ['no']"), 1);
    numbers.on_batch(nullptr);
  });
}

TEST(channel, interrupt_is_refused_where_main_would_not_notice) {
  if (moored::cpython::pending_calls_interrupt) GTEST_SKIP() << "from 3.13 on interrupt is there";
  channel<int> numbers;
  EXPECT_THROW(numbers.deliver_by(delivery::interrupt), moored::unsupported);
  EXPECT_EQ(numbers.delivered_by(), delivery::wake);
}

TEST(channel, an_interrupt_reaches_a_main_thread_that_never_lets_go) {
  if (!moored::cpython::pending_calls_interrupt) GTEST_SKIP() << "needs CPython 3.13";
  in_child([] {
    const python interpreter;
    run("import sys\nsys.setswitchinterval(1000)\nseen = []\n");
    channel<int> numbers(options(delivery::interrupt));
    PyObject* const seen = global("seen");
    PyObject* const extend = PyObject_GetAttrString(seen, "extend");
    numbers.on_batch(extend);
    Py_DECREF(extend);
    std::thread sender([&] { numbers.send(7); });
    run("while not seen: pass\n");
    sender.join();
    EXPECT_EQ(numbers.stats().interrupts, 1U);
  });
}

TEST(channel, an_adaptive_interrupt_that_main_does_not_see_is_looked_after) {
  if (!moored::cpython::pending_calls_interrupt) GTEST_SKIP() << "needs CPython 3.13";
  if (!has_gil) GTEST_SKIP() << "there is no GIL that main could hold";
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(delivery::adaptive));
    std::atomic<int> handled = 0;
    numbers.on_batch([&](moored::view<int> batch) { handled += static_cast<int>(batch.size()); });
    Py_MakePendingCalls();  // main introduces itself
    // Sent while main holds the GIL, which it then lets go of without running Python.
    std::thread([&] { numbers.send(1); }).join();
    const moored::detachment asleep;
    while (handled == 0) std::this_thread::yield();
  });
}

TEST(channel, the_gil_is_seen_from_outside) {
  if (!has_gil) GTEST_SKIP() << "there is no GIL to be seen";
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000
  GTEST_SKIP() << "3.12 shows which thread holds the GIL to threads that wait for it";
#endif
  in_child([] {
    using moored::cpython::gil_view;
    const python interpreter;
    gil_view::find();
    Py_MakePendingCalls();
    const auto seen = [] {
      gil_view::holder now{};
      std::thread([&] { now = gil_view::look(); }).join();
      return now;
    };
    EXPECT_EQ(seen(), gil_view::holder::main);
    {
      const moored::detachment idle;
      EXPECT_EQ(seen(), gil_view::holder::none);
      std::thread([&] {
        const moored::attachment attached = moored::try_attach();
        EXPECT_EQ(seen(), gil_view::holder::other);
      }).join();
    }
  });
}

TEST(channel, one_sender_at_a_time_is_inside) {
  in_child([] {
    const python interpreter;
    channel<event> events(options(100000, delivery::enter));
    constexpr int senders = 4, each = 2000;
    constexpr std::uint64_t of_others = (senders - 1) * each;
    std::atomic<int> inside = 0;
    events.on_batch([&](moored::view<event>) {
      EXPECT_EQ(++inside, 1);
      {
        // The first one that is inside stays until all others have sent everything.
        const moored::detachment others_turn;
        while (events.stats().sent <= of_others) std::this_thread::yield();
      }
      --inside;
    });
    send_from(events, senders, each);
    EXPECT_EQ(events.stats().delivered, std::uint64_t{senders} * each);
  });
}

TEST(channel, a_sender_that_holds_the_gil_for_long_is_relieved) {
  in_child([] {
    const python interpreter;
    channel<event> events(options(delivery::enter, std::chrono::nanoseconds(1)));
    std::set<std::thread::id> runners;
    events.on_batch([&](moored::view<event>) { runners.insert(std::this_thread::get_id()); });
    // Until another than the first runner was seen; a runner that no sender relieves is a test that
    // does not end.
    const moored::detachment detached;
    std::atomic<bool> enough = false;
    std::vector<std::thread> threads;
    for (int sender = 0; sender < 2; ++sender) {
      threads.emplace_back([&] {
        while (!enough) events.send({});
      });
    }
    for (bool more = true; more;) {
      const moored::attachment attached = moored::try_attach();
      more = runners.size() < 2;
    }
    enough = true;
    for (std::thread& thread : threads) thread.join();
  });
}

TEST(channel, a_handler_that_sends_to_its_own_full_channel_is_rejected_not_stuck) {
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(1, delivery::enter));
    std::vector<sent> came;
    numbers.on_batch([&](moored::view<int> batch) {
      if (batch.front() != 0) return;
      came.push_back(numbers.send(1));
      came.push_back(numbers.send(2));
    });
    on_foreign_thread([&] { numbers.send(0); });
    EXPECT_EQ(came, (std::vector{sent::queued, sent::rejected}));
    EXPECT_EQ(numbers.stats().delivered, 2U);
  });
}

TEST(channel, a_blocked_sender_with_the_gil_lets_go_of_it) {
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(1));
    numbers.send(1);
    std::thread consumer([&] {
      const moored::attachment attached = moored::try_attach();
      while (numbers.stats().waits == 0) const moored::detachment others_turn;
      EXPECT_EQ(numbers.take_native().size(), 1U);
    });
    EXPECT_EQ(numbers.send(2), sent::queued);  // main holds the GIL
    const moored::detachment detached;
    consumer.join();
  });
}

TEST(channel, closing_wakes_everybody_and_what_was_sent_is_still_delivered) {
  in_child([] {
    const python interpreter;
    const moored::detachment detached;
    channel<int> full(options(1));
    full.send(1);
    std::thread sender([&] { EXPECT_EQ(full.send(2), sent::closed); });
    channel<int> empty;
    std::vector<std::thread> waiting;
    for (int waiter = 0; waiter < 3; ++waiter)
      waiting.emplace_back([&] { EXPECT_TRUE(empty.wait()); });
    while (full.stats().waits == 0) std::this_thread::yield();
    full.close();
    empty.close();
    sender.join();
    for (std::thread& thread : waiting) thread.join();
    EXPECT_EQ(full.send(3), sent::closed);
    EXPECT_EQ(full.take_native(), std::vector{1});
    EXPECT_EQ(full.stats().refused, 2U);
    EXPECT_FALSE(channel<int>().wait(std::chrono::milliseconds(1)));
  });
}

TEST(channel, the_last_native_handle_closes_it) {
  in_child([] {
    const python interpreter;
    PyObject* capsule = nullptr;
    {
      channel<int> numbers;
      const channel<int> copy = numbers;
      numbers.send(5);
      capsule = copy.capsule();
    }
    const auto* const table = static_cast<moored::channel_capsule*>(
        PyCapsule_GetPointer(capsule, moored::channel_capsule_name));
    EXPECT_EQ(table->closed(table->channel), 1);
    PyObject* const rest = table->take(table->channel, -1);
    EXPECT_EQ(PyList_Size(rest), 1);
    Py_DECREF(rest);
    Py_DECREF(capsule);
  });
}

TEST(channel, a_batch_ends_when_the_gil_was_held_for_long_enough) {
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(std::chrono::nanoseconds(1)));
    for (int number = 0; number < 1000; ++number) numbers.send(number);
    std::size_t handled = 0;
    numbers.on_batch([&](moored::view<int> batch) { handled += batch.size(); });
    EXPECT_TRUE(numbers.deliver());
    EXPECT_LT(handled, 1000U);
    while (numbers.deliver()) {
    }
    EXPECT_EQ(handled, 1000U);
  });
}

TEST(channel, the_descriptor_is_written_once_until_it_is_acknowledged) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    for (int number = 0; number < 100; ++number) numbers.send(number);
    EXPECT_EQ(numbers.stats().wakes, 1U);
    EXPECT_EQ(numbers.take_native(10).size(), 10U);
    numbers.send(1);
    EXPECT_EQ(numbers.take_native().size(), 91U);
    numbers.send(1);
    EXPECT_EQ(numbers.stats().wakes, 1U) << "it can still be read";
    numbers.told_by().acknowledge();
    numbers.send(1);
    EXPECT_EQ(numbers.stats().wakes, 2U);
  });
}

TEST(channel, switching_tells_whom_it_now_concerns) {
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(delivery::poll));
    std::size_t handled = 0;
    numbers.on_batch([&](moored::view<int> batch) { handled += batch.size(); });
    numbers.send(1);
    EXPECT_EQ(numbers.stats().wakes, 0U);
    numbers.deliver_by(delivery::wake);
    EXPECT_EQ(numbers.stats().wakes, 1U);
    EXPECT_EQ(handled, 0U);
    numbers.deliver_by(delivery::enter);
    EXPECT_EQ(handled, 1U);
  });
}

TEST(channel, at_the_end_of_python_the_handler_gets_the_rest_and_senders_are_refused) {
  in_child([] {
    std::size_t handled = 0;
    std::atomic<bool> stop = false;
    std::uint64_t queued = 0;
    std::optional<channel<int>> numbers;
    std::thread sender;
    {
      const python interpreter;
      numbers.emplace(options(100, delivery::wake));
      numbers->on_batch([&](moored::view<int> batch) { handled += batch.size(); });
      sender = std::thread([&] {
        while (!stop) queued += numbers->send(1) == sent::queued ? 1 : 0;
      });
      while (numbers->stats().waits == 0) std::this_thread::yield();
    }
    EXPECT_EQ(numbers->send(1), sent::closed);
    stop = true;
    sender.join();
    EXPECT_EQ(handled, queued);
    EXPECT_EQ(numbers->stats().undelivered, 0U);
    expect_balance(numbers->stats());
  });
}

TEST(channel, what_nobody_took_is_counted_at_the_end_of_python) {
  in_child([] {
    std::optional<channel<int>> numbers;
    {
      const python interpreter;
      numbers.emplace();
      Py_XDECREF(numbers->capsule());
      for (int number = 0; number < 3; ++number) numbers->send(number);
    }
    EXPECT_EQ(numbers->stats().undelivered, 3U);
    expect_balance(numbers->stats());
  });
}

TEST(channel, a_forked_child_has_a_closed_one_and_the_parent_its_events) {
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(1000000, overflow::reject));
    std::atomic<bool> stop = false;
    std::thread sender([&] {
      while (!stop) numbers.send(1);
    });
    while (numbers.stats().sent == 0) std::this_thread::yield();
    for (int round = 0; round < 20; ++round) {
      EXPECT_EQ(fate_of([&] {
                  EXPECT_EQ(numbers.send(1), sent::closed);
                  EXPECT_TRUE(numbers.take_native().empty());
                  expect_balance(numbers.stats());
                }),
                "exit 0");
    }
    stop = true;
    sender.join();
    const channel_stats s = numbers.stats();
    EXPECT_EQ(numbers.take_native().size(), s.sent);
  });
}

TEST(channel, senders_outlive_python) {
  in_child([] {
    std::atomic<bool> stop = false;
    std::vector<std::thread> senders;
    channel<int>* const numbers = new channel<int>(options(64, delivery::adaptive));
    for (int sender = 0; sender < 4; ++sender) {
      senders.emplace_back([&] {
        while (!stop) numbers->send(1);
      });
    }
    for (int life = 0; life < 2; ++life) {
      const python interpreter;
      numbers->on_batch([](moored::view<int>) {});
      run("sum(range(100000))\n");
    }
    stop = true;
    for (std::thread& sender : senders) sender.join();
    expect_balance(numbers->stats());
    delete numbers;
  });
}

}  // namespace
