// unit/install.cpp: one cache per process that survives what a process does to it.
#include "child.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <set>

using namespace moored_test;
using moored::cache_status;

namespace {

constexpr std::size_t chunk = moored::detail::chunk_bytes;

/// These tests need a Python that has chunks, as all but 3.10 have.
class chunk_cache : public testing::Test {
 protected:
  void SetUp() override {
    if (!moored::cpython::has_data_stacks()) GTEST_SKIP() << "this Python has no data stacks";
  }
};

/// What Python itself would call.
struct arenas {
  PyObjectArenaAllocator now{};
  arenas() { PyObject_GetArenaAllocator(&now); }
  [[nodiscard]] void* allocate(std::size_t size) const { return now.alloc(now.ctx, size); }
  void free(void* block, std::size_t size) const { now.free(now.ctx, block, size); }
};

/// Callbacks as those of ctypes: each makes a state, runs Python, and frees the state.
void temporary_states(int count) {
  on_foreign_thread([count] {
    for (int i = 0; i < count; ++i) as_another_binding([] { run("pass"); });
  });
}

std::uint64_t hits_of_ten_callbacks() {
  const std::uint64_t before = moored::stats_of_chunks().hits;
  temporary_states(10);
  return moored::stats_of_chunks().hits - before;
}

/// An extension with a copy of the header, loaded as Python loads extensions.
class copy {
 public:
  explicit copy(const char* path) : library_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    EXPECT_NE(library_, nullptr) << dlerror();
  }
  [[nodiscard]] cache_status install() const {
    return static_cast<cache_status>(symbol<int()>("copy_install")());
  }
  [[nodiscard]] std::uint64_t hits() const { return symbol<unsigned long long()>("copy_hits")(); }
  void unload() { EXPECT_EQ(dlclose(std::exchange(library_, nullptr)), 0); }

 private:
  template <class Function>
  [[nodiscard]] Function* symbol(const char* name) const {
    return reinterpret_cast<Function*>(dlsym(library_, name));
  }
  void* library_;
};

}  // namespace

TEST_F(chunk_cache, serves_temporary_states_from_the_second_one_on) {
  in_child([] {
    const python interpreter;
    EXPECT_EQ(moored::install(), cache_status::installed);
    temporary_states(1);
    EXPECT_EQ(hits_of_ten_callbacks(), 10U);
    EXPECT_EQ(moored::stats_of_chunks().misses, 1U);
    EXPECT_EQ(moored::stats_of_chunks().held, 1U);
    EXPECT_EQ(moored::stats_of_chunks().bytes_held, chunk);
  });
}

TEST_F(chunk_cache, may_be_installed_before_python_starts) {
  in_child([] {
    EXPECT_EQ(moored::install(), cache_status::installed);
    const python interpreter;
    EXPECT_EQ(moored::install(), cache_status::already_installed);
    temporary_states(1);
    EXPECT_EQ(hits_of_ten_callbacks(), 10U);
  });
}

TEST_F(chunk_cache, gives_back_what_was_freed_and_passes_on_all_else) {
  in_child([] {
    const python interpreter;
    const arenas before;
    void* const foreign = before.allocate(chunk);
    ASSERT_EQ(moored::install(), cache_status::installed);
    const arenas cached;
    cached.free(foreign, chunk);  // made by the allocator below
    void* const arena = cached.allocate(1 << 20);
    ASSERT_NE(arena, nullptr);
    EXPECT_NE(arena, foreign);
    cached.free(arena, 1 << 20);
    EXPECT_EQ(moored::stats_of_chunks().held, 1U);
    EXPECT_EQ(cached.allocate(chunk), foreign);
    EXPECT_EQ(moored::stats_of_chunks().held, 0U);
  });
}

TEST_F(chunk_cache, holds_no_more_than_its_slots) {
  in_child([] {
    static int freed = 0;
    PyObjectArenaAllocator counting{nullptr,
                                    [](void*, std::size_t size) { return std::malloc(size); },
                                    [](void*, void* block, std::size_t) {
                                      ++freed;
                                      std::free(block);
                                    }};
    PyObject_SetArenaAllocator(&counting);
    ASSERT_EQ(moored::install(), cache_status::installed);
    const arenas cached;
    std::set<void*> many;
    for (int i = 0; i < 40; ++i) many.insert(cached.allocate(chunk));
    EXPECT_EQ(many.size(), 40U);
    for (void* const one : many) cached.free(one, chunk);
    EXPECT_EQ(moored::stats_of_chunks().held, 32U);
    EXPECT_EQ(freed, 8);
  });
}

TEST_F(chunk_cache, lets_no_two_threads_have_one_chunk) {
  in_child([] {
    // No interpreter, so no GIL, as CPython frees chunks from 3.13 on. It allocates attached, and
    // its own allocator (3.15) insists on that.
    PyObjectArenaAllocator plain{nullptr,
                                 [](void*, std::size_t size) { return std::calloc(1, size); },
                                 [](void*, void* block, std::size_t) { std::free(block); }};
    PyObject_SetArenaAllocator(&plain);
    ASSERT_EQ(moored::install(), cache_status::installed);
    std::atomic<int> had_by_two{0};
    std::vector<std::thread> crowd;
    for (int number = 1; number <= 4; ++number) {
      crowd.emplace_back([&had_by_two] {
        const arenas cached;
        for (int round = 0; round < 20000; ++round) {
          std::array<int*, 10> mine{};  // four times that is more than there are slots
          for (int*& one : mine) {
            one = static_cast<int*>(cached.allocate(chunk));
            if (__atomic_exchange_n(one, 1, __ATOMIC_SEQ_CST) != 0) ++had_by_two;
          }
          for (int* const one : mine) {
            __atomic_store_n(one, 0, __ATOMIC_SEQ_CST);
            cached.free(one, chunk);
          }
        }
      });
    }
    for (std::thread& one : crowd) one.join();
    EXPECT_EQ(had_by_two, 0);
    EXPECT_LE(moored::stats_of_chunks().held, 32U);
  });
}

TEST_F(chunk_cache, is_not_chained_to_itself_below_somebody_elses_allocator) {
  in_child([] {
    const python interpreter;
    ASSERT_EQ(moored::install(), cache_status::installed);
    static PyObjectArenaAllocator below;
    PyObject_GetArenaAllocator(&below);
    PyObjectArenaAllocator theirs{
        nullptr, [](void*, std::size_t size) { return below.alloc(below.ctx, size); },
        [](void*, void* block, std::size_t size) { below.free(below.ctx, block, size); }};
    PyObject_SetArenaAllocator(&theirs);
    EXPECT_EQ(moored::install(), cache_status::already_installed);
    temporary_states(1);
    EXPECT_EQ(hits_of_ten_callbacks(), 10U);
  });
}

TEST_F(chunk_cache, stands_on_an_allocator_that_needs_its_context) {
  in_child([] {
    static PyObjectArenaAllocator python_own;
    PyObject_GetArenaAllocator(&python_own);
    static int calls = 0;
    PyObjectArenaAllocator theirs{&calls,
                                  [](void* context, std::size_t size) {
                                    ++*static_cast<int*>(context);
                                    return python_own.alloc(python_own.ctx, size);
                                  },
                                  [](void* context, void* block, std::size_t size) {
                                    ++*static_cast<int*>(context);
                                    python_own.free(python_own.ctx, block, size);
                                  }};
    PyObject_SetArenaAllocator(&theirs);
    ASSERT_EQ(moored::install(), cache_status::installed);
    const python interpreter;
    temporary_states(1);
    const int before = calls;
    EXPECT_GT(before, 0);
    EXPECT_EQ(hits_of_ten_callbacks(), 10U);
    EXPECT_EQ(calls, before);
  });
}

TEST_F(chunk_cache, can_be_put_back_after_python_was_started_anew) {
  in_child([] {
    for (int life = 0; life < 3; ++life) {
      const python interpreter;
      const bool in_place = arenas().now.alloc == moored::detail::the_chunk_cache_1.allocate;
      EXPECT_EQ(moored::install(),
                in_place ? cache_status::already_installed : cache_status::installed);
      temporary_states(1);
      EXPECT_EQ(hits_of_ten_callbacks(), 10U);
      std::printf("life %d: the allocator was %s\n", life, in_place ? "kept" : "Python's own");
    }
    EXPECT_LE(moored::stats_of_chunks().held, 32U);
  });
}

TEST_F(chunk_cache, is_one_for_all_extensions_that_carry_a_copy) {
#ifdef __clang__
  GTEST_SKIP() << "clang makes no unique symbols: the copies chain, see below";
#endif
  in_child([] {
    const python interpreter;
    const copy one(COPY_ONE), two(COPY_TWO);
    EXPECT_EQ(two.install(), cache_status::installed);  // the variable is in the first
    EXPECT_EQ(one.install(), cache_status::already_installed);
    EXPECT_EQ(two.install(), cache_status::already_installed);
    temporary_states(11);
    EXPECT_EQ(one.hits(), two.hits());
    EXPECT_EQ(one.hits(), 10U);
  });
}

TEST_F(chunk_cache, outlives_the_extensions_that_installed_it) {
  in_child([] {
    const python interpreter;
    copy one(COPY_ONE), two(COPY_TWO);
    EXPECT_EQ(two.install(), cache_status::installed);
    temporary_states(2);
    two.unload();
    temporary_states(2);
    one.unload();
    temporary_states(2);
    const copy again(COPY_TWO);
    EXPECT_EQ(again.install(), cache_status::already_installed);
    EXPECT_EQ(again.hits(), 5U);
  });
}

TEST_F(chunk_cache, stays_loaded_and_chains_where_symbols_are_not_unique) {
  in_child([] {
    const python interpreter;
    copy one(COPY_NOT_UNIQUE), two(COPY_TWO);
    EXPECT_EQ(one.install(), cache_status::installed);
    one.unload();
    temporary_states(2);
    EXPECT_EQ(two.install(), cache_status::installed);
    two.unload();
    temporary_states(2);
    const copy again(COPY_NOT_UNIQUE);
    EXPECT_EQ(again.install(), cache_status::already_installed);
    temporary_states(2);
    EXPECT_GE(again.hits(), 1U);
  });
}

TEST_F(chunk_cache, goes_along_with_a_fork) {
  in_child([] {
    const python interpreter;
    ASSERT_EQ(moored::install(), cache_status::installed);
    temporary_states(2);
    run("import os, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "child = os.fork()\n");
    if (value_of("child") == 0) {
      EXPECT_EQ(moored::install(), cache_status::already_installed);
      EXPECT_EQ(hits_of_ten_callbacks(), 10U);
      _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    EXPECT_EQ(hits_of_ten_callbacks(), 10U);
    EXPECT_EQ(value_of("os.waitpid(child, 0)[1]"), 0);
  });
}

#if PY_VERSION_HEX >= 0x030C0000
TEST_F(chunk_cache, is_installed_once_by_interpreters_with_a_gil_each) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "CPython's own modules race when interpreters with a GIL each import them";
#endif
  in_child([] {
    const python interpreter;
    std::atomic<int> installed{0};
    std::atomic<int> ready{0};
    on_foreign_thread([&] {
      std::vector<std::thread> crowd;
      for (int i = 0; i < 4; ++i) {
        crowd.emplace_back([&] {
          const PyGILState_STATE token = PyGILState_Ensure();
          PyThreadState* const main = PyThreadState_Get();
          PyInterpreterConfig config{};
          config.check_multi_interp_extensions = 1;
          config.gil = PyInterpreterConfig_OWN_GIL;
          config.allow_threads = 1;
          PyThreadState* own = nullptr;
          ASSERT_FALSE(PyStatus_Exception(Py_NewInterpreterFromConfig(&own, &config)));
          ++ready;
          {
            const moored::detachment others_turn;
            while (ready < 4) std::this_thread::yield();
          }
          if (moored::install() == cache_status::installed) ++installed;
          for (int round = 0; round < 50; ++round) {
            EXPECT_EQ(PyRun_SimpleString("def deep(n): return n and deep(n - 1)\ndeep(300)"), 0);
          }
          Py_EndInterpreter(own);
          PyThreadState_Swap(main);
          PyGILState_Release(token);
        });
      }
      for (std::thread& one : crowd) one.join();
    });
    EXPECT_EQ(installed, 1);
    EXPECT_GT(hits_of_ten_callbacks(), 0U);
  });
}
#endif

#ifdef __SANITIZE_ADDRESS__
TEST_F(chunk_cache, shows_who_uses_a_chunk_after_it_was_freed) {
  EXPECT_NE(fate_of([] {
              ASSERT_EQ(moored::install(), cache_status::installed);
              const arenas cached;
              auto* const block = static_cast<volatile char*>(cached.allocate(chunk));
              cached.free(const_cast<char*>(block), chunk);
              block[100] = 1;
            }),
            "exit 0");
}
#endif

TEST(chunk_cache_without_chunks, says_that_there_is_nothing_to_gain) {
  if (moored::cpython::has_data_stacks()) GTEST_SKIP() << "this Python has data stacks";
  in_child([] {
    const python interpreter;
    const arenas before;
    EXPECT_EQ(moored::install(), cache_status::nothing_to_gain);
    EXPECT_EQ(arenas().now.alloc, before.now.alloc);
  });
}
