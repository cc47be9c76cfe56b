// unit/detail/gate/closing.cpp: the gate at shutdown: refuse, wait, report; then fork, and a second
// life of the interpreter.
#include "child.hpp"

#include <fstream>
#include <vector>

using namespace moored_test;
using moored::refusal;
using moored::strategy;

namespace {

/// Attaches in a loop until it is refused; says why.
refusal hammer(moored::strategy how) {
  for (;;) {
    const moored::attachment attached = moored::try_attach(how);
    if (!attached && attached.why() != refusal::not_idle) return attached.why();
    if (attached) run("calls += 1");
  }
}

}  // namespace

TEST(closing, refuses_threads_that_attach_all_the_time) {
  for (const moored::strategy how : moored::strategies) {
    if (!is_supported(how)) continue;
    SCOPED_TRACE(moored::name(how));
    in_child([how] {
      Py_InitializeEx(0);
      run("calls = 0");
      EXPECT_TRUE(moored::open());
      std::atomic<int> refused{0};
      std::vector<std::thread> crowd;
      for (int i = 0; i < 4; ++i) {
        crowd.emplace_back([&refused, how] {
          const refusal why = hammer(how);
          EXPECT_TRUE(why == refusal::closing || why == refusal::no_interpreter);
          ++refused;
        });
      }
      {
        const moored::lending lend;
        while (moored::stats().attaches < 200) std::this_thread::yield();
      }
      EXPECT_EQ(Py_FinalizeEx(), 0);
      for (std::thread& one : crowd) one.join();
      EXPECT_EQ(refused, 4);
      EXPECT_EQ(moored::stats().overdue, 0U);
    });
  }
}

TEST(closing, waits_for_a_call_that_is_inside) {
  in_child([] {
    Py_InitializeEx(0);
    EXPECT_TRUE(moored::open());
    run("done = []\nimport atexit\nseen_at_exit = []\n");
    semaphore is_inside, may_leave;
    std::atomic<bool> left{false};
    std::thread caller([&] {
      const moored::attachment attached = moored::attach();
      {
        const moored::detachment detached;
        is_inside.release();
        may_leave.acquire();
      }
      run("done.append(1)");  // Python still works
      left = true;
    });
    {
      const moored::detachment detached;
      is_inside.acquire();
    }
    // Lets the call go on only when shutdown has begun to refuse.
    std::thread usher([&] {
      while (moored::try_attach(moored::strategy::temporary)) std::this_thread::yield();
      may_leave.release();
    });
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_TRUE(left);
    caller.join();
    usher.join();
    EXPECT_EQ(moored::stats().overdue, 0U);
  });
}

TEST(closing, reports_nobody_who_is_refused) {
  for (int round = 0; round < 10; ++round) {
    in_child([] {
      Py_InitializeEx(0);
      EXPECT_TRUE(moored::open());
      using moored::detail::the_gate;
      std::atomic<bool> goes{false}, over{false};
      std::thread thread([&, epoch = the_gate.now()] {
        while (!over) {
          if (auto* const here = the_gate.enter(epoch)) the_gate.leave_unused(*here);
          goes = true;
        }
      });
      while (!goes) std::this_thread::yield();
      EXPECT_EQ(Py_FinalizeEx(), 0);
      over = true;
      thread.join();
      EXPECT_EQ(moored::stats().overdue, 0U);
    });
  }
}

TEST(closing, goes_on_after_the_bound_and_reports_the_call) {
  in_child([] {
    Py_InitializeEx(0);
    EXPECT_TRUE(moored::open());
    moored::set_closing_bound(std::chrono::milliseconds(50));
    semaphore is_inside;
    std::thread([&] {
      const moored::attachment attached = moored::attach();
      const moored::detachment detached;
      is_inside.release();
      for (;;) pause();  // for ever inside
    }).detach();
    {
      const moored::detachment detached;
      is_inside.acquire();
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(moored::stats().overdue, 1U);
  });
}

TEST(closing, makes_no_state_for_a_thread_that_it_has_given_up_on) {
  for (const moored::strategy how : {strategy::temporary, strategy::shared, strategy::kept}) {
    if (!is_supported(how)) continue;
    SCOPED_TRACE(moored::name(how));
    in_child([how] {
      Py_InitializeEx(0);
      EXPECT_TRUE(moored::open());
      moored::set_closing_bound(std::chrono::milliseconds(0));
      semaphore is_inside, is_over;
      std::thread late([&] {
        using moored::detail::the_gate;
        moored::detail::this_thread.enter(*the_gate.enter(the_gate.now()));  // on its way in
        is_inside.release();
        is_over.acquire();
        EXPECT_EQ(moored::try_attach(how).why(), refusal::closing);
        moored::detail::leave_gate_unused(moored::detail::this_thread);
      });
      is_inside.acquire();
      EXPECT_EQ(Py_FinalizeEx(), 0);
      is_over.release();
      late.join();
      EXPECT_EQ(moored::stats().overdue, 1U);
      EXPECT_EQ(moored::stats().states_made, 0U);
    });
  }
}

TEST(closing, stops_late_threads_before_it_frees_what_they_read) {
  if (PY_VERSION_HEX >= 0x030B0000) GTEST_SKIP() << "CPython frees the interpreter up to 3.10";
  in_child([] {
    Py_InitializeEx(0);
    run("import sys\nsys.setswitchinterval(0.2)\n");  // for so long a waiting thread does not look
    static std::atomic<pid_t> late{0};
    static std::atomic<bool> comes_back{false};
    // Registered before the gate opens, so it runs after the gate has given up. Holds the GIL until
    // the late thread sleeps, which it does nowhere but in the wait for the GIL.
    static const auto lure = +[] {
      comes_back = true;
      const std::string path = "/proc/self/task/" + std::to_string(late) + "/stat";
      std::string stat;
      do {
        std::getline(std::ifstream(path), stat);
      } while (stat.find(") S ") == std::string::npos);
    };
    const std::string source = "import atexit, ctypes\nlure = ctypes.PYFUNCTYPE(None)(" +
                               std::to_string(reinterpret_cast<std::uintptr_t>(lure)) +
                               ")\natexit.register(lure)\n";
    run(source.c_str());
    EXPECT_TRUE(moored::open());
    moored::set_closing_bound(std::chrono::milliseconds(0));
    std::thread([] {
      const moored::attachment attached = moored::attach();
      const moored::detachment detached;
      late = gettid();
      while (!comes_back) {
      }
    }).detach();
    {
      const moored::detachment detached;
      while (late == 0) std::this_thread::yield();
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(moored::stats().overdue, 1U);
    EXPECT_EQ(moored::cpython::stopped_threads, 1U);
  });
}

TEST(closing, a_thread_that_ends_later_does_not_touch_its_kept_state) {
  in_child([] {
    Py_InitializeEx(0);
    semaphore is_kept, may_end;
    std::thread keeper([&] {
      EXPECT_TRUE(moored::keep_thread());
      is_kept.release();
      may_end.acquire();
      EXPECT_FALSE(moored::try_attach());
      moored::release_thread();
    });
    {
      const moored::detachment detached;
      is_kept.acquire();
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
    may_end.release();
    keeper.join();
    EXPECT_EQ(moored::stats().states_forgotten, 1U);
    EXPECT_EQ(moored::stats().states_kept, 0U);
  });
}

TEST(closing, refuses_from_the_atexit_moment_on_while_python_still_runs) {
  in_child([] {
    Py_InitializeEx(0);
    static std::atomic<bool> refused{false};
    // Registered before the gate opens, so it runs after the gate has closed.
    static const auto probe = +[] {
      EXPECT_TRUE(moored::open());  // does nothing: it is too late to open it again
      EXPECT_FALSE(moored::keep_thread());
      std::thread([] { refused = moored::try_attach().why() == refusal::closing; }).join();
    };
    const std::string source = "import atexit, ctypes\nprobe = ctypes.PYFUNCTYPE(None)(" +
                               std::to_string(reinterpret_cast<std::uintptr_t>(probe)) +
                               ")\natexit.register(probe)\n";
    run(source.c_str());
    EXPECT_TRUE(moored::open());
    on_foreign_thread([] { EXPECT_TRUE(moored::try_attach()); });
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_TRUE(refused);
    std::thread([] { EXPECT_EQ(moored::try_attach().why(), refusal::no_interpreter); }).join();
  });
}

TEST(closing, the_main_thread_stays_attached_to_the_end) {
  in_child([] {
    Py_InitializeEx(0);
    static std::atomic<bool> attached{false};
    static const auto probe = +[] { attached = static_cast<bool>(moored::try_attach()); };
    const std::string source = "import atexit, ctypes\nprobe = ctypes.PYFUNCTYPE(None)(" +
                               std::to_string(reinterpret_cast<std::uintptr_t>(probe)) +
                               ")\natexit.register(probe)\n";
    run(source.c_str());
    EXPECT_TRUE(moored::open());
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_TRUE(attached);
  });
}

TEST(second_life, of_the_interpreter_is_entered_by_new_threads) {
  in_child([] {
    for (int life = 0; life < 3; ++life) {
      const python interpreter;
      run("calls = 0");
      on_foreign_thread([] {
        const moored::attachment attached = moored::attach();
        run("calls += 1");
      });
      EXPECT_EQ(value_of("calls"), 1);
    }
    EXPECT_EQ(moored::stats().states_made, 3U);
    EXPECT_EQ(moored::stats().states_freed, 3U);
  });
}

TEST(second_life, is_entered_or_refused_by_a_thread_of_the_first) {
  in_child([] {
    semaphore go, went;
    refusal why = refusal::no_memory;
    std::thread survivor;
    {
      const python interpreter;
      survivor = std::thread([&] {
        EXPECT_TRUE(moored::keep_thread());
        went.release();
        go.acquire();
        const moored::attachment attached = moored::try_attach();
        why = attached.why();
        if (attached) run("calls = 1");
        went.release();
      });
      const moored::detachment detached;
      went.acquire();
    }
    const python interpreter;
    {
      const moored::detachment detached;
      go.release();
      went.acquire();
      survivor.join();
    }
    if (moored::cpython::old_state_haunts_next_epoch) {
      EXPECT_EQ(why, refusal::stale_thread);
    } else {
      EXPECT_EQ(why, refusal::none);
      EXPECT_EQ(value_of("calls"), 1);
    }
    EXPECT_EQ(moored::stats().states_forgotten, 1U);
  });
}

TEST(second_life, has_a_side_state_of_its_own) {
  if (!has_gil) GTEST_SKIP() << needs_a_gil;
  in_child([] {
    for (int life = 0; life < 2; ++life) {
      const python interpreter;
      run("calls = 0");
      on_foreign_thread([] {
        const moored::attachment attached = moored::attach(moored::strategy::shared);
        run("calls += 1");
      });
      EXPECT_EQ(value_of("calls"), 1);
    }
    EXPECT_EQ(moored::stats().states_forgotten, 2U);
  });
}

TEST(fork, in_a_foreign_thread_gives_the_child_its_state_and_nothing_to_free) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer cannot follow new threads in the child of a threaded fork";
#endif
  in_child([] {
    const python interpreter;
    run("import os, sys");
    on_foreign_thread([] {
      const moored::attachment attached = moored::attach();
      PyOS_BeforeFork();
      const std::string fate = fate_of([] {
        PyOS_AfterFork_Child();
        EXPECT_EQ(moored::stats().states_forgotten, 1U);
        EXPECT_EQ(moored::stats().states_kept, 0U);
        {
          const moored::detachment detached;
          {
            const moored::attachment again = moored::attach();
            run("calls = 1");
          }
          std::thread([] { const moored::attachment other = moored::attach(); }).join();
        }
        EXPECT_EQ(value_of("calls"), 1);
        // No Py_FinalizeEx: from 3.13 on CPython itself crashes in it on a thread that is not the
        // first.
      });
      PyOS_AfterFork_Parent();
      EXPECT_EQ(fate, "exit 0");
    });
  });
}

TEST(fork, while_others_are_inside_leaves_them_behind) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer cannot follow new threads in the child of a threaded fork";
#endif
  in_child([] {
    const python interpreter;
    EXPECT_TRUE(moored::open());
    semaphore is_inside, may_leave;
    std::thread other([&] {
      const moored::attachment attached = moored::attach();
      const moored::detachment detached;
      is_inside.release();
      may_leave.acquire();
    });
    {
      const moored::detachment detached;
      is_inside.acquire();
    }
    PyOS_BeforeFork();
    const std::string fate = fate_of([] {
      PyOS_AfterFork_Child();
      on_foreign_thread([] { EXPECT_TRUE(moored::try_attach()); });
      on_foreign_thread(
          [] { EXPECT_EQ(bool(moored::try_attach(moored::strategy::shared)), has_gil); });
      EXPECT_EQ(Py_FinalizeEx(), 0);
      EXPECT_EQ(moored::stats().overdue, 0U);  // the other thread is not waited for: it is not here
    });
    PyOS_AfterFork_Parent();
    EXPECT_EQ(fate, "exit 0");
    const moored::detachment detached;
    may_leave.release();
    other.join();
  });
}
