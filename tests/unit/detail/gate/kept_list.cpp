// unit/detail/gate/kept_list.cpp: a limit on kept states, and what many threads and many attaches
// leave behind.
#include "memory.hpp"

#include <pthread.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>

using namespace moored_test;

namespace {

/// A native thread that does one thing at a time, when it is told.
class worker {
 public:
  worker() : thread_([this] { work(); }) {}
  ~worker() {
    if (thread_.joinable()) finish();
  }
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;

  void does(std::function<void()> job) {
    job_ = std::move(job);
    told_.release();
    done_.acquire();
  }
  void attaches() {
    does([] { const moored::attachment attached = moored::attach(); });
  }
  [[nodiscard]] bool keeps() {
    bool kept = false;
    does([&] { kept = moored::cpython::this_thread_state() != nullptr; });
    return kept;
  }
  void finish() {
    job_ = nullptr;
    told_.release();
    thread_.join();
  }

 private:
  void work() {
    for (;;) {
      told_.acquire();
      if (!job_) return;
      job_();
      done_.release();
    }
  }
  std::function<void()> job_;
  semaphore told_, done_;
  std::thread thread_;
};

void expect_balance() {
  const moored::state_stats now = moored::stats();
  EXPECT_EQ(now.states_made + now.states_adopted,
            now.states_kept + now.states_freed + now.states_forgotten);
  EXPECT_LE(now.states_over_limit, now.states_freed);
}

/// Runs `body` on so many threads at once, of 256 KiB each, and waits for their ends.
void crowd(int size, std::function<void()> body) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 * 1024), 0);
  std::vector<pthread_t> threads(static_cast<std::size_t>(size));
  for (pthread_t& one : threads) {
    const auto main = [](void* what) -> void* {
      (*static_cast<std::function<void()>*>(what))();
      return nullptr;
    };
    ASSERT_EQ(pthread_create(&one, &attributes, main, &body), 0);
  }
  for (const pthread_t one : threads) pthread_join(one, nullptr);
  pthread_attr_destroy(&attributes);
}

}  // namespace

TEST(limit, has_the_longest_idle_thread_let_go_when_it_comes_back) {
  in_child([] {
    const python interpreter;
    run(visits_source);
    moored::set_kept_limit(2);
    {
      const moored::detachment detached;
      worker a, b, c;
      a.attaches();
      b.attaches();
      a.attaches();  // b is idle longer now
      c.attaches();
      EXPECT_EQ(moored::stats().states_kept, 3U);  // no thread takes b's from it
      EXPECT_EQ(moored::stats().states_freed, 0U);
      b.does([] {
        const moored::attachment outer = moored::attach();
        EXPECT_EQ(value_of("visit()"), 1);
        {
          const moored::detachment within;
          const moored::attachment inner = moored::attach();
          EXPECT_EQ(value_of("visit()"), 2);
        }
        EXPECT_EQ(value_of("visit()"), 3);
      });
      EXPECT_FALSE(b.keeps());
      EXPECT_TRUE(a.keeps() && c.keeps());
      EXPECT_EQ(moored::stats().states_freed, 1U);
      EXPECT_EQ(moored::stats().states_over_limit, 1U);

      b.attaches();  // a new state; a is the longest idle
      a.attaches();
      EXPECT_FALSE(a.keeps());
      EXPECT_TRUE(b.keeps() && c.keeps());
      EXPECT_EQ(moored::stats().states_over_limit, 2U);
    }
    EXPECT_EQ(moored::stats().states_made, 4U);
    EXPECT_EQ(moored::stats().states_kept, 0U);
    EXPECT_EQ(moored::stats().states_over_limit, 2U);
    expect_balance();
    EXPECT_EQ(states(), 1);
  });
}

TEST(limit, spares_a_thread_that_is_inside) {
  in_child([] {
    const python interpreter;
    moored::set_kept_limit(1);
    {
      const moored::detachment detached;
      worker a, b, c;
      a.does([&] {
        const moored::attachment outer = moored::attach();
        const moored::detachment within;
        b.attaches();
        c.attaches();
      });
      a.attaches();
      EXPECT_TRUE(a.keeps());
      b.attaches();
      EXPECT_FALSE(b.keeps());
    }
    EXPECT_EQ(moored::stats().states_over_limit, 1U);
    expect_balance();
  });
}

TEST(limit, of_zero_keeps_all_and_a_lower_one_is_for_those_who_keep_already) {
  in_child([] {
    const python interpreter;
    const moored::detachment detached;
    std::array<worker, 5> workers;
    for (worker& one : workers) one.attaches();
    for (worker& one : workers) one.attaches();
    EXPECT_EQ(moored::stats().states_kept, 5U);
    moored::set_kept_limit(2);
    for (worker& one : workers) one.attaches();
    EXPECT_EQ(moored::stats().states_kept, 2U);
    EXPECT_EQ(moored::stats().states_over_limit, 3U);
    EXPECT_TRUE(workers[3].keeps() && workers[4].keeps());
    moored::set_kept_limit(0);
    for (worker& one : workers) one.attaches();
    for (worker& one : workers) one.attaches();
    EXPECT_EQ(moored::stats().states_kept, 5U);
    for (worker& one : workers) one.finish();
    expect_balance();
  });
}

TEST(limit, counts_adopted_states_too) {
  in_child([] {
    const python interpreter;
    moored::set_kept_limit(1);
    {
      const moored::detachment detached;
      worker a, b;
      const auto keeps = [] {
        bool kept = false;
        as_another_binding([&] { kept = moored::keep_thread(); });
        return kept;
      };
      a.does([&] { EXPECT_TRUE(keeps()); });
      a.does([&] { EXPECT_TRUE(keeps()); });
      b.does([&] { EXPECT_TRUE(keeps()); });
      a.does([&] { EXPECT_FALSE(keeps()); });
      EXPECT_FALSE(a.keeps());
      EXPECT_EQ(moored::stats().states_over_limit, 1U);
      a.does([&] { EXPECT_TRUE(keeps()); });
      b.attaches();
      EXPECT_FALSE(b.keeps());
      EXPECT_TRUE(a.keeps());
      EXPECT_EQ(moored::stats().states_over_limit, 2U);
      b.attaches();  // made, where that was adopted
      a.does([&] { EXPECT_FALSE(moored::keep_thread()); });
      EXPECT_FALSE(a.keeps());
      EXPECT_TRUE(b.keeps());
    }
    until_nothing_is_kept();
    expect_balance();
    EXPECT_EQ(states(), 1);
  });
}

TEST(limit, is_not_evaded_by_keep_thread) {
  in_child([] {
    const python interpreter;
    moored::set_kept_limit(1);
    const moored::detachment detached;
    worker a, b;
    a.does([] { EXPECT_TRUE(moored::keep_thread()); });
    b.does([] { EXPECT_TRUE(moored::keep_thread()); });
    a.does([] {
      as_another_binding([] { EXPECT_FALSE(moored::keep_thread()); });
      EXPECT_EQ(moored::cpython::this_thread_state(), nullptr);
      EXPECT_TRUE(moored::keep_thread());
    });
    b.does([] {
      const moored::attachment attached = moored::attach();
      EXPECT_FALSE(moored::keep_thread());
    });
    EXPECT_FALSE(b.keeps());
    EXPECT_EQ(moored::stats().states_over_limit, 2U);
  });
}

TEST(limit, goes_on_in_the_child_of_a_fork) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer cannot follow new threads in the child of a threaded fork";
#endif
  in_child([] {
    const python interpreter;
    moored::set_kept_limit(1);
    const moored::detachment detached;
    worker a, b;
    a.attaches();
    b.attaches();
    b.does([] {
      const moored::attachment attached = moored::attach();
      PyOS_BeforeFork();
      EXPECT_EQ(fate_of([] {
                  PyOS_AfterFork_Child();
                  EXPECT_EQ(moored::stats().states_kept, 0U);
                  const moored::detachment within;
                  worker c, d;
                  c.attaches();
                  d.attaches();
                  EXPECT_EQ(moored::stats().states_over_limit, 0U);
                  c.attaches();
                  EXPECT_FALSE(c.keeps());
                  EXPECT_TRUE(d.keeps());
                  EXPECT_EQ(moored::stats().states_over_limit, 1U);
                }),
                "exit 0");
      PyOS_AfterFork_Parent();
    });
    a.attaches();
    EXPECT_FALSE(a.keeps());
    EXPECT_TRUE(b.keeps());
  });
}

TEST(limit, does_not_count_states_of_an_interpreter_that_is_gone) {
  in_child([] {
    auto a = std::make_unique<worker>();
    worker b;
    moored::set_kept_limit(1);
    {
      const python interpreter;
      const moored::detachment detached;
      a->attaches();
    }
    const python again;
    const moored::detachment detached;
    // 3.15 still shows such a thread the old state, and it may not come in.
    b.attaches();
    EXPECT_EQ(moored::stats().states_kept, 2U);
    b.attaches();
    EXPECT_TRUE(b.keeps());
    a.reset();
    EXPECT_EQ(moored::stats().states_forgotten, 1U);
    EXPECT_EQ(moored::stats().states_over_limit, 0U);
    b.finish();
    expect_balance();
  });
}

TEST(limit, under_load_balances) {
  in_child([] {
    const python interpreter;
    run(counting_source);
    moored::set_kept_limit(4);
    constexpr int threads = 16;
    constexpr int rounds = 200;
    on_foreign_thread([] {
      std::atomic<int> next{0};
      latch all_keep(threads);
      crowd(threads, [&] {
        const int mine = next++;
        for (int round = 0; round < rounds; ++round) {
          // More than the limit are kept, and all of these threads come back.
          if (round == 1) all_keep.arrive_and_wait();
          if (mine % 4 == 3) {
            as_another_binding([] {
              (void)moored::keep_thread();
              run("call()");
            });
          } else {
            const moored::attachment attached = moored::attach();
            run("call()");
          }
          if (mine == 0 && round % 50 == 0)
            moored::set_kept_limit(static_cast<std::size_t>(3 + round % 3));
        }
      });
    });
    until_nothing_is_kept();
    EXPECT_EQ(value_of("calls"), threads * rounds);
    EXPECT_GT(moored::stats().states_over_limit, 0U);
    expect_balance();
    EXPECT_EQ(states(), 1);
  });
}

TEST(load, ten_thousand_threads_a_thousand_at_once_leave_no_state_and_no_memory) {
  in_child([] {
    const counted_python interpreter;
    run("def call(): pass");
    constexpr int batches = 10;
    constexpr int alive = 1000;
    memory_of_rounds memory;
    for (int batch = 0; batch < batches; ++batch) {
      on_foreign_thread([] {
        latch all_attached(alive);
        std::mutex door;  // a thousand that wait for the GIL wake up 200,000 times a second
        crowd(alive, [&] {
          std::unique_lock turn(door);
          const moored::attachment attached = moored::attach();
          run("call()");
          {
            const moored::detachment within;
            turn.unlock();
            all_attached.arrive_and_wait();
            turn.lock();
          }
          run("call()");
        });
      });
      memory.note_round();
    }
    EXPECT_EQ(states(), 1);
    EXPECT_EQ(moored::stats().states_made, 10000U);
    EXPECT_EQ(moored::stats().states_freed, 10000U);
    expect_balance();
    memory.expect_no_leak_of(alive);
  });
}

// 24 hours of callbacks: MOORED_TEST_ATTACHES=100000000
TEST(load, a_million_attaches_leave_no_memory) {
  const char* const wanted = std::getenv("MOORED_TEST_ATTACHES");
  const long attaches = wanted != nullptr ? std::atol(wanted) : 1'000'000;
  const auto seconds = static_cast<unsigned>(hang_seconds + attaches / 100'000);
  EXPECT_EQ(fate_of(
                [attaches] {
                  const counted_python interpreter;
                  run("def call(): pass");
                  PyObject* const call = global("call");
                  constexpr long rounds = 5;
                  on_foreign_thread([&] {
                    memory_of_rounds memory;
                    for (long round = 0; round < rounds; ++round) {
                      for (long i = 0; i < attaches / rounds; ++i) {
                        const moored::attachment attached = moored::attach();
                        Py_XDECREF(PyObject_CallNoArgs(call));
                      }
                      memory.note_round();
                    }
                    memory.expect_no_leak_of(attaches / rounds);
                  });
                  EXPECT_EQ(moored::stats().attaches,
                            static_cast<std::uint64_t>(attaches / rounds * rounds));
                  EXPECT_EQ(moored::stats().states_made, 1U);
                  EXPECT_EQ(states(), 1);
                },
                seconds),
            "exit 0");
}
