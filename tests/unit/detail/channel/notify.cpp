// unit/detail/channel/notify.cpp: several consumers on one channel each hear of events and of the
// close; a fork's child has descriptors of its own.
#include "child.hpp"
#include "options.hpp"

#include <csignal>
#include <cstring>
#include <filesystem>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/time.h>

using moored::channel;
using moored::channel_capsule;
using moored::delivery;
using moored::sent;
using namespace moored_test;
using namespace std::chrono_literals;

namespace {

bool is_readable(int fd) {
  pollfd one{fd, POLLIN, 0};
  return poll(&one, 1, 0) == 1 && (one.revents & POLLIN) != 0;
}

std::ptrdiff_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

/// The table of a channel's capsule. Made and ended attached.
class face {
 public:
  template <class T>
  explicit face(channel<T>& of)
      : capsule_(moored::reference::steal(of.capsule())),
        table_(static_cast<channel_capsule*>(
            PyCapsule_GetPointer(capsule_.get(), moored::channel_capsule_name))) {}
  const channel_capsule* operator->() const { return table_; }
  [[nodiscard]] void* channel_itself() const { return table_->channel; }
  [[nodiscard]] int subscribe() const { return table_->subscribe(table_->channel); }
  void acknowledge(int fd) const { table_->acknowledge_own(table_->channel, fd); }
  void unsubscribe(int fd) const { table_->unsubscribe(table_->channel, fd); }

 private:
  moored::reference capsule_;
  channel_capsule* table_;
};

TEST(consumers, each_hears_of_every_event_after_it_acknowledged_and_of_the_close) {
  in_child([] {
    const python interpreter;
    channel<int> events;
    const face table(events);
    const int one = table.subscribe();
    const int other = table.subscribe();
    EXPECT_FALSE(is_readable(one));
    events.send(1);
    EXPECT_TRUE(is_readable(one) && is_readable(other));
    table.acknowledge(one);
    EXPECT_FALSE(is_readable(one));
    EXPECT_TRUE(is_readable(other)) << "it has not acknowledged";
    events.send(2);
    EXPECT_TRUE(is_readable(one)) << "the queue was not empty, but it had acknowledged";
    table.acknowledge(one);
    table.acknowledge(other);
    EXPECT_EQ(events.take_native().size(), 2U);
    events.send(3);
    EXPECT_TRUE(is_readable(one) && is_readable(other));
    table.acknowledge(one);
    events.close();
    EXPECT_TRUE(is_readable(one) && is_readable(other));
    EXPECT_TRUE(is_readable(table.subscribe())) << "it comes late";
  });
}

TEST(consumers, hear_of_events_whatever_the_delivery_to_the_handler) {
  for (const delivery how : {delivery::poll, delivery::wake, delivery::enter, delivery::adaptive}) {
    in_child([how] {
      const python interpreter;
      channel<int> events(options(how));
      events.on_batch([](moored::view<int>) {});
      const face table(events);
      const int mine = table.subscribe();
      for (int round = 0; round < 3; ++round) {
        on_foreign_thread([&] { events.send(1); });
        EXPECT_TRUE(is_readable(mine)) << moored::name(how);
        table.acknowledge(mine);
      }
    });
  }
}

TEST(consumers, give_their_descriptors_back) {
  in_child([] {
    const python interpreter;
    const std::ptrdiff_t before = open_descriptors();
    {
      channel<int> events;
      const face table(events);
      for (int round = 0; round < 50; ++round) table.unsubscribe(table.subscribe());
      EXPECT_EQ(open_descriptors(), before + 1) << "the channel's own";
      EXPECT_GE(table.subscribe(), 0);
    }
    EXPECT_EQ(open_descriptors(), before);
  });
}

TEST(consumers, leave_descriptors_alone_that_are_none_of_the_channels) {
  in_child([] {
    const python interpreter;
    channel<int> events;
    channel<int> others;
    const face table(events);
    others.send(1);
    const int not_mine = others.told_by().fd();
    table.acknowledge(not_mine);
    table.unsubscribe(not_mine);
    table.acknowledge(-1);
    EXPECT_TRUE(is_readable(not_mine));
  });
}

TEST(consumers, of_all_kinds_miss_nothing_under_load) {
  in_child([] {
    const python interpreter;
    channel<int> events(options(16));
    const face table(events);
    constexpr int senders = 3, each = 2000;
    std::atomic<int> taken = 0;
    std::vector<int> descriptors{table.subscribe(), table.subscribe()};
    const moored::detachment detached;
    std::vector<std::thread> threads;
    for (const int mine : descriptors) {
      threads.emplace_back([&, mine] {
        for (;;) {
          pollfd one{mine, POLLIN, 0};
          poll(&one, 1, -1);
          table.acknowledge(mine);
          const bool closed = events.closed();
          taken += static_cast<int>(events.take_native().size());
          if (closed) return;
        }
      });
    }
    for (int plain = 0; plain < 2; ++plain) {
      threads.emplace_back([&] {
        for (;;) {
          events.wait();
          const bool closed = events.closed();
          taken += static_cast<int>(events.take_native(3).size());
          if (closed && events.stats().depth == 0) return;
        }
      });
    }
    std::vector<std::thread> sending;
    for (int sender = 0; sender < senders; ++sender) {
      sending.emplace_back([&] {
        for (int number = 0; number < each; ++number) events.send(number);
      });
    }
    for (std::thread& thread : sending) thread.join();
    events.close();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(taken, senders * each);
    expect_balance(events.stats());
  });
}

TEST(consumers, that_sleep_are_all_woken_by_an_event_that_one_of_them_does_not_take) {
  in_child([] {
    const python interpreter;
    const moored::detachment detached;
    channel<int> events;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread)
      threads.emplace_back([&] { EXPECT_TRUE(events.wait()); });  // and takes nothing
    events.send(1);
    for (std::thread& thread : threads) thread.join();
  });
}

TEST(consumers, that_sleep_look_after_signals_and_sleep_on) {
  in_child([] {
    Py_InitializeEx(1);
    run("import signal\nhandled = []\n"
        "signal.signal(signal.SIGALRM, lambda *_: handled.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n");
    channel<int> events;
    const face table(events);
    std::thread sender([&] {
      const auto enough = [] {
        const moored::attachment attached = moored::try_attach();
        return value_of("len(handled)") >= 3;
      };
      while (!enough()) std::this_thread::yield();
      events.send(1);
    });
    EXPECT_EQ(table->wait(table.channel_itself(), -1), 1);
    run("signal.setitimer(signal.ITIMER_REAL, 0)\n");
    const moored::detachment detached;
    sender.join();
  });
}

TEST(consumers, in_the_child_of_a_fork_are_told_of_the_close_and_leave_the_parents_alone) {
  in_child([] {
    const python interpreter;
    channel<int> events;
    const face table(events);
    const int mine = table.subscribe();
    const int own = events.told_by().fd();
    const int loop = epoll_create1(0);
    for (const int fd : {mine, own}) {
      epoll_event watched{};
      watched.events = EPOLLIN;
      ASSERT_EQ(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &watched), 0);
    }
    events.send(1);
    EXPECT_EQ(fate_of([&] {
                EXPECT_TRUE(is_readable(mine) && is_readable(own));
                EXPECT_TRUE(events.closed());
                table.acknowledge(mine);
                events.told_by().acknowledge();
                EXPECT_FALSE(is_readable(mine) || is_readable(own));
                // What a loop does that lets its reader go.
                EXPECT_EQ(epoll_ctl(loop, EPOLL_CTL_DEL, mine, nullptr), -1);
                EXPECT_EQ(epoll_ctl(loop, EPOLL_CTL_DEL, own, nullptr), -1);
                table.unsubscribe(mine);
                events.close();
              }),
              "exit 0");
    EXPECT_TRUE(is_readable(mine) && is_readable(own));
    std::array<epoll_event, 4> ready{};
    EXPECT_EQ(epoll_wait(loop, ready.data(), 4, 0), 2) << "the parent's loop watches both";
    table.acknowledge(mine);
    EXPECT_FALSE(is_readable(mine));
    events.send(2);
    EXPECT_TRUE(is_readable(mine));
  });
}

/// An event whose end is counted.
struct counted_event {
  std::atomic<int>* ended = nullptr;
  counted_event() = default;
  explicit counted_event(std::atomic<int>* by) : ended(by) {}
  counted_event(counted_event&& other) noexcept : ended(std::exchange(other.ended, nullptr)) {}
  counted_event& operator=(counted_event&&) = delete;
  ~counted_event() {
    if (ended != nullptr) ++*ended;
  }
};

TEST(consumers, in_the_child_of_a_fork_nothing_of_the_parents_is_destroyed) {
  in_child([] {
    const python interpreter;
    std::atomic<int> ended = 0;
    channel<counted_event> events;
    for (int number = 0; number < 3; ++number) events.send(counted_event(&ended));
    EXPECT_EQ(fate_of([&] {
                EXPECT_EQ(ended, 0);
                EXPECT_EQ(events.stats().undelivered, 3U);
                EXPECT_TRUE(events.take_native().empty());
                EXPECT_EQ(ended, 0);
                expect_balance(events.stats());
              }),
              "exit 0");
    EXPECT_EQ(events.take_native().size(), 3U);
    EXPECT_EQ(ended, 3);
  });
}

TEST(consumers, of_a_channel_that_is_made_after_python_find_it_closed) {
  in_child([] {
    {
      const python interpreter;
      EXPECT_TRUE(moored::open());
    }
    channel<int> late(options(1));
    EXPECT_EQ(late.send(1), sent::closed);
    EXPECT_TRUE(late.wait());
    EXPECT_TRUE(is_readable(late.told_by().fd()));
    {
      const python again;
      channel<int> events;
      EXPECT_EQ(events.send(1), sent::queued);
      EXPECT_EQ(events.take_native().size(), 1U);
    }
  });
}

TEST(consumers, find_nothing_again_that_was_counted_as_undelivered) {
  in_child([] {
    const python interpreter;
    static PyMemAllocatorEx below{};
    static bool fails = false;
    PyMem_GetAllocator(PYMEM_DOMAIN_MEM, &below);
    PyMemAllocatorEx mine = below;
    mine.calloc = [](void* context, std::size_t count, std::size_t size) -> void* {
      return fails ? nullptr : below.calloc(context, count, size);
    };
    mine.malloc = [](void* context, std::size_t size) -> void* {
      return fails ? nullptr : below.malloc(context, size);
    };
    PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &mine);
    channel<int> events(options(delivery::poll));
    for (int number = 0; number < 50; ++number) events.send(number);
    fails = true;
    PyObject* const none = events.take();
    fails = false;
    EXPECT_EQ(none, nullptr);
    PyErr_Clear();
    events.send(50);
    for (const Py_ssize_t expected : {1, 0}) {
      const auto list = moored::reference::steal(events.take());
      EXPECT_EQ(PyList_Size(list.get()), expected);
    }
    EXPECT_EQ(events.stats().undelivered, 50U);
    expect_balance(events.stats());
    PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &below);
  });
}

}  // namespace
