// unit/detail/states/adopted.cpp: states that another binding made and moored keeps, and the reaper
// that frees them.
#include "memory.hpp"

#include <pthread.h>

#include <vector>

using namespace moored_test;

namespace {

/// Enters Python as another binding does, and adopts.
void enter_and_adopt() {
  as_another_binding([] { EXPECT_TRUE(moored::keep_thread()); });
}

}  // namespace

TEST(adopt, a_thread_joined_with_the_gil_held_does_not_hang) {
  in_child([] {
    const python interpreter;
    semaphore called;
    semaphore may_end;
    std::thread thread([&] {
      enter_and_adopt();
      called.release();
      may_end.acquire();
    });
    {
      const moored::detachment detached;
      called.acquire();
    }
    may_end.release();
    thread.join();  // the GIL is held
    until_nothing_is_kept();
    EXPECT_EQ(states(), 1);
    EXPECT_EQ(moored::stats().states_freed, 1U);
  });
}

TEST(adopt, threads_that_enter_once_leave_no_state_and_no_memory) {
  in_child([] {
    const counted_python interpreter;
    run(visits_source);
    memory_of_rounds memory;
    constexpr unsigned rounds = 5, threads = 1000;
    for (unsigned round = 0; round < rounds; ++round) {
      on_foreign_thread([] {
        for (unsigned i = 0; i < threads; ++i) {
          std::thread([] {
            as_another_binding([] {
              EXPECT_TRUE(moored::keep_thread());
              EXPECT_EQ(value_of("visit()"), 1);
            });
          }).join();
        }
      });
      until_nothing_is_kept();
      memory.note_round();
    }
    EXPECT_EQ(states(), 1);
    EXPECT_EQ(moored::stats().states_adopted, rounds * threads);
    EXPECT_EQ(moored::stats().states_freed, rounds * threads);
    memory.expect_no_leak_of(threads);
  });
}

TEST(adopt, threads_that_live_together_are_all_freed) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      std::vector<std::thread> crowd;
      for (int i = 0; i < 64; ++i) crowd.emplace_back(enter_and_adopt);
      for (std::thread& one : crowd) one.join();
    });
    until_nothing_is_kept();
    EXPECT_EQ(states(), 1);
    EXPECT_EQ(moored::stats().states_freed, 64U);
  });
}

TEST(adopt, a_finaliser_may_enter_python_by_another_binding) {
  in_child([] {
    const python interpreter;
    static std::atomic<int> finalised{0};
    run(farewell_source([] { as_another_binding([] { ++finalised; }); }).c_str());
    on_foreign_thread([] {
      std::vector<std::thread> crowd;
      for (int i = 0; i < 8; ++i) {
        crowd.emplace_back([] {
          as_another_binding([] {
            EXPECT_TRUE(moored::keep_thread());
            run("here.farewell = Farewell()");
          });
        });
      }
      for (std::thread& one : crowd) one.join();
    });
    until_nothing_is_kept();
    EXPECT_EQ(finalised, 8);
    EXPECT_EQ(states(), 1);
  });
}

TEST(adopt, a_pthread_key_destructor_may_enter_python_afterwards) {
  in_child([] {
    static std::atomic<int> entered{0};
    static pthread_key_t key;
    pthread_key_create(&key, [](void*) { as_another_binding([] { ++entered; }); });
    const python interpreter;
    on_foreign_thread([] {
      pthread_setspecific(key, &entered);
      enter_and_adopt();
    });
    until_nothing_is_kept();
    EXPECT_EQ(entered, 1);
    EXPECT_EQ(states(), 1);
  });
}

TEST(adopt, a_state_that_somebody_else_cleared_is_not_touched) {
  if (!has_gil) GTEST_SKIP() << "without a GIL PyDict_Clear leaves to a thread what it has made";
  in_child([] {
    const python interpreter;
    PyObject* locals_of_adopted = nullptr;
    semaphore called;
    semaphore may_end;
    std::thread thread([&] {
      as_another_binding([&] {
        EXPECT_TRUE(moored::keep_thread());
        locals_of_adopted = PyThreadState_GetDict();
      });
      called.release();
      may_end.acquire();
    });
    {
      const moored::detachment detached;
      called.acquire();
    }
    // As PyThreadState_Clear does; but that must happen once, and the interpreter does it at its
    // end.
    PyDict_Clear(locals_of_adopted);
    may_end.release();
    thread.join();
    until_nothing_is_kept();
    EXPECT_EQ(moored::stats().states_freed, 0U);
    EXPECT_EQ(moored::stats().states_forgotten, 1U);
  });
}

TEST(adopt, shutdown_frees_the_states_of_threads_that_have_ended) {
  in_child([] {
    for (int round = 0; round < 20; ++round) {
      const python interpreter;
      std::vector<std::thread> crowd;
      const moored::detachment detached;
      for (int i = 0; i < 8; ++i) crowd.emplace_back(enter_and_adopt);
      for (std::thread& one : crowd) one.join();
    }
    EXPECT_EQ(moored::stats().states_adopted, 160U);
    EXPECT_EQ(moored::stats().states_freed, 160U);
    EXPECT_EQ(moored::stats().overdue, 0U);
  });
}

TEST(adopt, threads_that_outlive_the_interpreter_forget_their_states) {
  in_child([] {
    semaphore called;
    semaphore may_end;
    std::vector<std::thread> threads;
    {
      const python interpreter;
      for (const bool tries_again : {true, false}) {
        threads.emplace_back([&, tries_again] {
          enter_and_adopt();
          called.release();
          may_end.acquire();
          if (tries_again) {
            EXPECT_FALSE(moored::try_attach());
          }
        });
      }
      const moored::detachment detached;
      for (std::size_t i = 0; i < threads.size(); ++i) called.acquire();
    }
    may_end.release(2);
    for (std::thread& one : threads) one.join();
    EXPECT_EQ(moored::stats().states_forgotten, 2U);
    EXPECT_EQ(moored::stats().states_kept, 0U);
  });
}

TEST(adopt, a_thread_adopts_again_in_the_interpreters_next_life) {
  if (moored::cpython::old_state_haunts_next_epoch)
    GTEST_SKIP()
        << "from 3.15 on PyGILState_Ensure hangs on a thread with a state of an earlier life";
  in_child([] {
    semaphore may_enter;
    semaphore entered;
    std::thread thread([&] {
      for (int life = 0; life < 2; ++life) {
        may_enter.acquire();
        enter_and_adopt();
        entered.release();
      }
    });
    {
      const python interpreter;
      const moored::detachment detached;
      may_enter.release();
      entered.acquire();
    }
    {
      const python interpreter;
      on_foreign_thread([&] {
        may_enter.release();
        thread.join();
      });
      until_nothing_is_kept();
      EXPECT_EQ(states(), 1);
    }
    EXPECT_EQ(moored::stats().states_adopted, 2U);
    EXPECT_EQ(moored::stats().states_forgotten, 1U);
    EXPECT_EQ(moored::stats().states_freed, 1U);
  });
}

TEST(adopt, and_release_gives_the_state_back) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      enter_and_adopt();
      EXPECT_NE(moored::cpython::this_thread_state(), nullptr);
      moored::release_thread();
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      as_another_binding([] {
        EXPECT_TRUE(moored::keep_thread());
        moored::release_thread();
      });
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      enter_and_adopt();
    });
    until_nothing_is_kept();
    EXPECT_EQ(moored::stats().states_adopted, 3U);
    EXPECT_EQ(moored::stats().states_freed, 3U);
    EXPECT_EQ(states(), 1);
  });
}

TEST(adopt, a_forked_child_goes_on_with_its_own_reaper) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer cannot follow new threads in the child of a threaded fork";
#endif
  in_child([] {
    const python interpreter;
    on_foreign_thread(enter_and_adopt);
    until_nothing_is_kept();
    PyOS_BeforeFork();
    const pid_t child = fork();
    if (child == 0) {
      PyOS_AfterFork_Child();
      on_foreign_thread(enter_and_adopt);
      until_nothing_is_kept();
      _exit(states() == 1 && moored::stats().states_freed == 2U ? 0 : 1);
    }
    PyOS_AfterFork_Parent();
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  });
}

TEST(adopt, a_subinterpreters_state_is_refused) {
  in_child([] {
    const python interpreter;
    PyThreadState* const mine = PyThreadState_Get();
    PyThreadState* const sub = Py_NewInterpreter();
    EXPECT_FALSE(moored::detail::adopt_attached_state());
    Py_EndInterpreter(sub);
    PyThreadState_Swap(mine);
    EXPECT_EQ(moored::stats().states_adopted, 0U);
  });
}
