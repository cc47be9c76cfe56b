// unit/study/shared_states.cpp: the shared state and the borrowed state: what works, what is
// another's, and what is made safe.
#include "child.hpp"

using namespace moored_test;
using moored::strategy;

namespace {

class shared_states : public testing::Test {
 public:
  void SetUp() override {
    if (!has_gil) GTEST_SKIP() << needs_a_gil;
  }
};
using shared = shared_states;
using shared = shared_states;
using borrowed = shared_states;
using lending = shared_states;

/// Attached by a state that is not its own, on the calling thread, while main lends its state.
void by_shared_state(strategy how, const std::function<void()>& body) {
  const moored::attachment attached = moored::attach(how);
  body();
}

void for_both(const std::function<void(strategy)>& body) {
  for (const strategy how : {strategy::shared, strategy::borrowed}) {
    SCOPED_TRACE(moored::name(how));
    in_child([&] {
      const python interpreter;
      body(how);
    });
  }
}

}  // namespace

TEST(without_a_gil, no_state_is_shared) {
  if (has_gil) GTEST_SKIP() << "this Python has a GIL";
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      EXPECT_EQ(moored::try_attach(strategy::shared).why(), moored::refusal::unsupported);
      EXPECT_EQ(moored::try_attach(strategy::borrowed).why(), moored::refusal::unsupported);
    });
    EXPECT_EQ(moored::stats().refusals, 2U);
  });
}

TEST_F(shared, may_nest_moored_and_other_bindings) {
  for_both([](strategy how) {
    run("calls = 0");
    const moored::lending lend;
    for (int thread = 0; thread < 3; ++thread) {  // the first user and later ones
      std::thread([how] {
        by_shared_state(how, [] {
          PyThreadState* const state = PyThreadState_Get();
          as_another_binding([&] {
            EXPECT_EQ(PyThreadState_Get(), state);
            const moored::attachment nested = moored::attach();
            EXPECT_EQ(PyThreadState_Get(), state);
            run("calls += 1");
          });
          EXPECT_EQ(PyGILState_Check(), 1);
          const moored::detachment detached;
          as_another_binding([&] { EXPECT_EQ(PyThreadState_Get(), state); });
          const moored::attachment again = moored::attach();
          EXPECT_EQ(PyThreadState_Get(), state);
        });
      }).join();
    }
  });
}

TEST_F(shared, leaves_no_trace_on_its_thread) {
  for_both([](strategy how) {
    const moored::lending lend;
    std::thread([how] {
      PyThreadState* state = nullptr;
      by_shared_state(how, [&] { state = PyThreadState_Get(); });
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      as_another_binding([&] { EXPECT_NE(PyThreadState_Get(), state); });
    }).join();
  });
}

TEST_F(shared, may_not_keep_what_is_not_its_own) {
  for_both([](strategy how) {
    const moored::lending lend;
    std::thread([how] {
      by_shared_state(how, [] {
        EXPECT_FALSE(moored::keep_thread());
        moored::release_thread();
      });
      EXPECT_TRUE(moored::keep_thread());
    }).join();
  });
}

TEST_F(shared, gets_a_recursion_error_instead_of_a_crash_on_its_own_stack) {
  for_both([](strategy how) {
    // repr of a deep list recurses in C, where only the guard of the C stack helps.
    run("deep = []\n"
        "for _ in range(200_000): deep = [deep]\n"
        "def overflow():\n"
        "    try: repr(deep)\n"
        "    except RecursionError: return 1\n"
        "    return 0\n");
    {
      const moored::lending lend;
      semaphore first_is_done, second_is_done;
      std::thread first([&] {
        by_shared_state(how, [] { EXPECT_EQ(value_of("overflow()"), 1); });
        first_is_done.release();
        second_is_done.acquire();  // stay alive, so that the second thread has another stack
      });
      first_is_done.acquire();
      std::thread([how] {
        by_shared_state(how, [] { EXPECT_EQ(value_of("overflow()"), 1); });
      }).join();
      second_is_done.release();
      first.join();
    }
    EXPECT_EQ(value_of("overflow()"), 1);
  });
}

TEST_F(shared, threads_take_turns) {
  for_both([](strategy how) {
    run("inside = most = calls = 0\n"
        "def call():\n"
        "    global inside, most, calls\n"
        "    inside += 1\n"
        "    most = max(most, inside)\n"
        "    for _ in range(1000): pass\n"
        "    calls += 1\n"
        "    inside -= 1\n");
    {
      const moored::lending lend;
      std::vector<std::thread> crowd;
      for (int i = 0; i < 4; ++i) {
        crowd.emplace_back([how] {
          for (int round = 0; round < 100; ++round) by_shared_state(how, [] { run("call()"); });
        });
      }
      for (std::thread& one : crowd) one.join();
    }
    EXPECT_EQ(value_of("calls"), 400);
    EXPECT_EQ(value_of("most"), 1);
  });
}

TEST_F(shared, on_a_thread_with_a_state_of_its_own_uses_that) {
  for_both([](strategy how) {
    const moored::lending lend;
    std::thread([how] {
      PyThreadState* kept = nullptr;
      by_shared_state(strategy::kept, [&] { kept = PyThreadState_Get(); });
      by_shared_state(how, [&] { EXPECT_EQ(PyThreadState_Get(), kept); });
    }).join();
  });
}

TEST_F(shared, state_is_one_for_all_its_users) {
  in_child([] {
    const python interpreter;
    run(visits_source);
    for (long visit = 1; visit <= 3; ++visit) {
      on_foreign_thread([visit] {
        by_shared_state(strategy::shared, [visit] { EXPECT_EQ(value_of("visit()"), visit); });
      });
    }
    EXPECT_EQ(moored::stats().states_made, 1U);
  });
}

TEST_F(borrowed, is_refused_while_nobody_lends) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      const moored::attachment attached = moored::try_attach(strategy::borrowed);
      EXPECT_EQ(attached.why(), moored::refusal::not_idle);
    });
    { const moored::lending lend; }
    on_foreign_thread([] { EXPECT_FALSE(moored::try_attach(strategy::borrowed)); });
  });
}

TEST_F(borrowed, shares_the_owners_thread_locals_and_the_owner_gets_its_state_back) {
  in_child([] {
    const python interpreter;
    run(visits_source);
    PyThreadState* const mine = PyThreadState_Get();
    EXPECT_EQ(value_of("visit()"), 1);
    {
      const moored::lending lend;
      std::thread([mine] {
        by_shared_state(strategy::borrowed, [mine] {
          EXPECT_EQ(PyThreadState_Get(), mine);
          EXPECT_EQ(value_of("visit()"), 2);
        });
      }).join();
    }
    EXPECT_EQ(PyThreadState_Get(), mine);
    EXPECT_EQ(PyGILState_GetThisThreadState(), mine);
    EXPECT_EQ(value_of("visit()"), 3);
    as_another_binding([mine] { EXPECT_EQ(PyThreadState_Get(), mine); });
  });
}

TEST_F(lending, refuses_its_own_threads_attach_and_waits_for_the_borrower) {
  in_child([] {
    const python interpreter;
    run("done = 0");
    semaphore is_inside;
    std::thread borrower;
    {
      const moored::lending lend;
      EXPECT_FALSE(moored::try_attach());
      EXPECT_FALSE(moored::keep_thread());
      borrower = std::thread([&] {
        by_shared_state(strategy::borrowed, [&] {
          is_inside.release();
          run("for _ in range(100_000): pass\ndone = 1");
        });
      });
      is_inside.acquire();
    }
    EXPECT_EQ(value_of("done"), 1);
    const moored::detachment detached;
    borrower.join();
  });
}
