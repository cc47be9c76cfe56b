// unit/urgent.cpp: getting the GIL from a thread that runs Python.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "child.hpp"

using namespace moored_test;

namespace {

/// Main runs Python, and lets go of the GIL only when it is asked to: its switch interval is a
/// thousand seconds. It ends when `seen` is set.
constexpr const char* run_until_seen = "while not seen: pass";

void let_main_be_busy() {
  moored::set_urgent_budget(1);  // a thread that is descheduled with the GIL uses up any other
  run("import sys; sys.setswitchinterval(1000); seen = False");
}

/// Waits for the thread without the GIL.
void join(std::thread& one) {
  const moored::detachment others;
  one.join();
}

}  // namespace

TEST(gil_budget, gives_its_share_of_the_time_that_goes_by) {
  moored::cpython::gil_budget budget;
  budget.set_share(0.25);
  std::int64_t now = 10'000'000'000;
  ASSERT_TRUE(budget.has_some(now));
  budget.take(moored::cpython::gil_budget::full_after_ns / 4, now);  // all that a full one holds
  EXPECT_TRUE(budget.has_some(now));
  budget.take(1'000, now);
  EXPECT_FALSE(budget.has_some(now));
  EXPECT_FALSE(budget.has_some(now + 3'999));
  EXPECT_TRUE(budget.has_some(now + 4'000));
}

TEST(gil_budget, holds_no_more_than_a_full_one) {
  moored::cpython::gil_budget budget;
  budget.set_share(0.5);
  const std::int64_t later = 3'600'000'000'000;
  budget.take(moored::cpython::gil_budget::full_after_ns / 2 + 1, later);
  EXPECT_FALSE(budget.has_some(later));
}

TEST(gil_budget, of_nothing_gives_nothing_and_of_all_gives_all) {
  moored::cpython::gil_budget budget;
  budget.set_share(0);
  EXPECT_FALSE(budget.has_some(INT64_MAX));
  EXPECT_EQ(budget.share() < 1e-9, true);
  budget.set_share(1);
  budget.take(INT64_MAX / 4, 0);
  EXPECT_TRUE(budget.has_some(0));
}

TEST(urgent, attach_is_an_ordinary_one_before_it_is_prepared) {
  in_child([] {
    const python interpreter;
    EXPECT_EQ(moored::means(moored::urgent), moored::urgent_means::none);
    on_foreign_thread([] {
      const moored::attachment attached = moored::try_attach(moored::urgent);
      EXPECT_TRUE(attached);
      run("pass");
    });
    EXPECT_EQ(moored::stats().urgent_requests, 0U);
  });
}

TEST(urgent, attach_is_refused_without_an_interpreter) {
  in_child([] {
    const moored::attachment attached = moored::try_attach(moored::urgent);
    EXPECT_EQ(attached.why(), moored::refusal::no_interpreter);
  });
}

TEST(urgent, is_not_prepared_in_a_subinterpreter_or_by_a_thread_that_is_not_attached) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      const moored::urgent_support support = moored::install(moored::urgent);
      EXPECT_EQ(support.by, moored::urgent_means::none);
      EXPECT_NE(support.why, nullptr);
    });
    PyThreadState* const main = PyThreadState_Get();
    PyThreadState* const sub = Py_NewInterpreter();
    EXPECT_NE(moored::install(moored::urgent).why, nullptr);
    Py_EndInterpreter(sub);
    PyThreadState_Swap(main);
    EXPECT_EQ(moored::means(moored::urgent), moored::urgent_means::none);
  });
}

#ifndef Py_GIL_DISABLED

TEST(urgent, attach_gets_the_gil_from_a_main_thread_that_runs_python) {
  in_child([] {
    const python interpreter;
    const moored::urgent_support support = moored::install(moored::urgent);
    ASSERT_EQ(support.by, moored::urgent_means::request) << support.why;
    EXPECT_EQ(moored::install(moored::urgent).by, moored::urgent_means::request);
    let_main_be_busy();
    std::thread foreign([] {
      for (int turn = 0; turn < 100; ++turn) {
        const moored::attachment attached = moored::try_attach(moored::urgent);
        ASSERT_TRUE(attached);
        if (turn == 99) run("seen = True");
      }
    });
    run(run_until_seen);
    join(foreign);
    EXPECT_GE(moored::stats().urgent_requests, 1U);
    EXPECT_EQ(moored::cpython::this_threads_wish.urgent, 0);
  });
}

TEST(urgent, keep_thread_makes_every_binding_of_the_thread_urgent) {
  in_child([] {
    const python interpreter;
    ASSERT_EQ(moored::install(moored::urgent).by, moored::urgent_means::request);
    std::atomic<bool> keeps{false}, may_go{false};
    std::thread foreign([&] {
      EXPECT_TRUE(moored::keep_thread(moored::urgent));
      keeps = true;
      while (!may_go) std::this_thread::yield();
      const PyGILState_STATE token = PyGILState_Ensure();
      run("seen = True");
      PyGILState_Release(token);
    });
    {
      const moored::detachment others;
      while (!keeps) std::this_thread::yield();
    }
    let_main_be_busy();
    may_go = true;
    run(run_until_seen);
    join(foreign);
    EXPECT_GE(moored::stats().urgent_requests, 1U);
  });
}

TEST(urgent, attach_over_the_budget_waits_as_any_other) {
  in_child([] {
    const python interpreter;
    ASSERT_EQ(moored::install(moored::urgent).by, moored::urgent_means::request);
    moored::set_urgent_budget(0);
    run("import sys; sys.setswitchinterval(0.0005); seen = False");
    std::thread foreign([] {
      const moored::attachment attached = moored::try_attach(moored::urgent);
      run("seen = True");
    });
    run(run_until_seen);
    join(foreign);
    EXPECT_EQ(moored::stats().urgent_requests, 0U);
    EXPECT_GE(moored::stats().urgent_requests_denied, 1U);
  });
}

// None of them may be kept out for good: each has to get as many turns as it wants.
TEST(urgent, attaches_of_many_threads_starve_neither_main_nor_pythons_own_threads) {
  in_child([] {
    const python interpreter;
    ASSERT_EQ(moored::install(moored::urgent).by, moored::urgent_means::request);
    run("import threading\n"
        "turns = {'main': 0, 'own': 0}\n"
        "done = False\n"
        "def work(name):\n"
        "    while turns[name] < 200_000: turns[name] += 1\n"
        "own = threading.Thread(target=work, args=('own',))\n"
        "own.start()\n");
    std::atomic<bool> stops{false};
    std::atomic<int> visits{0};
    std::vector<std::thread> foreign;
    for (int index = 0; index < 6; ++index)
      foreign.emplace_back([&] {
        while (!stops) {
          const moored::attachment attached = moored::try_attach(moored::urgent);
          run("turns.get('main')");
          ++visits;
        }
      });
    run("work('main'); own.join()");
    stops = true;
    for (std::thread& one : foreign) join(one);
    EXPECT_EQ(value_of("turns['main'] + turns['own']"), 400'000);
    EXPECT_GE(visits.load(), 6);
  });
}

TEST(urgent, attaches_go_on_in_the_child_of_a_fork) {
  in_child([] {
    const python interpreter;
    ASSERT_EQ(moored::install(moored::urgent).by, moored::urgent_means::request);
    run("import os");
    const long child = value_of("os.fork()");
    let_main_be_busy();
    std::thread foreign([] {
      const moored::attachment attached = moored::try_attach(moored::urgent);
      run("seen = True");
    });
    run(run_until_seen);
    join(foreign);
    EXPECT_GE(moored::stats().urgent_requests, 1U);
    if (child == 0) _exit(testing::Test::HasFailure() ? 1 : 0);
    run(("code = os.waitpid(" + std::to_string(child) + ", 0)[1]").c_str());
    EXPECT_EQ(value_of("code"), 0);
  });
}

TEST(urgent, the_end_of_python_refuses_those_that_come_later) {
  in_child([] {
    std::atomic<bool> stops{false};
    std::thread foreign;
    {
      const python interpreter;
      ASSERT_EQ(moored::install(moored::urgent).by, moored::urgent_means::request);
      foreign = std::thread([&] {
        while (moored::try_attach(moored::urgent)) {
        }
        stops = true;
      });
      run("for _ in range(200_000): pass");
    }
    foreign.join();
    EXPECT_TRUE(stops);
  });
}

#endif

TEST(gil_hand_over, lets_an_attach_in_while_main_runs_python) {
  if constexpr (!moored::cpython::pending_calls_interrupt || !moored::cpython::has_gil)
    GTEST_SKIP() << "a busy main thread notices pending calls from 3.13 on, with a GIL";
  in_child([] {
    const python interpreter;
    ASSERT_TRUE(moored::cpython::gil_hand_over::prepare());
    run("pass\npass");  // main introduces itself
    ASSERT_EQ(moored::means(moored::urgent), moored::urgent_means::hand_over);
    let_main_be_busy();
    std::thread foreign([] {
      for (int turn = 0; turn < 50; ++turn) {
        const moored::attachment attached = moored::try_attach(moored::urgent);
        if (turn == 49) run("seen = True");
      }
    });
    run(run_until_seen);
    join(foreign);
  });
}
