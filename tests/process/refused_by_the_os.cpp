// process/refused_by_the_os.cpp: descriptors, threads, keys and a clock that the OS refuses or
// turns.
#include "attempts.hpp"
#include "forbidding.hpp"
#include "options.hpp"

#include <poll.h>

using moored::channel;
using moored::delivery;
using moored::refusal;
using moored::sent;
using moored::wakeup;
using moored::detail::told;
using namespace moored_test;
using namespace std::chrono_literals;

namespace {

// ---- the barrier of the gate ----

/// Ends the interpreter while a thread is inside, which has been let in again and again: the end
/// waits for it, and lets no thread in afterwards.
void end_while_a_thread_is_inside(bool by_its_seat) {
  std::atomic<bool> is_inside{false}, has_left{false}, was_let_in_late{false};
  semaphore go_on;
  std::thread late([&] {
    for (int turn = 0; turn < 100; ++turn) {
      const moored::attachment attached = moored::try_attach();
      EXPECT_TRUE(attached);
    }
    {
      const moored::attachment attached = moored::try_attach();
      const moored::detail::thread_record& me = moored::detail::this_thread;
      EXPECT_NE(me.counted_in, nullptr);
      EXPECT_EQ(me.counted_in == me.seat, by_its_seat);
      const moored::detachment detached;
      is_inside = true;
      go_on.acquire();
    }
    has_left = true;
    while (moored::try_attach()) was_let_in_late = true;
  });
  std::thread releasing([&] {
    while (moored::try_attach().why() != refusal::closing) std::this_thread::yield();
    go_on.release();
  });
  {
    const moored::detachment detached;
    while (!is_inside) std::this_thread::yield();
  }
  EXPECT_EQ(Py_FinalizeEx(), 0);
  EXPECT_TRUE(has_left);
  EXPECT_EQ(moored::stats().overdue, 0U);
  EXPECT_FALSE(was_let_in_late);
  late.join();
  releasing.join();
}

TEST(gate, waits_for_a_thread_that_is_inside_by_its_seat) {
  in_child([] {
    Py_InitializeEx(0);
    ASSERT_TRUE(moored::open());
    end_while_a_thread_is_inside(true);
  });
}

TEST(gate, goes_by_shared_words_where_membarrier_is_forbidden) {
  in_child([] {
    if (!forbid(SYS_membarrier)) return;  // no filter can be had: nothing can forbid it either
    Py_InitializeEx(0);
    ASSERT_TRUE(moored::open());
    EXPECT_FALSE(moored::detail::register_membarrier());
    end_while_a_thread_is_inside(false);
  });
}

TEST(gate, closes_where_membarrier_was_forbidden_after_it_was_opened) {
  in_child([] {
    Py_InitializeEx(0);
    ASSERT_TRUE(moored::open());
    if (!forbid(SYS_membarrier)) return;
    end_while_a_thread_is_inside(true);
  });
}

TEST(gate, is_used_in_a_next_epoch_by_a_thread_that_has_its_seat) {
  if (moored::cpython::old_state_haunts_next_epoch)
    GTEST_SKIP() << "3.15: a thread that kept a state in an earlier epoch is refused";
  in_child([] {
    semaphore next, done;
    std::thread same([&] {
      for (int epoch = 0; epoch < 3; ++epoch) {
        next.acquire();
        for (int turn = 0; turn < 10; ++turn) EXPECT_TRUE(moored::try_attach());
        done.release();
      }
    });
    for (const std::uint64_t attaches : {10U, 20U, 30U}) {
      Py_InitializeEx(0);
      ASSERT_TRUE(moored::open());
      next.release();
      {
        const moored::detachment detached;
        done.acquire();
      }
      EXPECT_EQ(moored::stats().attaches, attaches);
      EXPECT_EQ(Py_FinalizeEx(), 0);
      EXPECT_EQ(moored::stats().overdue, 0U);
    }
    same.join();
  });
}

// ---- descriptors ----

TEST(fault, a_channel_without_descriptors_is_an_error_and_leaves_none_open) {
  in_child([] {
    const std::ptrdiff_t before = open_descriptors();
    for (const int error : {EMFILE, ENFILE, ENOMEM, ENOSPC}) {
      the_faults.eventfd.arm(error, 1);
      EXPECT_EQ(error_of([] { const channel<int> numbers; }), error);
      EXPECT_EQ(open_descriptors(), before);
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
                the_faults.eventfd.arm(EMFILE);
                EXPECT_EQ(error_of([] { const channel<int> another; }), EMFILE);
                EXPECT_EQ(numbers.send(2), sent::closed);
                EXPECT_TRUE(numbers.wait());
                expect_balance(numbers.stats());
              }),
              "exit 0");
    EXPECT_EQ(numbers.take_native(), std::vector{1});
  });
}

bool is_readable(int fd) {
  pollfd one{fd, POLLIN, 0};
  return poll(&one, 1, 0) == 1;
}

TEST(fault, a_forked_child_without_descriptors_has_none_and_leaves_the_parents_alone) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    numbers.send(1);
    the_faults.eventfd.arm(EMFILE);
    EXPECT_EQ(fate_of([&] {
                EXPECT_EQ(numbers.told_by().fd(), -1);
                numbers.told_by().acknowledge();
                numbers.close();
                EXPECT_TRUE(numbers.wait());
              }),
              "exit 0");
    the_faults.eventfd.disarm();
    EXPECT_TRUE(is_readable(numbers.told_by().fd()));
  });
}

TEST(fault, a_consumer_without_a_descriptor_gets_an_error) {
  in_child([] {
    const python interpreter;
    channel<int> numbers;
    PyObject* const capsule = numbers.capsule();
    const auto* const table = static_cast<moored::channel_capsule*>(
        PyCapsule_GetPointer(capsule, moored::channel_capsule_name));
    the_faults.eventfd.arm(EMFILE, 1);
    EXPECT_EQ(table->subscribe(table->channel), -1);
    EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_OSError));
    PyErr_Clear();
    {
      const without_memory now;
      EXPECT_EQ(table->subscribe(table->channel), -1);
    }
    EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_MemoryError));
    PyErr_Clear();
    const int mine = table->subscribe(table->channel);
    EXPECT_GE(mine, 0);
    {
      const without_memory now;
      table->unsubscribe(table->channel, mine);  // it stays until the channel ends
    }
    numbers.send(1);
    EXPECT_TRUE(is_readable(mine));
    table->unsubscribe(table->channel, mine);
    Py_DECREF(capsule);
  });
}

TEST(fault, interrupted_reads_and_writes_are_made_again) {
  in_child([] {
    wakeup bell;
    the_faults.write.arm(EINTR, 3);
    EXPECT_EQ(bell.notify(), told::all);
    EXPECT_EQ(the_faults.write.failed(), 3);
    EXPECT_TRUE(is_readable(bell.fd()));
    the_faults.read.arm(EINTR, 3);
    bell.acknowledge();
    the_faults.read.disarm();
    EXPECT_FALSE(is_readable(bell.fd()));
    // A signal that never ends holds nothing up.
    the_faults.write.arm(EINTR);
    the_faults.read.arm(EINTR);
    EXPECT_EQ(bell.notify(), told::refused);
    bell.acknowledge();
  });
}

TEST(fault, a_full_counter_still_tells) {
  in_child([] {
    wakeup bell;
    const std::uint64_t most = ~std::uint64_t{0} - 1;
    ASSERT_EQ(::write(bell.fd(), &most, sizeof most), static_cast<ssize_t>(sizeof most));
    EXPECT_EQ(bell.notify(), told::all) << "it can be read";
    EXPECT_EQ(bell.notify(), told::already);
    bell.acknowledge();
    EXPECT_FALSE(is_readable(bell.fd()));
    EXPECT_EQ(bell.notify(), told::all);
    EXPECT_TRUE(is_readable(bell.fd()));
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
    EXPECT_TRUE(is_readable(numbers.told_by().fd()));
    EXPECT_EQ(numbers.take_native(), (std::vector{1, 2, 3}));
  });
}

TEST(fault, a_thread_that_waits_needs_no_descriptor_that_can_be_written) {
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

// ---- threads and keys ----

TEST(fault, a_side_state_without_a_thread_to_make_it_on_is_refused) {
  if (!has_gil) GTEST_SKIP() << needs_a_gil;
  in_child([] {
    const python interpreter;
    EXPECT_TRUE(moored::open());
    on_foreign_thread([] {
      the_faults.pthread_create.arm(EAGAIN);
      EXPECT_EQ(moored::try_attach(moored::strategy::shared).why(), refusal::no_memory);
      {
        the_faults.pthread_create.disarm();
        const without_memory now;
        EXPECT_EQ(moored::try_attach(moored::strategy::shared).why(), refusal::no_memory);
      }
      if (moored::try_attach(moored::strategy::shared).why() == refusal::unsupported) return;
      EXPECT_TRUE(moored::try_attach(moored::strategy::shared));
    });
  });
}

/// A thread adopts a state, and at its end no thread can be started to clear it.
void end_without_a_reaper() {
  on_foreign_thread([] {
    as_another_binding([] { EXPECT_TRUE(moored::keep_thread()); });
    the_faults.pthread_create.arm(EAGAIN);
  });
  the_faults.pthread_create.disarm();
}

TEST(fault, an_adopted_state_without_a_reaper_is_cleared_by_the_next_thread_that_adopts) {
  if (!has_gil) GTEST_SKIP() << "without a GIL no reaper frees it";
  in_child([] {
    const python interpreter;
    const int before = states();
    end_without_a_reaper();
    EXPECT_EQ(states(), before + 1);
    on_foreign_thread([] { as_another_binding([] { EXPECT_TRUE(moored::keep_thread()); }); });
    {
      // The second state has a reaper, which a busy machine may let run late as well.
      const moored::detachment detached;
      while (moored::stats().states_kept != 0) std::this_thread::yield();
    }
    EXPECT_EQ(states(), before);
    EXPECT_GE(moored::stats().states_freed_late, 1U);
  });
}

TEST(fault, an_adopted_state_without_a_reaper_is_left_to_the_end_of_python) {
  if (!has_gil) GTEST_SKIP() << "without a GIL no reaper frees it";
  in_child([] {
    {
      const python interpreter;
      end_without_a_reaper();
    }
    EXPECT_EQ(moored::stats().states_kept, 0U);
    EXPECT_EQ(moored::stats().states_freed + moored::stats().states_forgotten, 1U);
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
    EXPECT_EQ(moored::stats().states_kept, 0U);
  });
}

TEST(fault, an_adaptive_interrupt_without_a_thread_is_looked_after_from_the_next_send_on) {
  if (!moored::cpython::pending_calls_interrupt) GTEST_SKIP() << "needs CPython 3.13";
  if (!has_gil) GTEST_SKIP() << "there is no GIL that main could hold";
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(delivery::adaptive));
    std::atomic<int> handled = 0;
    numbers.on_batch([&](moored::view<int> batch) { handled += static_cast<int>(batch.size()); });
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
  if (!has_gil) GTEST_SKIP() << "there is no GIL that main could hold";
  in_child([] {
    const python interpreter;
    channel<int> numbers(options(delivery::adaptive));
    std::atomic<int> handled = 0;
    numbers.on_batch([&](moored::view<int> batch) { handled += static_cast<int>(batch.size()); });
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

// ---- the clock ----

/// A call that stays inside Python for ever, detached.
void stay_inside_for_ever() {
  semaphore is_inside;
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
    EXPECT_EQ(moored::stats().overdue, 1U);
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
    EXPECT_EQ(moored::stats().overdue, 1U);
    usher.join();
  });
}

TEST(fault, a_handler_that_does_not_end_holds_nothing_up_though_the_clock_stands_still) {
  in_child([] {
    Py_InitializeEx(0);
    EXPECT_TRUE(moored::open());
    moored::set_closing_bound(50ms);
    channel<int> numbers(options(delivery::enter));
    semaphore is_inside;
    numbers.on_batch([&](moored::view<int>) {
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
    // A thread that sleeps looks again after a second, at the latest.
    moored::detail::deadline until(std::chrono::hours(10));
    monotonic_clock::jump(std::chrono::hours(11));
    EXPECT_TRUE(until.over());
    moored::detail::sleepers bell;
    EXPECT_EQ(bell.sleep(bell.now(), 1ms), moored::detail::sleepers::woken::time_over);
    EXPECT_EQ(bell.sleep(bell.now() + 1, 1h), moored::detail::sleepers::woken::told);
  });
}

TEST(fault, a_clock_that_jumps_or_stands_still_loses_no_event) {
  for (const delivery how : {delivery::wake, delivery::enter, delivery::adaptive}) {
    SCOPED_TRACE(moored::name(how));
    in_child([how] {
      const python interpreter;
      channel<int> numbers(options(how));
      std::uint64_t handled = 0;
      numbers.on_batch([&](moored::view<int> batch) {
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
