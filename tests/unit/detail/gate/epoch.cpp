// unit/detail/gate/epoch.cpp: what a thread or an object knows counts in its own life of the
// interpreter only.
#include "child.hpp"

#include <chrono>
#include <optional>

using namespace moored_test;
using namespace std::chrono_literals;
using moored::refusal;

namespace {

/// Something that threads wait for, without the GIL.
class signal {
 public:
  void give() noexcept { given_ = true; }
  void wait() const noexcept {
    const moored::detachment detached;
    while (!given_) std::this_thread::yield();
  }

 private:
  std::atomic<bool> given_{false};
};

void begin_life() {
  Py_InitializeEx(0);
  ASSERT_TRUE(moored::open());
}

TEST(epoch, a_thread_of_the_first_life_is_not_taken_for_attached_in_the_second) {
  in_child([] {
    begin_life();
    constexpr int threads = 20;
    std::atomic<int> kept{0}, asked{0}, intruders{0};
    signal second_life, over;
    std::vector<std::thread> all;
    for (int i = 0; i < threads; ++i) {
      all.emplace_back([&] {
        { const moored::attachment attached = moored::attach(); }
        ++kept;
        second_life.wait();
        // Asked while another thread holds the GIL, perhaps by a state with this one's old address.
        if (moored::detail::is_attached()) ++intruders;
        ++asked;
        over.wait();
      });
    }
    {
      const moored::detachment detached;
      while (kept != threads) std::this_thread::yield();
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
    begin_life();
    on_foreign_thread([&] {
      as_another_binding([&] {
        second_life.give();
        while (asked != threads) std::this_thread::yield();
      });
    });
    EXPECT_EQ(intruders, 0);
    over.give();
    {
      const moored::detachment detached;
      for (std::thread& one : all) one.join();
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
  });
}

TEST(epoch, a_reference_of_the_first_life_is_forgotten_in_the_second) {
  in_child([] {
    std::vector<moored::reference> attached, detached;
    begin_life();
    for (int i = 0; i < 200; ++i) {
      attached.push_back(moored::reference::steal(Py_BuildValue("[[i]]", i)));
      detached.push_back(moored::reference::steal(Py_BuildValue("[[i]]", i)));
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
    begin_life();
    EXPECT_FALSE(attached.front().is_here());
    EXPECT_FALSE(attached.front().try_attach());
    EXPECT_THROW(moored::call(attached.front()), moored::interpreter_closed);
    attached.clear();
    on_foreign_thread([&] { detached.clear(); });
    run("import gc; gc.collect()");
    EXPECT_EQ(moored::stats().references_forgotten, 400U);
    EXPECT_EQ(Py_FinalizeEx(), 0);
  });
}

TEST(epoch, a_call_that_outlasts_its_life_is_stopped_and_written_off_once) {
  in_child([] {
    begin_life();
    moored::set_closing_bound(50ms);
    signal inside, second_life;
    std::atomic<bool> came_back{false}, again_refused{false};
    std::thread([&] {
      const moored::attachment attached = moored::attach();
      const moored::detachment detached;
      inside.give();
      second_life.wait();
      again_refused = moored::try_attach().why() == refusal::closing;
      // the end of `detached` would attach a state that has been freed
      struct notice {
        std::atomic<bool>& to;
        ~notice() { to = true; }
      } const late{came_back};
    }).detach();
    inside.wait();
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(moored::stats().overdue, 1U);
    begin_life();
    second_life.give();
    {
      const moored::detachment detached;
      while (!came_back) std::this_thread::yield();
      while (moored::cpython::stopped_threads == 0) std::this_thread::yield();
    }
    EXPECT_TRUE(again_refused);
    moored::set_closing_bound(std::chrono::hours(1));  // it is not waited for again
    EXPECT_EQ(Py_FinalizeEx(), 0);
    EXPECT_EQ(moored::stats().overdue, 1U);
  });
}

TEST(epoch, the_gate_is_shut_when_its_callback_was_cleared) {
  in_child([] {
    for (int life = 0; life < 3; ++life) {
      begin_life();
      on_foreign_thread([] { EXPECT_TRUE(moored::try_attach()); });
      run("import atexit; atexit._clear()");
      EXPECT_EQ(Py_FinalizeEx(), 0);
      std::thread([] { EXPECT_EQ(moored::try_attach().why(), refusal::no_interpreter); }).join();
    }
  });
}

TEST(epoch, the_gate_is_shut_when_it_was_opened_by_an_exit_handler) {
  in_child([] {
    Py_InitializeEx(0);
    static PyMethodDef method = {"open",
                                 [](PyObject*, PyObject*) -> PyObject* {
                                   EXPECT_TRUE(moored::open());
                                   on_foreign_thread([] { EXPECT_TRUE(moored::try_attach()); });
                                   Py_RETURN_NONE;
                                 },
                                 METH_NOARGS, nullptr};
    give("open_gate", PyCFunction_New(&method, nullptr));
    run("import atexit; atexit.register(open_gate)");
    EXPECT_EQ(Py_FinalizeEx(), 0);
    std::thread([] { EXPECT_EQ(moored::try_attach().why(), refusal::no_interpreter); }).join();
    begin_life();
    on_foreign_thread([] { EXPECT_TRUE(moored::try_attach()); });
    EXPECT_EQ(Py_FinalizeEx(), 0);
  });
}

TEST(epoch, a_thread_that_comes_too_late_for_an_end_that_is_not_told_is_stopped) {
  in_child([] {
    Py_InitializeEx(0);
    static PyMethodDef method = {
        "open",
        [](PyObject*, PyObject*) -> PyObject* {
          EXPECT_TRUE(moored::open());
          semaphore is_inside;
          std::thread([&is_inside] {
            const moored::attachment attached = moored::try_attach();
            EXPECT_TRUE(attached);
            is_inside.release();
            run("while True: time.sleep(0.001)");  // until Python ends, which unwinds it or stops
                                                   // it
          }).detach();
          {
            const moored::detachment detached;
            is_inside.acquire();
          }
          Py_RETURN_NONE;
        },
        METH_NOARGS, nullptr};
    give("open_gate", PyCFunction_New(&method, nullptr));
    run("import atexit, threading, time; atexit.register(open_gate)");
    EXPECT_EQ(Py_FinalizeEx(), 0);
  });
}

/// With tracemalloc on PyThreadState_New waits for the GIL.
TEST(epoch, a_thread_that_makes_its_state_too_late_is_stopped_with_tracemalloc_on) {
  in_child([] {
    Py_InitializeEx(0);
    static PyMethodDef method = {
        "open",
        [](PyObject*, PyObject*) -> PyObject* {
          EXPECT_TRUE(moored::open());
          for (int number = 0; number < 4; ++number) {
            // A temporary state ends with its call, a kept one with its
            // thread.
            std::thread([how = number % 2 == 0 ? moored::strategy::temporary
                                               : moored::strategy::kept] {
              std::atomic<bool> lets_in{true};
              while (lets_in) {
                std::thread([&lets_in, how] {
                  if (!moored::try_attach(how)) lets_in = false;
                }).join();
              }
            }).detach();
          }
          {
            const moored::detachment detached;
            while (moored::stats().states_made < 100) std::this_thread::yield();
          }
          Py_RETURN_NONE;
        },
        METH_NOARGS, nullptr};
    give("open_gate", PyCFunction_New(&method, nullptr));
    run("import atexit, threading, tracemalloc; tracemalloc.start(); atexit.register(open_gate)");
    EXPECT_EQ(Py_FinalizeEx(), 0);
    // Freed by its thread, a state is freed while the end goes on, which does not wait for it.
    EXPECT_EQ(moored::stats().states_freed, 0U);
    EXPECT_GE(moored::stats().states_forgotten, 80U);
  });
}

TEST(epoch, a_next_life_opens_when_all_places_of_py_at_exit_are_taken) {
  in_child([] {
    begin_life();
    while (Py_AtExit([] {}) == 0) {
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
    begin_life();
    on_foreign_thread([] { EXPECT_TRUE(moored::try_attach()); });
    while (Py_AtExit([] {}) == 0) {
    }
    EXPECT_EQ(Py_FinalizeEx(), 0);
    begin_life();
    on_foreign_thread([] { EXPECT_TRUE(moored::try_attach()); });
    EXPECT_EQ(Py_FinalizeEx(), 0);
  });
}

}  // namespace
