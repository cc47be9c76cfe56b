// ending_threads: a library that knows nothing of Python, whose threads call a function pointer and
// end in all the ways in which threads end. Used through ctypes, with the GIL held or not.
#include <pthread.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace {

using callback = void (*)();

enum ends { returns, exits, is_cancelled };
enum joins { plainly, timed, by_clock, by_trying, by_c11 };

std::atomic<callback> called_at_the_end{nullptr};
std::atomic<int> went_by{0};
std::atomic<int> released{0};
std::vector<pthread_t> threads;
std::mutex gone_mutex;
std::condition_variable gone_changed;
int gone = 0;

/// Its destructor runs when the thread's own code is over.
struct last_words {
  void arm() const {}
  ~last_words() {
    if (const callback call = called_at_the_end) call();
  }
};
thread_local last_words of_this_thread;

struct work {
  callback call;
  int calls;
  ends end;
};

void* body(void* given) {
  const work mine = *static_cast<work*>(given);
  delete static_cast<work*>(given);
  of_this_thread.arm();
  for (int at = 0; at < mine.calls; ++at) mine.call();
  ++went_by;
  while (released == 0) usleep(50);
  if (mine.end == exits) pthread_exit(reinterpret_cast<void*>(7));
  while (mine.end == is_cancelled) pause();
  return reinterpret_cast<void*>(7);
}

int c11_body(void* given) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(body(given)));
}

timespec in_a_minute(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  now.tv_sec += 60;
  return now;
}

int join(pthread_t thread, int way, void** result) {
  const timespec realtime = in_a_minute(CLOCK_REALTIME), monotonic = in_a_minute(CLOCK_MONOTONIC);
  int failed = 0, value = 0;
  switch (way) {
    case timed:
      return pthread_timedjoin_np(thread, result, &realtime);
    case by_clock:
      return pthread_clockjoin_np(thread, result, CLOCK_MONOTONIC, &monotonic);
    case by_trying:
      while ((failed = pthread_tryjoin_np(thread, result)) == EBUSY) usleep(50);
      return failed;
    case by_c11:
      failed = thrd_join(thread, &value);
      *result = reinterpret_cast<void*>(static_cast<std::intptr_t>(value));
      return failed == thrd_success ? 0 : -1;
    default:
      return pthread_join(thread, result);
  }
}

void say_gone() {
  const std::lock_guard lock(gone_mutex);
  ++gone;
  gone_changed.notify_all();
}

}  // namespace

extern "C" {

/// Starts threads that call `calls` times each and then wait for release().
int start(callback call, int count, int calls, int end, int c11) {
  released = 0;
  for (int at = 0; at < count; ++at) {
    pthread_t thread{};
    auto* const mine = new work{call, calls, static_cast<ends>(end)};
    const int failed = c11 != 0 ? thrd_create(&thread, c11_body, mine)
                                : pthread_create(&thread, nullptr, body, mine);
    if (failed != 0) {
      delete mine;
      return at;
    }
    threads.push_back(thread);
  }
  return count;
}

/// How many have made their calls.
int passed() {
  return went_by;
}
void release() {
  released = 1;
}
void call_at_the_end(callback call) {
  called_at_the_end = call;
}

/// Lets the threads end, and joins them. How many gave back what they ought to.
int join_all(int way, int cancels) {
  released = 1;
  int right = 0;
  for (const pthread_t thread : threads) {
    if (cancels != 0) pthread_cancel(thread);
    void* result = nullptr;
    if (join(thread, way, &result) != 0) continue;
    if (result == (cancels != 0 ? PTHREAD_CANCELED : reinterpret_cast<void*>(7))) ++right;
  }
  threads.clear();
  went_by = 0;
  return right;
}

/// The same by another thread, which is joined: a chain.
int join_through_another(int way) {
  int right = 0;
  std::thread([&] { right = join_all(way, 0); }).join();
  return right;
}
/// The same by one thread for each.
int join_by_crowd() {
  released = 1;
  std::vector<std::thread> crowd;
  std::atomic<int> right = 0;
  for (const pthread_t thread : threads)
    crowd.emplace_back([&right, thread] {
      if (pthread_join(thread, nullptr) == 0) ++right;
    });
  for (std::thread& one : crowd) one.join();
  threads.clear();
  went_by = 0;
  return right;
}

/// A thread that calls, and is known to be gone by a condition that is signalled when its pthread
/// keys are destroyed; returns then.
void wait_by_condition(callback call) {
  static pthread_key_t key = [] {
    pthread_key_t made{};
    pthread_key_create(&made, [](void*) { say_gone(); });
    return made;
  }();
  const int before = gone;
  std::thread([call] {
    pthread_setspecific(key, &key);
    call();
  }).detach();
  std::unique_lock lock(gone_mutex);
  gone_changed.wait(lock, [before] { return gone != before; });
}

/// A thread that is cancelled while it joins one that never ends: whether that was its end.
int cancel_a_joiner() {
  pthread_t endless{}, joiner{};
  static std::atomic<int> may_end{0};
  may_end = 0;
  pthread_create(
      &endless, nullptr,
      [](void*) -> void* {
        while (may_end == 0) usleep(50);
        return nullptr;
      },
      nullptr);
  pthread_create(
      &joiner, nullptr,
      [](void* other) -> void* {
        pthread_join(*static_cast<pthread_t*>(other), nullptr);
        return nullptr;
      },
      &endless);
  pthread_cancel(joiner);
  void* result = nullptr;
  pthread_join(joiner, &result);
  may_end = 1;
  pthread_join(endless, nullptr);
  return result == PTHREAD_CANCELED;
}

}  // extern "C"
