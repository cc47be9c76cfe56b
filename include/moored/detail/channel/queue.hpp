// moored/detail/channel/queue.hpp: what is queued in a channel, and the memory for it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "ring.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// The events that are queued, in order, and the memory of the batch before, which the next one
/// uses. The caller locks; a batch is destroyed without the lock.
template <class T>
class queue {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return events_.size(); }

  /// False without memory; nothing has changed then.
  [[nodiscard]] bool push(T&& value) noexcept {
    try {
      events_.push(std::move(value));
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }
  /// The oldest; there must be one.
  [[nodiscard]] T pop() noexcept { return events_.pop(); }

  /// From now on there is room for so many. Throws std::bad_alloc.
  void reserve(std::size_t events) {
    events_.reserve(events);
    spare_.reserve(events);
    reserved_ = std::max(reserved_, events);
  }

  /// Moves at most `limit` events to `batch`, which is empty. Throws std::bad_alloc, and has then
  /// taken nothing.
  void take(ring<T>& batch, std::size_t limit) {
    const std::size_t count = std::min(limit, size());
    if (count == size() && spare_.room() >= reserved_) {
      swap(batch, spare_);
      return swap(batch, events_);
    }
    if (spare_.room() < count)
      batch.reserve(count);
    else
      swap(batch, spare_);
    while (batch.size() < count) batch.push(events_.pop());
  }
  /// Moves all events to `batch`, which is empty, with its memory.
  void take_all(ring<T>& batch) noexcept { swap(batch, events_); }
  /// The memory of a batch, which is empty, is for the next one.
  void give_back(ring<T>& batch) noexcept {
    if (spare_.room() < batch.room()) swap(spare_, batch);
  }

  /// In the child of a fork: the events are the parent's, and are not destroyed.
  void forget() noexcept { events_.forget(); }

 private:
  ring<T> events_;
  ring<T> spare_;             // empty
  std::size_t reserved_ = 0;  // so many events there is always room for
};

}  // namespace detail
MOORED_NAMESPACE_END
