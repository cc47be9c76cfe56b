// unit/detail/states/kept.cpp: which thread keeps a state, for how long, and that nothing is left
// of it.
#include "memory.hpp"

#include <vector>

using namespace moored_test;

TEST(keep, a_thousand_threads_that_attach_once_leave_no_state_and_no_memory) {
  in_child([] {
    const counted_python interpreter;
    run("def call(): pass");
    const int before = states();
    memory_of_rounds memory;
    constexpr unsigned rounds = 5, threads = 1000;
    for (unsigned round = 0; round < rounds; ++round) {
      on_foreign_thread([] {
        for (unsigned i = 0; i < threads; ++i) {
          std::thread([] {
            const moored::attachment attached = moored::attach();
            run("call()");
          }).join();
        }
      });
      memory.note_round();
    }
    EXPECT_EQ(states(), before);
    EXPECT_EQ(moored::stats().states_made, rounds * threads);
    EXPECT_EQ(moored::stats().states_freed, rounds * threads);
    EXPECT_EQ(moored::stats().states_kept, 0U);
    memory.expect_no_leak_of(threads);
  });
}

TEST(keep, threads_that_live_together_free_their_own_states) {
  in_child([] {
    const python interpreter;
    const int before = states();
    on_foreign_thread([] {
      std::vector<std::thread> crowd;
      for (int i = 0; i < 64; ++i) {
        crowd.emplace_back([] { const moored::attachment attached = moored::attach(); });
      }
      for (std::thread& one : crowd) one.join();
    });
    EXPECT_EQ(states(), before);
    EXPECT_EQ(moored::stats().states_freed, 64U);
  });
}

TEST(keep, thread_makes_other_bindings_find_the_same_state) {
  in_child([] {
    const python interpreter;
    run(visits_source);
    on_foreign_thread([] {
      EXPECT_TRUE(moored::keep_thread());
      EXPECT_FALSE(moored::detail::is_attached());
      EXPECT_TRUE(moored::keep_thread());
      for (long call = 1; call <= 3; ++call) {
        as_another_binding([&] { EXPECT_EQ(value_of("visit()"), call); });
      }
    });
    EXPECT_EQ(states(), 1);
  });
}

TEST(keep, thread_inside_another_bindings_callback_keeps_that_state) {
  in_child([] {
    const python interpreter;
    run(visits_source);
    on_foreign_thread([] {
      as_another_binding([] {
        EXPECT_TRUE(moored::keep_thread());
        EXPECT_EQ(value_of("visit()"), 1);
      });
      for (long call = 2; call <= 3; ++call) {
        as_another_binding([&] { EXPECT_EQ(value_of("visit()"), call); });
        const moored::attachment attached = moored::attach();
        EXPECT_EQ(value_of("here.visits"), call);
      }
      EXPECT_EQ(moored::stats().states_kept, 1U);
    });
    until_nothing_is_kept();
    EXPECT_EQ(states(), 1);
  });
}

TEST(keep, thread_on_a_thread_that_python_made_leaves_it_to_python) {
  in_child([] {
    const python interpreter;
    // A function that ctypes can call on a Python thread, with the GIL held.
    static const auto keep = +[] { EXPECT_TRUE(moored::keep_thread()); };
    const std::string source =
        "import ctypes, threading\n"
        "keep = ctypes.PYFUNCTYPE(None)(" +
        std::to_string(reinterpret_cast<std::uintptr_t>(keep)) +
        ")\n"
        "thread = threading.Thread(target=keep)\n"
        "thread.start()\n"
        "thread.join()\n";
    run(source.c_str());
    until_nothing_is_kept();
    EXPECT_EQ(moored::stats().states_forgotten, 1U);
    EXPECT_EQ(states(), 1);
  });
}

TEST(release, thread_lets_the_state_go_at_once) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      moored::release_thread();  // nothing is kept
      { const moored::attachment attached = moored::attach(); }
      EXPECT_NE(moored::cpython::this_thread_state(), nullptr);
      moored::release_thread();
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      EXPECT_EQ(moored::stats().states_freed, 1U);
      { const moored::attachment attached = moored::attach(); }
      EXPECT_EQ(moored::stats().states_made, 2U);
    });
    EXPECT_EQ(moored::stats().states_freed, 2U);
  });
}

TEST(release, thread_inside_an_attachment_waits_for_its_end) {
  in_child([] {
    const python interpreter;
    run(visits_source);
    on_foreign_thread([] {
      {
        const moored::attachment outer = moored::attach();
        {
          const moored::detachment detached;
          const moored::attachment inner = moored::attach();
          moored::release_thread();
        }
        EXPECT_EQ(value_of("visit()"), 1);
      }
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      EXPECT_EQ(moored::stats().states_kept, 0U);
      const moored::attachment attached = moored::attach();
      EXPECT_EQ(value_of("visit()"), 1);
      moored::release_thread();
      EXPECT_TRUE(moored::keep_thread());  // changes its mind
    });
    EXPECT_EQ(moored::stats().states_made, moored::stats().states_freed);
    EXPECT_EQ(states(), 1);
  });
}

TEST(release, thread_inside_another_bindings_callback_leaves_the_state_to_it) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      EXPECT_TRUE(moored::keep_thread());
      as_another_binding([] { moored::release_thread(); });
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      as_another_binding([] {
        EXPECT_TRUE(moored::keep_thread());
        moored::release_thread();
      });
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
    });
    EXPECT_EQ(moored::stats().states_kept, 0U);
  });
}

TEST(retirement, a_thread_local_that_is_destroyed_later_may_still_attach) {
  in_child([] {
    static std::atomic<bool> attached_late{false};
    struct late {
      ~late() { attached_late = static_cast<bool>(moored::try_attach()); }
    };
    const python interpreter;
    on_foreign_thread([] {
      static thread_local const late farewell;  // constructed first, so destroyed last
      (void)&farewell;
      const moored::attachment attached = moored::attach();
    });
    EXPECT_TRUE(attached_late);
    EXPECT_EQ(states(), 1);
    EXPECT_EQ(moored::stats().states_made, 2U);
    EXPECT_EQ(moored::stats().states_freed, 2U);
  });
}

TEST(retirement, a_finaliser_that_enters_python_again_finds_the_state_alive) {
  in_child([] {
    const python interpreter;
    static std::atomic<int> finalised{0};
    run(farewell_source([] { as_another_binding([] { ++finalised; }); }).c_str());
    on_foreign_thread([] {
      const moored::attachment attached = moored::attach();
      run("here.farewell = Farewell()");
    });
    EXPECT_EQ(finalised, 1);
    EXPECT_EQ(states(), 1);
  });
}

TEST(keep, a_finaliser_of_a_temporary_states_local_may_enter_python) {
  in_child([] {
    const python interpreter;
    static std::atomic<int> finalised{0};
    run(farewell_source([] { as_another_binding([] { ++finalised; }); }).c_str());
    on_foreign_thread([] {
      const moored::attachment attached = moored::attach(moored::strategy::temporary);
      run("here.farewell = Farewell()");
    });
    EXPECT_EQ(finalised, 1);
    EXPECT_EQ(states(), 1);
  });
}
