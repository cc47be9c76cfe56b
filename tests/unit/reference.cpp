// unit/reference.cpp: any thread drops a reference, without waiting for the GIL.
#include "child.hpp"

#include <optional>

using namespace moored_test;

namespace {

constexpr const char* counted_source =
    "class Counted:\n"
    "    alive = 0\n"
    "    order = []\n"
    "    def __init__(self, number):\n"
    "        Counted.alive += 1\n"
    "        self.number = number\n"
    "    def __del__(self):\n"
    "        Counted.alive -= 1\n"
    "        Counted.order.append(self.number)\n";

std::vector<moored::reference> make_counted(int number) {
  std::vector<moored::reference> made;
  for (int i = 0; i < number; ++i)
    made.push_back(moored::reference::steal(PyObject_CallFunction(global("Counted"), "i", i)));
  return made;
}

/// Joins while the calling thread holds the GIL.
void on_thread_joined_with_gil(const std::function<void()>& body) {
  std::thread(body).join();
}

/// Lets main run its pending calls: up to CPython 3.12 it looks for those that other threads have
/// asked for when it takes the GIL again.
void run_pending_calls() {
  PyEval_RestoreThread(PyEval_SaveThread());
  run("for i in range(1000): pass");
}

void until_all_are_dropped() {
  while (value_of("Counted.alive") != 0) run_pending_calls();
}

TEST(reference, dropped_by_a_thread_that_is_joined_with_the_gil_does_not_wait) {
  in_child([] {
    const python interpreter;
    moored::open();
    run(counted_source);
    auto all = make_counted(500);  // more than CPython has places for pending calls
    on_thread_joined_with_gil([&] { all.clear(); });
    until_all_are_dropped();
    EXPECT_EQ(value_of("int(Counted.order == list(range(500)))"), 1);
    EXPECT_EQ(moored::stats().references_forgotten, 0U);
  });
}

TEST(reference, dropped_while_the_places_for_pending_calls_are_taken_is_dropped_later) {
  in_child([] {
    const python interpreter;
    moored::open();
    run(counted_source);
    auto all = make_counted(10);
    auto last = make_counted(1);
    on_thread_joined_with_gil([&] {
      while (Py_AddPendingCall([](void*) { return 0; }, nullptr) == 0) {
      }
      all.clear();
    });
    run_pending_calls();
    on_thread_joined_with_gil([&] { last.clear(); });  // asks again for all of them
    until_all_are_dropped();
  });
}

TEST(reference, dropped_before_the_end_is_dropped_by_the_end) {
  in_child([] {
    {
      const python interpreter;
      moored::open();
      run(counted_source);
      run("import atexit, os\n"
          "def check(): os._exit(7 if Counted.alive else 0)\n");
      auto all = make_counted(3);
      on_thread_joined_with_gil([&] { all.clear(); });
    }
    EXPECT_EQ(moored::stats().references_forgotten, 0U);
  });
}

TEST(reference, dropped_with_an_exception_set_leaves_it_set) {
  in_child([] {
    const python interpreter;
    moored::open();
    run(counted_source);
    auto all = make_counted(3);
    on_thread_joined_with_gil([&] { all.clear(); });
    PyErr_SetString(PyExc_KeyError, "mine");
    moored::detail::the_main_drops.empty();
    EXPECT_TRUE(PyErr_ExceptionMatches(PyExc_KeyError));
    PyErr_Clear();
    EXPECT_EQ(value_of("Counted.alive"), 0);
  });
}

TEST(reference, that_is_dropped_in_the_moment_of_the_closing_is_counted) {
  in_child([] {
    const python interpreter;
    moored::open();
    run(counted_source);
    PyObject* const object = make_counted(1).front().release();
    const auto of = moored::detail::home::here();
    moored::detail::the_gate.close();
    // A thread that has found the gate open, and comes here when it is not any more.
    on_thread_joined_with_gil([&] { moored::detail::the_main_drops.add(object, of); });
    EXPECT_EQ(moored::stats().references_forgotten, 1U);
  });
}

TEST(reference, of_the_parent_is_not_finalised_in_the_child_of_a_fork) {
  in_child([] {
    const python interpreter;
    moored::open();
    run(counted_source);
    auto all = make_counted(3);
    on_thread_joined_with_gil([&] { all.clear(); });
    PyOS_BeforeFork();
    const pid_t child = fork();
    if (child == 0) {
      PyOS_AfterFork_Child();
      run_pending_calls();
      _exit(value_of("Counted.alive") == 3 ? 0 : 7);
    }
    PyOS_AfterFork_Parent();
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    until_all_are_dropped();
  });
}

}  // namespace
