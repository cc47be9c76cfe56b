// unit/promise.cpp: futures completed by native threads without the GIL: each once, none forgotten.
#include "child.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>

using namespace moored_test;

namespace {

using promise = moored::promise<int>;

constexpr const char* loop_source = "import asyncio\nloop = asyncio.new_event_loop()\n";

TEST(promise, completes_asyncio_futures_from_native_threads) {
  in_child([] {
    const python interpreter;
    run(loop_source);
    run("futures = []\n");
    constexpr int threads = 4, each = 500;
    std::vector<std::vector<promise>> promises(threads);
    for (auto& own : promises) {
      for (int i = 0; i < each; ++i) {
        own.push_back(promise::on(global("loop")));
        give("future", own.back().future());
        run("futures.append(future)\n");
      }
    }
    std::vector<std::thread> native;
    for (auto& own : promises) {
      native.emplace_back([&own] {
        for (int i = 0; i < each; ++i) EXPECT_TRUE(own[static_cast<std::size_t>(i)].set_value(i));
      });
    }
    // They are set while this thread holds the GIL and never lets go of it.
    for (std::thread& thread : native) thread.join();
    run("results = loop.run_until_complete(asyncio.gather(*futures))\nloop.close()\n");
    EXPECT_EQ(value_of("results == [*range(500)] * 4"), 1);
    EXPECT_EQ(moored::stats_of_promises().completed, 2000U);
  });
}

TEST(promise, completes_concurrent_futures) {
  in_child([] {
    const python interpreter;
    promise one = promise::concurrent();
    promise two = promise::concurrent();
    give("one", one.future());
    give("two", two.future());
    std::thread native([&] {
      EXPECT_TRUE(one.set_value(7));
      EXPECT_TRUE(two.set_error("by the test"));
    });
    native.join();
    EXPECT_EQ(value_of("one.result()"), 7);
    EXPECT_EQ(value_of("str(two.exception()) == 'by the test'"), 1);
  });
}

TEST(promise, is_set_once) {
  in_child([] {
    const python interpreter;
    promise one = promise::concurrent();
    give("one", one.future());
    EXPECT_TRUE(one.set_value(1));
    EXPECT_FALSE(one.set_value(2));
    EXPECT_FALSE(one.set_error("no"));
    EXPECT_EQ(value_of("one.result()"), 1);
  });
}

TEST(promise, that_ends_unset_tells_its_future) {
  in_child([] {
    const python interpreter;
    {
      const promise one = promise::concurrent();
      give("one", one.future());
    }
    EXPECT_EQ(value_of("'without a value' in str(one.exception())"), 1);
    EXPECT_EQ(moored::stats_of_promises().broken, 1U);
  });
}

TEST(promise, of_a_cancelled_future_is_not_wanted) {
  in_child([] {
    const python interpreter;
    run(loop_source);
    promise one = promise::on(global("loop"));
    give("one", one.future());
    run("one.cancel()\n");
    std::thread([&] { EXPECT_TRUE(one.set_value(1)); }).join();
    run("async def turn():\n    while True:\n        await asyncio.sleep(0)\n        if done(): "
        "break\n");
    static PyMethodDef method = {
        "done",
        [](PyObject*, PyObject*) {
          return PyBool_FromLong(moored::stats_of_promises().unwanted == 1);
        },
        METH_NOARGS, nullptr};
    give("done", PyCFunction_New(&method, nullptr));
    run("loop.run_until_complete(turn())\nloop.close()\n");
  });
}

TEST(promise, of_a_loop_that_has_closed_harms_nobody) {
  in_child([] {
    const python interpreter;
    run(loop_source);
    promise one = promise::on(global("loop"));
    run("loop.close()\nloop = asyncio.new_event_loop()\n");
    std::thread([&] { one.set_value(1); }).join();
    promise two = promise::on(global("loop"));
    give("two", two.future());
    std::thread([&] { two.set_value(2); }).join();
    EXPECT_EQ(value_of("loop.run_until_complete(two)"), 2);
    run("loop.close()\n");
  });
}

TEST(promise, says_that_its_loop_has_closed_and_is_counted_once) {
  in_child([] {
    const python interpreter;
    run(loop_source);
    std::optional<promise> queued(promise::on(global("loop")));
    std::optional<promise> late(promise::on(global("loop")));
    std::thread([&] { EXPECT_TRUE(queued->set_value(1)); }).join();  // and the loop never turns
    run("loop.close()\n");
    std::thread([&] { EXPECT_FALSE(late->set_value(2)); }).join();
    queued.reset();
    late.reset();
    EXPECT_EQ(moored::stats_of_promises().lost, 2U);
    EXPECT_EQ(moored::stats_of_promises().broken, 0U);
    EXPECT_EQ(moored::stats_of_promises().completed, 0U);
  });
}

/// How many threads of this process have SIGINT blocked.
int threads_without_signals() {
  int blocked = 0;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(thread.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("SigBlk:", 0) != 0) continue;
      const auto mask = std::stoull(line.substr(7), nullptr, 16);
      blocked += (mask >> (SIGINT - 1) & 1) != 0 ? 1 : 0;
    }
  }
  return blocked;
}

TEST(promise, threads_that_moored_starts_take_no_signals) {
  in_child([] {
    const python interpreter;
    std::thread([] {}).join();  // with its first thread a sanitizer may start one of its own
    const int before = threads_without_signals();
    const moored::promise<int> one = moored::promise<int>::concurrent();
    EXPECT_EQ(threads_without_signals(), before + 1);
  });
}

TEST(promise, of_an_object_takes_it_as_it_is) {
  in_child([] {
    const python interpreter;
    moored::promise<moored::reference> one = moored::promise<moored::reference>::concurrent();
    give("one", one.future());
    one.set_value(moored::reference());
    EXPECT_EQ(value_of("one.result() is None"), 1);
  });
}

TEST(promise, set_after_python_says_so) {
  in_child([] {
    std::optional<promise> one;
    {
      const python interpreter;
      one.emplace(promise::concurrent());
    }
    EXPECT_FALSE(one->set_value(1));
    EXPECT_EQ(moored::stats_of_promises().lost, 1U);
  });
}

}  // namespace
