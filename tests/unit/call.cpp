// unit/call.cpp: native threads that want an answer get it, or an exception, and never hang.
#include "child.hpp"

#include <array>
#include <chrono>

using namespace moored_test;
using namespace std::chrono_literals;

namespace {

/// A name of __main__. The caller is attached.
moored::reference named(const char* name) {
  return moored::reference::borrow(global(name));
}

/// An asyncio loop, `loop`, that runs in a Python thread until stop().
constexpr const char* loop_source =
    "import asyncio, threading\n"
    "loop = asyncio.new_event_loop()\n"
    "thread = threading.Thread(target=loop.run_forever, daemon=True)\n"
    "thread.start()\n"
    "def stop():\n"
    "    loop.call_soon_threadsafe(loop.stop)\n"
    "    thread.join()\n"
    "    loop.close()\n"
    "async def double(x):\n"
    "    await asyncio.sleep(0)\n"
    "    return 2 * x\n"
    "async def fail():\n"
    "    raise KeyError('by the test')\n"
    "async def never():\n"
    "    await asyncio.Future()\n"
    "async def be_the_only_task():\n"
    "    while len(asyncio.all_tasks()) > 1:\n"
    "        await asyncio.sleep(0)\n";

TEST(call, gives_the_result_from_any_thread) {
  in_child([] {
    const python interpreter;
    run("def add(a, b): return a + b\n");
    const moored::reference add = named("add");
    EXPECT_EQ(moored::call<int>(add, 2, 3), 5);
    on_foreign_thread([&] {
      EXPECT_EQ(moored::call<long>(add, 2L, 40L), 42);
      EXPECT_DOUBLE_EQ(moored::call<double>(add, 0.5, 1.0), 1.5);
      EXPECT_EQ(moored::call<std::string>(add, std::string("a"), std::string("b")), "ab");
      EXPECT_EQ(moored::call<moored::bytes>(add, moored::bytes{std::byte{1}}, moored::bytes{}),
                moored::bytes{std::byte{1}});
      EXPECT_TRUE(moored::call<bool>(add, false, true));
      moored::call(add, 1, 1);
      EXPECT_TRUE(moored::call<moored::reference>(add, 1, 1));
    });
  });
}

TEST(call, gives_the_exception_with_its_traceback) {
  in_child([] {
    const python interpreter;
    run("def fail(): raise ValueError('by the test')\n");
    const moored::reference fail = named("fail");
    on_foreign_thread([&] {
      try {
        moored::call(fail);
        FAIL();
      } catch (const moored::python_error& error) {
        EXPECT_EQ(error.type(), "ValueError");
        const std::string text = error.what();
        EXPECT_NE(text.find("Traceback"), text.npos);
        EXPECT_NE(text.find("in fail"), text.npos);
        EXPECT_NE(text.find("by the test"), text.npos);
      }
    });
    EXPECT_EQ(PyErr_Occurred(), nullptr);
  });
}

TEST(call, a_result_that_does_not_fit_is_an_exception) {
  in_child([] {
    const python interpreter;
    run("def big(): return 300\ndef text(): return 'x'\n");
    EXPECT_THROW(moored::call<std::int8_t>(named("big")), moored::python_error);
    EXPECT_THROW(moored::call<int>(named("text")), moored::python_error);
    EXPECT_EQ(PyErr_Occurred(), nullptr);
  });
}

TEST(call, after_python_it_says_so) {
  in_child([] {
    moored::reference print;
    {
      const python interpreter;
      moored::open();
      run("import builtins\n");
      print = moored::reference::borrow(global("builtins"));
    }
    EXPECT_THROW(moored::call(print), moored::interpreter_closed);
  });
}

TEST(reference, is_let_go_by_a_thread_without_the_gil) {
  in_child([] {
    const python interpreter;
    moored::open();
    run("import weakref\nclass C: pass\nobject = C()\ngone = weakref.ref(object)\n");
    moored::reference object = named("object");
    run("del object\n");
    on_foreign_thread([&] { const moored::reference last = std::move(object); });
    Py_MakePendingCalls();
    EXPECT_EQ(value_of("gone() is None"), 1);
  });
}

TEST(reference, of_an_earlier_life_is_forgotten) {
  in_child([] {
    moored::reference object;
    {
      const python first;
      moored::open();
      object = moored::reference::borrow(PyImport_AddModule("__main__"));
    }
    const python second;
    moored::open();
    on_foreign_thread([&] { const moored::reference last = std::move(object); });
    Py_MakePendingCalls();
  });
}

TEST(await, gives_the_coroutines_result_or_exception) {
  in_child([] {
    const python interpreter;
    run(loop_source);
    const auto loop = named("loop"), twice = named("double"), fail = named("fail");
    on_foreign_thread([&] {
      EXPECT_EQ(moored::await<int>(loop, twice, 60s, 21), 42);
      try {
        moored::await(loop, fail, 60s);
        FAIL();
      } catch (const moored::python_error& error) {
        EXPECT_EQ(error.type(), "KeyError");
      }
    });
    run("stop()\n");
  });
}

TEST(await, cancels_the_coroutine_when_the_time_is_over) {
  in_child([] {
    const python interpreter;
    run(loop_source);
    const auto loop = named("loop"), never = named("never");
    on_foreign_thread([&] { EXPECT_THROW(moored::await(loop, never, 20ms), moored::timed_out); });
    // Whether or not it had begun by then.
    run("asyncio.run_coroutine_threadsafe(be_the_only_task(), loop).result()\nstop()\n");
  });
}

TEST(await, on_the_loops_own_thread_is_refused) {
  in_child([] {
    const python interpreter;
    static moored::reference loop, twice;
    static bool refused = false;
    run("import asyncio\nasync def double(x): return 2 * x\n"
        "async def main(f):\n"
        "    global loop\n"
        "    loop = asyncio.get_running_loop()\n"
        "    f()\n");
    twice = named("double");
    static PyMethodDef method = {"f",
                                 [](PyObject*, PyObject*) -> PyObject* {
                                   loop = named("loop");
                                   try {
                                     moored::await<int>(loop, twice, 60s, 1);
                                   } catch (const std::logic_error&) {
                                     refused = true;
                                   }
                                   Py_RETURN_NONE;
                                 },
                                 METH_NOARGS, nullptr};
    PyObject* const function = PyCFunction_New(&method, nullptr);
    give("f", function);
    run("asyncio.run(main(f))\n");
    EXPECT_TRUE(refused);
    loop = {};
    twice = {};
  });
}

TEST(await, wakes_when_python_ends) {
  in_child([] {
    std::thread waiter;
    std::atomic<bool> told = false;
    {
      const python interpreter;
      run(loop_source);
      run("started = threading.Event()\n"
          "async def wait_for_ever():\n"
          "    started.set()\n"
          "    await asyncio.Future()\n");
      waiter = std::thread([&] {
        moored::reference loop, never;
        {
          const moored::attachment attached = moored::try_attach();
          loop = named("loop");
          never = named("wait_for_ever");
        }
        try {
          moored::await(loop, never, 3600s);
        } catch (const moored::interpreter_closed&) {
          told = true;
        }
      });
      run("started.wait()\n");
    }
    waiter.join();
    EXPECT_TRUE(told);
  });
}

TEST(await, that_begins_during_the_farewell_is_refused) {
  in_child([] {
    Py_InitializeEx(0);
    ASSERT_TRUE(moored::open());
    run(loop_source);
    const moored::reference loop = named("loop");
    const moored::reference function = named("double");
    static std::atomic<bool> in_farewell{false}, refused{false};
    static PyMethodDef method = {"farewell",
                                 [](PyObject*, PyObject*) -> PyObject* {
                                   in_farewell = true;
                                   {
                                     const moored::detachment detached;
                                     while (!refused) std::this_thread::yield();
                                   }
                                   Py_RETURN_NONE;
                                 },
                                 METH_O, nullptr};
    moored::channel_options options;
    options.by = moored::delivery::poll;
    moored::channel<int> events(options);
    const auto handler = moored::reference::steal(PyCFunction_New(&method, nullptr));
    events.on_batch(handler.get());
    EXPECT_EQ(events.send(1), moored::sent::queued);
    std::thread late([&] {
      while (!in_farewell) std::this_thread::yield();
      EXPECT_THROW(moored::await<int>(loop, function, std::chrono::hours(1), 1),
                   moored::interpreter_closed);
      refused = true;
    });
    run("stop()");
    EXPECT_EQ(Py_FinalizeEx(), 0);
    late.join();
  });
}

}  // namespace
