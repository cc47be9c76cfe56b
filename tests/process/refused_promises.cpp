// process/refused_promises.cpp: promises and calls whose descriptors, threads or memory are
// refused.
#include "attempts.hpp"

using namespace moored_test;

namespace {

using promise = moored::promise<int>;

TEST(fault, a_promise_without_descriptors_or_a_thread_is_an_error_and_the_next_one_is_kept) {
  in_child([] {
    const python interpreter;
    run("import asyncio\nloop = asyncio.new_event_loop()\n");
    the_faults.eventfd.arm(EMFILE, 1);
    EXPECT_EQ(error_of([] { (void)promise::on(global("loop")); }), EMFILE);
    the_faults.eventfd.arm(EMFILE, 1);
    EXPECT_EQ(error_of([] { (void)promise::concurrent(); }), EMFILE);
    the_faults.pthread_create.arm(EAGAIN, 1);
    EXPECT_EQ(error_of([] { (void)promise::concurrent(); }), EAGAIN);

    promise one = promise::concurrent();
    promise two = promise::on(global("loop"));
    give("one", one.future());
    give("two", two.future());
    EXPECT_TRUE(one.set_value(7));
    EXPECT_TRUE(two.set_value(8));
    run("seen = [one.result(), loop.run_until_complete(two)]\nloop.close()\n");
    EXPECT_EQ(value_of("seen == [7, 8]"), 1);
  });
}

TEST(fault, a_promise_that_has_no_memory_for_its_value_breaks) {
  in_child([] {
    const python interpreter;
    {
      promise one = promise::concurrent();
      give("one", one.future());
      promise two = promise::concurrent();
      give("two", two.future());
      const without_memory now;
      EXPECT_FALSE(one.set_value(7));
      EXPECT_FALSE(two.set_value(7));
      EXPECT_TRUE(two.set_error("why"));
    }
    run("errors = [str(one.exception()), str(two.exception())]\n");
    EXPECT_EQ(value_of("errors == ['the native promise ended without a value', 'why']"), 1);
    EXPECT_EQ(moored::stats_of_promises().broken, 1U);
    EXPECT_EQ(moored::stats_of_promises().lost, 0U);
  });
}

TEST(fault, many_promises_end_without_memory) {
  in_child([] {
    const python interpreter;
    run("futures = []");
    for (int round = 0; round < 3; ++round) {
      std::vector<promise> promises;
      for (int number = 0; number < 100; ++number) {
        promises.push_back(promise::concurrent());
        give("future", promises.back().future());
        run("futures.append(future)");
      }
      const without_memory now;
      promises.clear();
    }
    run("errors = {type(each.exception()) for each in futures}");
    EXPECT_EQ(value_of("errors == {RuntimeError}"), 1);
    EXPECT_EQ(moored::stats_of_promises().lost, 0U);
  });
}

TEST(fault, promises_are_completed_though_no_descriptor_can_be_written) {
  in_child([] {
    const python interpreter;
    the_faults.write.arm(EIO);
    run("values = []");
    for (int number = 0; number < 3; ++number) {
      promise one = promise::concurrent();
      give("one", one.future());
      EXPECT_TRUE(one.set_value(number));
      run("values.append(one.result())");
    }
    EXPECT_EQ(value_of("values == [0, 1, 2]"), 1);
    EXPECT_GT(the_faults.write.failed(), 0);
  });
}

TEST(fault, a_future_is_done_or_counted_as_lost_without_pythons_memory) {
  in_child([] {
    const short_python interpreter;
    run("import asyncio, sys\nloop = asyncio.new_event_loop()\n"
        "sys.unraisablehook = lambda report: None\nsys.stderr = None\n"
        "loop.set_exception_handler(lambda loop, context: None)\n");
    with_each_python_allocation_failing([](const auto& is_short) {
      const auto before = moored::stats_of_promises();
      promise one = promise::on(global("loop"));
      give("one", one.future());
      EXPECT_TRUE(one.set_value(1000));
      run("import select\nloop.call_soon(loop.stop)\n");
      moored::detail::completion mine{
          moored::reference::borrow(global("one")), [] { return PyLong_FromLong(1000); }, {}};
      is_short([&] { moored::detail::complete(mine); });
      EXPECT_EQ(PyErr_Occurred(), nullptr);
      const auto after = moored::stats_of_promises();
      EXPECT_EQ(after.completed + after.lost, before.completed + before.lost + 1);
      EXPECT_EQ(value_of("one.done()"), static_cast<long>(after.completed - before.completed));
      run("loop.run_forever()\nassert one.done()\none.exception()\n");
    });
    run("loop.close()");
  });
}

TEST(fault, a_call_without_memory_is_an_error) {
  in_child([] {
    const short_python interpreter;
    run("def add(a, b): return a + b\n");
    const auto add = moored::reference::borrow(global("add"));
    with_each_python_allocation_failing([&](const auto& is_short) {
      int sum = 0;
      is_short([&] {
        try {
          sum = moored::call<int>(add, 2000, 3000);
        } catch (const moored::python_error& error) {
          sum = 5000;
          EXPECT_EQ(error.type(), "MemoryError");
        }
      });
      EXPECT_EQ(sum, 5000);
      EXPECT_EQ(PyErr_Occurred(), nullptr);
    });
    on_foreign_thread([&] {
      const without_python_memory now;
      EXPECT_THROW(moored::call(add, 2, 3), moored::interpreter_closed);
    });
  });
}

}  // namespace
