// unit/attach.cpp: attaching, nesting across bindings, and letting go.
#include "child.hpp"

using namespace moored_test;

TEST(attach, is_refused_without_an_interpreter) {
  in_child([] {
    const moored::attachment attached = moored::try_attach();
    EXPECT_FALSE(attached);
    EXPECT_EQ(attached.why(), moored::refusal::no_interpreter);
    try {
      (void)moored::attach();
      ADD_FAILURE() << "attach() did not throw";
    } catch (const moored::interpreter_closed& error) {
      EXPECT_EQ(error.why(), moored::refusal::no_interpreter);
    }
    EXPECT_EQ(moored::stats().refusals, 2U);
  });
}

TEST(attach, runs_python_on_a_foreign_thread_and_lets_go_of_the_gil) {
  in_child([] {
    const python interpreter;
    run("seen = []");
    on_foreign_thread([] {
      {
        const moored::attachment attached = moored::attach();
        run("import threading; seen.append(threading.get_ident())");
      }
      EXPECT_FALSE(moored::detail::is_attached());
    });
    EXPECT_EQ(value_of("len(seen)"), 1);
  });
}

TEST(attach, finds_the_word_of_the_current_state) {
  using moored::cpython::current_word;
  using moored::cpython::the_current_word;
  in_child([] {
    const python interpreter;
    EXPECT_FALSE(the_current_word.is_found());
    EXPECT_EQ(the_current_word.read(), current_word::ask());
    on_foreign_thread([] {
      const moored::attachment attached = moored::attach();
#if defined(__x86_64__) && defined(__GLIBC__)
      EXPECT_TRUE(the_current_word.is_found());
#endif
      EXPECT_EQ(the_current_word.read(), current_word::ask());
      const moored::detachment detached;
      EXPECT_EQ(moored::detail::attached_state(moored::detail::this_thread), nullptr);
    });
    on_foreign_thread([] {  // which did not look for it
      EXPECT_EQ(the_current_word.read(), nullptr);
      const moored::attachment attached = moored::attach();
      EXPECT_NE(the_current_word.read(), nullptr);
      EXPECT_EQ(the_current_word.read(), current_word::ask());
    });
    EXPECT_NE(the_current_word.read(), nullptr);
    EXPECT_EQ(the_current_word.read(), current_word::ask());
  });
}

TEST(attach, of_every_strategy_runs_python) {
  in_child([] {
    const python interpreter;
    run("calls = 0");
    const moored::lending lend;
    std::thread([] {
      long expected = 0;
      for (const moored::strategy how : moored::strategies) {
        if (!is_supported(how)) continue;
        const moored::attachment attached = moored::attach(how);
        run("calls += 1");
        ++expected;
        moored::release_thread();
      }
      const moored::attachment attached = moored::attach();
      EXPECT_EQ(value_of("calls"), expected);
    }).join();
  });
}

TEST(attach, reports_an_exception_that_is_left_set_at_its_end) {
  in_child([] {
    const python interpreter;
    run("import sys\nseen = []\nsys.unraisablehook = lambda it: seen.append(it.exc_type)\n");
    std::uint64_t ended = 0;
    on_foreign_thread([&ended] {
      for (const moored::strategy how :
           {moored::strategy::kept, moored::strategy::temporary, moored::strategy::shared}) {
        if (!is_supported(how)) continue;
        {
          const moored::attachment outer = moored::attach(how);
          {
            const moored::attachment inner = moored::attach(how);
            PyErr_SetNone(PyExc_ValueError);
          }
          EXPECT_NE(PyErr_Occurred(), nullptr) << "it is the outer attachment's";
        }
        const moored::attachment next = moored::attach(how);
        EXPECT_EQ(PyErr_Occurred(), nullptr);
        EXPECT_EQ(value_of("seen == [ValueError] * len(seen) and len(seen)"), ++ended);
        moored::release_thread();
      }
    });
  });
}

TEST(attach, nested_does_nothing) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      const moored::attachment outer = moored::attach();
      PyThreadState* const state = PyThreadState_Get();
      {
        const moored::attachment inner = moored::attach();
        EXPECT_EQ(PyThreadState_Get(), state);
      }
      EXPECT_EQ(PyThreadState_Get(), state);
      EXPECT_EQ(moored::stats().attaches, 1U);
    });
  });
}

TEST(attach, on_the_main_thread_is_nested) {
  in_child([] {
    const python interpreter;
    PyThreadState* const state = PyThreadState_Get();
    { const moored::attachment attached = moored::attach(); }
    EXPECT_EQ(PyThreadState_Get(), state);
  });
}

TEST(attach, on_a_detached_main_thread_uses_its_own_state) {
  in_child([] {
    const python interpreter;
    PyThreadState* const state = PyThreadState_Get();
    {
      const moored::detachment detached;
      for (const moored::strategy how : {moored::strategy::kept, moored::strategy::shared}) {
        const moored::attachment attached = moored::attach(how);
        EXPECT_EQ(PyThreadState_Get(), state);
      }
    }
    EXPECT_EQ(moored::stats().states_kept, 0U);
  });
}

TEST(attach, shares_its_state_with_other_bindings) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      PyThreadState* kept = nullptr;
      {
        const moored::attachment attached = moored::attach();
        kept = PyThreadState_Get();
        as_another_binding([&] { EXPECT_EQ(PyThreadState_Get(), kept); });
      }
      as_another_binding([&] {
        EXPECT_EQ(PyThreadState_Get(), kept);
        const moored::attachment nested = moored::attach();
        EXPECT_EQ(PyThreadState_Get(), kept);
      });
      const moored::attachment again = moored::attach();
      EXPECT_EQ(PyThreadState_Get(), kept);
    });
  });
}

TEST(attach, inside_another_bindings_temporary_state_uses_it) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      as_another_binding([] {
        PyThreadState* const temporary = PyThreadState_Get();
        { const moored::attachment attached = moored::attach(); }
        EXPECT_EQ(PyThreadState_Get(), temporary);
        const moored::detachment detached;
        const moored::attachment attached = moored::attach();
        EXPECT_EQ(PyThreadState_Get(), temporary);
      });
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      EXPECT_EQ(moored::stats().states_kept, 0U);
    });
  });
}

TEST(attach, kept_keeps_thread_locals_and_temporary_loses_them) {
  in_child([] {
    const python interpreter;
    run(visits_source);
    on_foreign_thread([] {
      for (long call = 1; call <= 3; ++call) {
        const moored::attachment attached = moored::attach(moored::strategy::temporary);
        EXPECT_EQ(value_of("visit()"), 1);
      }
      for (long call = 1; call <= 3; ++call) {
        const moored::attachment attached = moored::attach();
        EXPECT_EQ(value_of("visit()"), call);
      }
    });
  });
}

TEST(attachment, moves_and_ends_once) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      moored::attachment first = moored::attach();
      moored::attachment second = std::move(first);
      EXPECT_FALSE(first);
      EXPECT_TRUE(second);
      first.end();
      EXPECT_TRUE(moored::detail::is_attached());
      second.end();
      EXPECT_FALSE(second);
      EXPECT_FALSE(moored::detail::is_attached());
      second.end();
      second = moored::attach();
      EXPECT_TRUE(second);
    });
  });
}

TEST(detachment, lets_another_thread_run_and_nests_an_attachment) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      const moored::attachment outer = moored::attach();
      PyThreadState* const state = PyThreadState_Get();
      {
        const moored::detachment detached;
        std::thread([] { const moored::attachment other = moored::attach(); }).join();
        {
          const moored::attachment inner = moored::attach();
          EXPECT_EQ(PyThreadState_Get(), state);
        }
        const moored::detachment again;  // nothing to let go of
        EXPECT_FALSE(moored::detail::is_attached());
      }
      EXPECT_EQ(PyThreadState_Get(), state);
    });
  });
}

TEST(attach, from_many_threads_at_once_loses_no_call) {
  in_child([] {
    const python interpreter;
    run(counting_source);
    constexpr int threads = 8;
    constexpr int rounds = 500;
    on_foreign_thread([] {
      std::vector<std::thread> crowd;
      for (int i = 0; i < threads; ++i) {
        crowd.emplace_back([] {
          for (int round = 0; round < rounds; ++round) {
            const moored::attachment attached = moored::attach();
            run("call()");
          }
        });
      }
      for (std::thread& one : crowd) one.join();
    });
    EXPECT_EQ(value_of("calls"), threads * rounds);
    EXPECT_EQ(moored::stats().attaches, static_cast<std::uint64_t>(threads * rounds));
    EXPECT_EQ(moored::stats().states_made, static_cast<std::uint64_t>(threads));
    EXPECT_EQ(moored::stats().states_freed, static_cast<std::uint64_t>(threads));
  });
}

TEST(strategy, has_a_name_that_finds_it) {
  for (const moored::strategy how : moored::strategies) {
    EXPECT_EQ(moored::strategy_named(moored::name(how)), how);
  }
  EXPECT_EQ(moored::strategy_named("no such"), std::nullopt);
}

TEST(attach, into_a_live_attachment_leaves_the_thread_attached) {
  in_child([] {
    const python interpreter;
    moored::open();
    on_foreign_thread([] {
      moored::attachment attached;
      for (int round = 0; round < 3; ++round) {
        attached = moored::try_attach();
        ASSERT_TRUE(attached);
        ASSERT_TRUE(moored::detail::is_attached());
        run("x = [1] * 3");
      }
      attached.end();
      EXPECT_FALSE(moored::detail::is_attached());
      attached = moored::try_attach();
      attached = moored::attachment();
      EXPECT_FALSE(moored::detail::is_attached());
    });
  });
}
