// unit/interpreter.cpp: foreign threads in subinterpreters: which one they enter, what they keep
// there, and its end.
#include "child.hpp"

#include <atomic>
#include <optional>

namespace {

using moored::interpreter;
using moored_test::in_child;
using moored_test::latch;
using moored_test::on_foreign_thread;
using moored_test::python;
using moored_test::semaphore;
using moored_test::value_of;

/// A subinterpreter for a scope; the thread that makes it is attached to the one before again.
class subinterpreter {
 public:
  explicit subinterpreter(bool own_gil = false) : outer_(PyThreadState_Get()) {
    if (own_gil) {
#if PY_VERSION_HEX >= 0x030C0000
      PyInterpreterConfig config{};
      config.check_multi_interp_extensions = 1;
      config.allow_threads = 1;
      config.gil = PyInterpreterConfig_OWN_GIL;
      EXPECT_FALSE(PyStatus_Exception(Py_NewInterpreterFromConfig(&state_, &config)));
#endif
    } else {
      state_ = Py_NewInterpreter();
    }
    found_.emplace(interpreter::current());
    PyRun_SimpleString("visits = 0");
    PyThreadState_Swap(outer_);
  }
  ~subinterpreter() {
    if (state_ != nullptr) end();
  }
  subinterpreter(const subinterpreter&) = delete;
  subinterpreter& operator=(const subinterpreter&) = delete;

  void end() {
    PyThreadState_Swap(state_);
    Py_EndInterpreter(state_);
    PyThreadState_Swap(outer_);
    state_ = nullptr;
  }
  [[nodiscard]] const interpreter& it() const {
    return *found_;
  }
  [[nodiscard]] long ask(const char* expression) {
    PyThreadState_Swap(state_);
    const long value = value_of(expression);
    PyThreadState_Swap(outer_);
    return value;
  }

 private:
  PyThreadState* outer_;
  PyThreadState* state_ = nullptr;
  std::optional<interpreter> found_;
};

std::vector<bool> kinds() {
  return PY_VERSION_HEX >= 0x030C0000 ? std::vector{false, true} : std::vector{false};
}

class subinterpreters : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(with, subinterpreters, testing::ValuesIn(kinds()),
                         [](const auto& own_gil) {
                           return own_gil.param ? "own_gil" : "shared_gil";
                         });

void visit(const interpreter& where) {
  const moored::attachment attached = moored::try_attach(where);
  ASSERT_TRUE(attached);
  moored_test::run("visits += 1");
}

TEST_P(subinterpreters, a_foreign_thread_runs_in_the_one_it_names_with_one_state) {
  in_child([] {
    const python main;
    moored::open();
    moored_test::run("visits = 0");
    subinterpreter one(GetParam());
    subinterpreter other(GetParam());
    on_foreign_thread([&] {
      for (int i = 0; i < 100; ++i) {
        visit(one.it());
        visit(other.it());
        visit(other.it());
        visit(interpreter::main());
      }
      EXPECT_EQ(moored::stats().states_kept, 3U);
    });
    EXPECT_EQ(one.ask("visits"), 100);
    EXPECT_EQ(other.ask("visits"), 200);
    EXPECT_EQ(value_of("visits"), 100);
    EXPECT_EQ(moored::stats().states_made, 3U);
    EXPECT_EQ(moored::stats().states_freed, 3U);
  });
}

TEST_P(subinterpreters, locals_stay_between_visits) {
  in_child([] {
    const python main;
    subinterpreter one(GetParam());
    on_foreign_thread([&] {
      for (int i = 1; i <= 3; ++i) {
        const moored::attachment attached = moored::try_attach(one.it());
        if (i == 1) moored_test::run(moored_test::visits_source);
        EXPECT_EQ(value_of("visit()"), i);
      }
    });
  });
}

TEST_P(subinterpreters, another_bindings_nested_ensure_stays_in_it) {
  in_child([] {
    const python main;
    moored_test::run("visits = 0");
    subinterpreter one(GetParam());
    for (const bool knows_main : {false, true}) {
      on_foreign_thread([&] {
        if (knows_main) visit(interpreter::main());
        for (int i = 0; i < 3; ++i) {
          const moored::attachment attached = moored::try_attach(one.it());
          moored_test::as_another_binding([] { moored_test::run("visits += 1"); });
          {
            const moored::detachment others_turn;
            moored_test::as_another_binding([] { moored_test::run("visits += 1"); });
            const moored::attachment again = moored::try_attach();
            moored_test::run("visits += 1");
          }
          const moored::attachment nested = moored::try_attach(one.it());
          moored_test::run("visits += 1");
        }
      });
    }
    EXPECT_EQ(one.ask("visits"), 24);
    EXPECT_EQ(value_of("visits"), 1);
  });
}

TEST_P(subinterpreters, after_a_visit_another_binding_finds_the_main_one) {
  in_child([] {
    const python main;
    moored_test::run("visits = 0");
    subinterpreter one(GetParam());
    for (const bool knows_main : {false, true}) {
      on_foreign_thread([&] {
        if (knows_main) visit(interpreter::main());
        visit(one.it());
        moored_test::as_another_binding([] { moored_test::run("visits += 1"); });
        if (knows_main) visit(interpreter::main());
      });
    }
    EXPECT_EQ(value_of("visits"), 4);
    EXPECT_EQ(one.ask("visits"), 2);
    EXPECT_EQ(moored_test::states(), 1);
  });
}

TEST_P(subinterpreters, a_visit_within_another_returns_to_it) {
  in_child([] {
    const python main;
    moored_test::run("visits = 0");
    subinterpreter one(GetParam());
    subinterpreter other(GetParam());
    on_foreign_thread([&] {
      const moored::attachment home = moored::attach();
      {
        const moored::attachment there = moored::try_attach(one.it());
        {
          const moored::attachment further = moored::try_attach(other.it());
          moored_test::run("visits += 1");
        }
        moored_test::run("visits += 10");
      }
      moored_test::run("visits += 100");
    });
    EXPECT_EQ(other.ask("visits"), 1);
    EXPECT_EQ(one.ask("visits"), 10);
    EXPECT_EQ(value_of("visits"), 100);
  });
}

TEST_P(subinterpreters, its_end_closes_its_own_gate_only) {
  in_child([] {
    const python main;
    moored_test::run("visits = 0");
    subinterpreter one(GetParam());
    const interpreter gone = one.it();
    semaphore visited;
    semaphore ended;
    std::thread thread([&] {
      visit(gone);
      visited.release();
      ended.acquire();
      const moored::attachment refused = moored::try_attach(gone);
      EXPECT_EQ(refused.why(), moored::refusal::closing);
      visit(interpreter::main());
      moored_test::as_another_binding([] {});
    });
    {
      const moored::detachment others_turn;
      visited.acquire();
    }
    one.end();  // CPython ends no interpreter in which a thread has a state
    ended.release();
    {
      const moored::detachment others_turn;
      thread.join();
    }
    EXPECT_EQ(value_of("visits"), 1);
    EXPECT_EQ(moored::stats().states_kept, 0U);
    EXPECT_EQ(moored::stats().states_made, moored::stats().states_freed);
  });
}

TEST_P(subinterpreters, its_end_waits_for_who_is_inside) {
  in_child([] {
    const python main;
    subinterpreter one(GetParam());
    const interpreter where = one.it();
    semaphore is_inside;
    std::atomic<bool> left{false};
    std::thread thread([&] {
      const moored::attachment attached = moored::try_attach(where);
      is_inside.release();
      {
        const moored::detachment others_turn;
        // Refused from the moment that the end has begun, so this sees it begin.
        std::thread([&] {
          while (moored::try_attach(where)) std::this_thread::yield();
        }).join();
      }
      moored_test::run("visits += 1");
      left = true;
    });
    {
      const moored::detachment others_turn;
      is_inside.acquire();
    }
    one.end();
    EXPECT_TRUE(left);
    const moored::detachment others_turn;
    thread.join();
  });
}

TEST_P(subinterpreters, the_end_of_the_main_one_refuses_them_all) {
  in_child([] {
    std::optional<interpreter> kept;
    std::thread thread;
    semaphore visited;
    semaphore ended;
    {
      const python main;
      subinterpreter one(GetParam());
      kept = one.it();
      thread = std::thread([&] {
        visit(*kept);
        visited.release();
        ended.acquire();
        EXPECT_FALSE(moored::try_attach(*kept));
      });
      const moored::detachment others_turn;
      visited.acquire();
    }
    ended.release();
    thread.join();
  });
}

TEST_P(subinterpreters, many_threads_come_and_go_while_they_end) {
  in_child([] {
    const python main;
    for (int round = 0; round < 5; ++round) {
      subinterpreter one(GetParam());
      const interpreter where = one.it();
      std::atomic<int> calls{0};
      std::vector<std::thread> threads;
      for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&calls, where, i] {
          for (;;) {
            const moored::attachment attached = moored::try_attach(where);
            if (!attached) return;
            moored_test::run("visits += 1");
            ++calls;
            if (i % 2 == 0) moored::release_thread();
          }
        });
      }
      {
        const moored::detachment others_turn;
        while (calls < 50) std::this_thread::yield();
      }
      one.end();
      const moored::detachment others_turn;
      for (std::thread& thread : threads) thread.join();
    }
    EXPECT_EQ(moored::stats().states_kept, 0U);
    EXPECT_EQ(moored::stats().overdue, 0U);
  });
}

TEST_P(subinterpreters, its_end_is_not_held_up_by_who_is_refused) {
  in_child([] {
    const python main;
    for (int round = 0; round < 5; ++round) {
      subinterpreter one(GetParam());
      std::atomic<bool> over{false};
      std::vector<std::thread> crowd;
      for (int i = 0; i < 64; ++i) {
        crowd.emplace_back([&over, where = one.it()] {
          while (!over) (void)moored::try_attach(where);
        });
      }
      one.end();  // CPython ends the process when the gate has not let every thread out
      over = true;
      const moored::detachment others_turn;
      for (std::thread& thread : crowd) thread.join();
    }
    EXPECT_EQ(moored::stats().overdue, 0U);
  });
}

#if PY_VERSION_HEX >= 0x030C0000
/// Returns when the other interpreter is here too. Keeps its GIL meanwhile.
PyObject* meet(PyObject*, PyObject*) {
  static latch both{2};
  both.arrive_and_wait();
  Py_RETURN_NONE;
}

TEST(own_gil, native_threads_are_inside_two_interpreters_at_once) {
  in_child([] {
    const python main;
    subinterpreter one(true);
    subinterpreter other(true);
    const auto go = [](const interpreter& where) {
      const moored::attachment attached = moored::try_attach(where);
      static PyMethodDef method = {"meet", meet, METH_NOARGS, nullptr};
      PyObject* const function = PyCFunction_New(&method, nullptr);
      PyObject* const done = PyObject_CallNoArgs(function);
      EXPECT_NE(done, nullptr);
      Py_XDECREF(done);
      Py_DECREF(function);
    };
    const moored::detachment others_turn;
    std::thread first([&] { go(one.it()); });
    std::thread second([&] { go(other.it()); });
    first.join();
    second.join();
  });
}
#endif

long long id() {
  return PyInterpreterState_GetID(PyInterpreterState_Get());
}

TEST_P(subinterpreters, a_handle_of_main_enters_main_from_within_a_visit) {
  in_child([] {
    const python main;
    moored::open();
    moored_test::run(moored_test::visits_source);
    subinterpreter one(GetParam());
    const auto visit_both = [&] {
      for (int round = 1; round <= 3; ++round) {
        const moored::attachment in_one = moored::try_attach(one.it());
        ASSERT_TRUE(in_one);
        const long long there = id();
        EXPECT_NE(there, 0);
        {
          const moored::attachment in_main = moored::try_attach(interpreter::main());
          ASSERT_TRUE(in_main);
          EXPECT_EQ(id(), 0);
          EXPECT_EQ(value_of("visit()"), round);
          {
            const moored::detachment detached;
            const moored::attachment again = moored::try_attach();
            EXPECT_EQ(id(), 0);
          }
          moored_test::as_another_binding([] { EXPECT_EQ(id(), 0); });
          const moored::attachment back = moored::try_attach(one.it());
          EXPECT_EQ(id(), there);
        }
        EXPECT_EQ(id(), there);
        moored_test::as_another_binding([&] { EXPECT_EQ(id(), there); });
      }
    };
    on_foreign_thread(visit_both);  // has no state of main's before
    on_foreign_thread([&] {
      const moored::attachment in_main = moored::try_attach();
      visit_both();
      EXPECT_EQ(id(), 0);
    });
    on_foreign_thread([&] { moored_test::as_another_binding(visit_both); });
    EXPECT_EQ(moored::stats().states_kept, 0U);
  });
}

TEST_P(subinterpreters, a_call_enters_the_interpreter_of_its_callable) {
  in_child([] {
    const python main;
    moored::open();
    static PyMethodDef method = {"where",
                                 [](PyObject*, PyObject*) { return PyLong_FromLongLong(id()); },
                                 METH_NOARGS, nullptr};
    auto in_main = moored::reference::steal(PyCFunction_New(&method, nullptr));
    subinterpreter one(GetParam());
    moored::reference in_one;
    on_foreign_thread([&] {
      long long there = 0;
      {
        const moored::attachment attached = moored::try_attach(one.it());
        there = id();
        in_one = moored::reference::steal(PyCFunction_New(&method, nullptr));
        EXPECT_EQ(moored::call<long long>(in_main), 0);
        EXPECT_EQ(moored::call<long long>(in_one), there);
      }
      EXPECT_EQ(moored::call<long long>(in_one), there);
      EXPECT_EQ(moored::call<long long>(in_main), 0);
    });
    EXPECT_NE(moored::call<long long>(in_one), 0);
    one.end();
    EXPECT_THROW(moored::call(in_one), moored::interpreter_closed);
  });
}

TEST_P(subinterpreters, a_reference_is_dropped_in_its_own_one_by_whatever_thread) {
  in_child([] {
    const python main;
    moored::open();
    subinterpreter one(GetParam());
    const auto make = [&] {
      const moored::attachment attached = moored::try_attach(one.it());
      moored_test::run(
          "class Counted:\n"
          "    alive = 0\n"
          "    def __init__(self): Counted.alive += 1\n"
          "    def __del__(self): Counted.alive -= 1\n");
      std::vector<moored::reference> made;
      for (int i = 0; i < 3; ++i)
        made.push_back(moored::reference::steal(PyObject_CallNoArgs(
            PyDict_GetItemString(PyModule_GetDict(PyImport_AddModule("__main__")), "Counted"))));
      return made;
    };
    std::vector<moored::reference> made;
    on_foreign_thread([&] { made = make(); });
    made.pop_back();                               // attached to main
    std::thread([&] { made.pop_back(); }).join();  // not attached
    while (one.ask("Counted.alive") != 1) moored_test::run("for i in range(1000): pass");
    one.end();
    made.pop_back();  // its interpreter has gone
    EXPECT_EQ(moored::stats().references_forgotten, 1U);
  });
}

TEST(subinterpreter, a_thread_that_its_own_state_has_attached_is_attached) {
  in_child([] {
    const python main;
    moored::open();
    PyThreadState* const outer = PyThreadState_Get();
    PyThreadState* const own = Py_NewInterpreter();
    const interpreter here = interpreter::current();
    {
      const moored::attachment attached = moored::try_attach(here);
      ASSERT_TRUE(attached);
      EXPECT_EQ(PyThreadState_Get(), own);
      const moored::attachment nested = moored::try_attach();
      EXPECT_EQ(PyThreadState_Get(), own);
      const moored::attachment in_main = moored::try_attach(interpreter::main());
      ASSERT_TRUE(in_main);
      EXPECT_EQ(id(), 0);
    }
    EXPECT_EQ(PyThreadState_Get(), own);
    Py_EndInterpreter(own);
    PyThreadState_Swap(outer);
  });
}

TEST(subinterpreter, is_visited_by_a_thread_that_kept_a_state_in_an_earlier_life) {
  in_child([] {
    semaphore has_kept, may_visit, has_visited;
    std::optional<interpreter> where;
    std::thread visitor;
    {
      const python first;
      moored::open();
      visitor = std::thread([&] {
        EXPECT_TRUE(moored::try_attach());
        has_kept.release();
        may_visit.acquire();
        for (int round = 0; round < 2; ++round) {
          const moored::attachment attached = moored::try_attach(*where);
          EXPECT_TRUE(attached);
          EXPECT_NE(id(), 0);
        }
        has_visited.release();
      });
      const moored::detachment detached;
      has_kept.acquire();
    }
    const python second;
    moored::open();
    subinterpreter one;
    where = one.it();
    may_visit.release();
    const moored::detachment detached;
    has_visited.acquire();
    visitor.join();
    where.reset();
  });
}

// Up to 3.11 Py_NewInterpreter itself waits for the GIL that it holds when tracemalloc is on.
#if PY_VERSION_HEX >= 0x030C0000
TEST(subinterpreter, a_state_is_made_without_a_lock_when_tracemalloc_is_on) {
  in_child([] {
    Py_InitializeEx(0);
    moored::open();
    moored_test::run("import tracemalloc; tracemalloc.start()");
    subinterpreter one;
    on_foreign_thread([&] {
      std::vector<std::thread> makers;
      for (int maker = 0; maker < 4; ++maker) {
        makers.emplace_back([&, maker] {
          for (int i = 0; i < 50; ++i) {
            std::thread([&] {
              const moored::attachment first =
                  maker % 2 == 0 ? moored::try_attach() : moored::attachment();
              EXPECT_TRUE(moored::try_attach(one.it()));
            }).join();
          }
        });
      }
      for (std::thread& each : makers) each.join();
    });
    moored_test::run("tracemalloc.stop()");
    one.end();
    EXPECT_EQ(Py_FinalizeEx(), 0);
  });
}
#endif

TEST_P(subinterpreters, two_threads_that_ask_at_once_get_one_gate) {
  in_child([] {
    const python main;
    moored::open();
    PyThreadState* const outer = PyThreadState_Get();
    PyThreadState* const own = Py_NewInterpreter();
    static PyMethodDef method = {"ask",
                                 [](PyObject*, PyObject*) {
                                   (void)interpreter::current();
                                   moored::interpreter first = interpreter::current();
                                   return PyBool_FromLong(first == interpreter::current());
                                 },
                                 METH_NOARGS, nullptr};
    moored_test::give("ask", PyCFunction_New(&method, nullptr));
    moored_test::run(
        "import threading\n"
        "threads = [threading.Thread(target=ask) for i in range(8)]\n"
        "for one in threads: one.start()\n"
        "for one in threads: one.join()\n");
    EXPECT_EQ(moored::detail::subinterpreters::the().open_ones(), 1U);
    Py_EndInterpreter(own);
    PyThreadState_Swap(outer);
  });
}

}  // namespace
