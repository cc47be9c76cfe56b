// moored/moored_c.cpp: moored.h over the C++ library. Compile this one file into your program, and
// link that as C++ (setuptools: language="c++").
#if !defined(__cplusplus) || __cplusplus < 201703L
#error "moored_c.cpp needs C++17: compile it with -std=c++17 (setuptools: extra_compile_args)"
#elif !defined(__cpp_exceptions)
#error "moored_c.cpp needs C++ exceptions: compile it without -fno-exceptions"
#elif defined(Py_LIMITED_API)
#error "moored_c.cpp needs all of CPython's API: compile it without Py_LIMITED_API, for each Python"
#else  // The rest of the file, so that there is one error and not pages of them.

#include <moored/moored.h>
#include <moored/moored.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <system_error>
#include <type_traits>

namespace {

static_assert(sizeof(moored::attachment) <= sizeof(moored_attachment));
static_assert(alignof(moored::attachment) <= alignof(moored_attachment));
static_assert(static_cast<int>(moored::refusal::no_memory) == MOORED_NO_MEMORY &&
              static_cast<int>(moored::refusal::none) == MOORED_OK);
static_assert(static_cast<int>(moored::strategy::borrowed) == MOORED_BORROWED);

static_assert(static_cast<int>(moored::overflow::drop_newest) == MOORED_DROP_NEWEST);
static_assert(static_cast<int>(moored::delivery::adaptive) == MOORED_ADAPTIVE);

moored_status status_of(moored::sent came) noexcept {
  switch (came) {
    case moored::sent::queued:
      return MOORED_OK;
    case moored::sent::dropped:
      return MOORED_DROPPED;
    case moored::sent::rejected:
      return MOORED_FULL;
    case moored::sent::closed:
      return MOORED_CLOSED;
    case moored::sent::no_memory:
      return MOORED_NO_MEMORY;
  }
  return MOORED_BAD_ARGUMENT;
}

bool is_delivery(int how) noexcept {
  return how >= MOORED_POLL && how <= MOORED_ADAPTIVE;
}

/// The C struct of the same members in the same order.
template <class Outside, class Inside>
Outside in_c(const Inside& stats) noexcept {
  static_assert(sizeof(Outside) == sizeof(Inside) && std::is_trivially_copyable_v<Inside>);
  Outside same{};
  std::memcpy(&same, &stats, sizeof same);
  return same;
}

moored::attachment* inside(moored_attachment* outside) noexcept {
  return std::launder(reinterpret_cast<moored::attachment*>(outside->opaque));
}

/// The attachments that this thread has begun by moored_attach() and not ended, the outermost ones.
/// A second attach into one of them would forget what the first has to undo. Without a destructor,
/// so that destructors of other thread_locals may attach.
class live_list {
 public:
  [[nodiscard]] bool has(const moored_attachment* one) const noexcept {
    return std::find(all_, all_ + count_, one) != all_ + count_;
  }
  void add(const moored_attachment* one) noexcept {
    if (count_ < most) all_[count_++] = one;
  }
  void remove(const moored_attachment* one) noexcept {
    count_ = static_cast<std::size_t>(std::remove(all_, all_ + count_, one) - all_);
  }

 private:
  static constexpr std::size_t most = 16;
  const moored_attachment* all_[most]{};
  std::size_t count_ = 0;
};
thread_local live_list this_threads_live;

}  // namespace

struct moored_channel {
  moored::channel<moored::bytes> events;
};

namespace {

moored_status send(moored_channel* channel, const void* data, std::size_t size,
                   bool may_wait) noexcept {
  if (channel == nullptr || (data == nullptr && size != 0)) return MOORED_BAD_ARGUMENT;
  if (size > PTRDIFF_MAX) return MOORED_NO_MEMORY;  // no object is as large as that
  try {
    const auto* const first = static_cast<const std::byte*>(data);
    moored::bytes copy(first, first + size);
    return status_of(may_wait ? channel->events.send(std::move(copy))
                              : channel->events.try_send(std::move(copy)));
  } catch (const std::bad_alloc&) {
    return MOORED_NO_MEMORY;
  }
}

/// Fills `attachment`, unless it is live, with what `try_it` gives.
template <class Attach>
moored_status fill(moored_attachment* attachment, Attach try_it) {
  if (attachment == nullptr) return MOORED_BAD_ARGUMENT;
  if (this_threads_live.has(attachment)) return MOORED_ATTACHED_ALREADY;
  auto* const attached = new (attachment->opaque) moored::attachment;
  *attached = try_it();
  if (*attached) this_threads_live.add(attachment);
  return static_cast<moored_status>(attached->why());
}

}  // namespace

extern "C" {

moored_status moored_channel_new(moored_channel** channel, const char* name, size_t capacity,
                                 int overflow, int delivery) {
  if (channel == nullptr || name == nullptr || capacity == 0 || !is_delivery(delivery) ||
      overflow < MOORED_BLOCK || overflow > MOORED_DROP_NEWEST)
    return MOORED_BAD_ARGUMENT;
  *channel = nullptr;
  try {
    moored::channel_options options;
    options.name = name;
    options.capacity = capacity;
    options.when_full = static_cast<moored::overflow>(overflow);
    options.by = static_cast<moored::delivery>(delivery);
    *channel = new moored_channel{moored::channel<moored::bytes>(std::move(options))};
    return MOORED_OK;
  } catch (const moored::unsupported&) {
    return MOORED_UNSUPPORTED;
  } catch (const std::system_error&) {
    return MOORED_NO_DESCRIPTORS;
  } catch (const std::bad_alloc&) {
    return MOORED_NO_MEMORY;
  }
}

void moored_channel_free(moored_channel* channel) {
  delete channel;
}

moored_status moored_channel_send(moored_channel* channel, const void* bytes, size_t size) {
  return send(channel, bytes, size, true);
}

moored_status moored_channel_try_send(moored_channel* channel, const void* bytes, size_t size) {
  return send(channel, bytes, size, false);
}

void moored_channel_close(moored_channel* channel) {
  if (channel != nullptr) channel->events.close();
}

moored_status moored_channel_deliver_by(moored_channel* channel, int delivery) {
  if (channel == nullptr || !is_delivery(delivery)) return MOORED_BAD_ARGUMENT;
  try {
    channel->events.deliver_by(static_cast<moored::delivery>(delivery));
    return MOORED_OK;
  } catch (const moored::unsupported&) {
    return MOORED_UNSUPPORTED;
  }
}

moored_status moored_channel_on_event(moored_channel* channel, moored_channel_handler handler,
                                      void* context) {
  if (channel == nullptr) return MOORED_BAD_ARGUMENT;
  try {
    if (handler == nullptr) {
      channel->events.on_batch(std::function<void(moored::view<moored::bytes>)>());
    } else {
      channel->events.on_batch([handler, context](moored::view<moored::bytes> batch) {
        for (const moored::bytes& event : batch) {
          handler(context, event.data(), event.size());
          if (PyErr_Occurred() != nullptr) PyErr_WriteUnraisable(nullptr);
        }
      });
    }
    return MOORED_OK;
  } catch (const std::bad_alloc&) {
    return MOORED_NO_MEMORY;
  }
}

void* moored_channel_capsule(moored_channel* channel) {
  if (channel != nullptr) return channel->events.capsule();
  PyErr_SetString(PyExc_ValueError, "the channel is null");
  return nullptr;
}

int moored_channel_fileno(moored_channel* channel) {
  return channel == nullptr ? -1 : channel->events.told_by().fd();
}

int moored_channel_deliver(moored_channel* channel) {
  if (channel == nullptr) return 0;
  channel->events.told_by().acknowledge();
  return channel->events.deliver() ? 1 : 0;
}

moored_channel_stats moored_stats_of_channel(const moored_channel* channel) {
  if (channel == nullptr) return {};
  return in_c<moored_channel_stats>(channel->events.stats());
}

moored_status moored_attach_by(moored_attachment* attachment, int how) {
  if (attachment != nullptr && (how < MOORED_TEMPORARY || how > MOORED_BORROWED)) {
    if (this_threads_live.has(attachment)) return MOORED_ATTACHED_ALREADY;
    new (attachment->opaque) moored::attachment;  // it bears a moored_detach
    return MOORED_BAD_ARGUMENT;
  }
  return fill(attachment, [how] { return moored::try_attach(static_cast<moored::strategy>(how)); });
}

moored_status moored_attach_urgent(moored_attachment* attachment) {
  return fill(attachment, [] { return moored::try_attach(moored::urgent); });
}

moored_status moored_attach(moored_attachment* attachment) {
  return moored_attach_by(attachment, MOORED_KEPT);
}

void moored_detach(moored_attachment* attachment) {
  if (attachment == nullptr) return;
  this_threads_live.remove(attachment);
  inside(attachment)->end();
}

moored_status moored_keep_thread() {
  if (moored::keep_thread()) return MOORED_OK;
  const moored::attachment attached = moored::try_attach();
  return attached ? MOORED_NOT_KEPT : static_cast<moored_status>(attached.why());
}

void moored_release_thread() {
  moored::release_thread();
}

moored_status moored_open() {
  return moored::open() ? MOORED_OK : MOORED_NO_MEMORY;
}

void moored_set_closing_bound(int64_t milliseconds) {
  moored::set_closing_bound(std::chrono::milliseconds(milliseconds));
}

void moored_set_kept_limit(size_t limit) {
  moored::set_kept_limit(limit);
}

moored_state_stats moored_stats() {
  return in_c<moored_state_stats>(moored::stats());
}

moored_status moored_install() {
  return moored::install() == moored::cache_status::nothing_to_gain ? MOORED_NOTHING_TO_GAIN
                                                                    : MOORED_OK;
}

moored_status moored_install_urgent(const char** why) {
  const moored::urgent_support support = moored::install(moored::urgent);
  if (why != nullptr) *why = support.why;
  return support.by == moored::urgent_means::request ? MOORED_OK : MOORED_UNSUPPORTED;
}

void moored_set_urgent_budget(double share) {
  moored::set_urgent_budget(share);
}

moored_chunk_stats moored_stats_of_chunks() {
  return in_c<moored_chunk_stats>(moored::stats_of_chunks());
}

const char* moored_describe(moored_status status) {
  if (status == MOORED_BAD_ARGUMENT) return "a null pointer, or a strategy that does not exist";
  if (status == MOORED_ATTACHED_ALREADY) return "this attachment is live already";
  if (status == MOORED_NOT_KEPT) return "the state of this thread cannot be kept here";
  if (status == MOORED_NOTHING_TO_GAIN) return "this Python maps no chunks: nothing to gain";
  if (status == MOORED_FULL) return "the channel is full";
  if (status == MOORED_DROPPED) return "the channel was full, and dropped the event";
  if (status == MOORED_CLOSED) return "the channel is closed";
  if (status == MOORED_NO_DESCRIPTORS) return "the process has no file descriptors left";
  return moored::describe(static_cast<moored::refusal>(status));
}

}  // extern "C"

#endif
