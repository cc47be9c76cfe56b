// moored/detail/channel/ring.hpp: a queue that grows up to what was needed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "view.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Not std::deque, which allocates and frees as events pass through, and not a vector, which cannot
/// drop its oldest. Memory is taken as the queue grows and kept for the next events. The caller
/// locks.
template <class T>
class ring {
 public:
  ring() noexcept = default;
  ring(const ring&) = delete;
  ring& operator=(const ring&) = delete;
  ~ring() {
    clear();
    if (slots_ != nullptr) memory().deallocate(slots_, room_);
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  /// So many it holds without more memory.
  [[nodiscard]] std::size_t room() const noexcept { return room_; }

  /// Throws std::bad_alloc, and has then changed nothing.
  void reserve(std::size_t count) {
    while (room_ < count) grow();
  }

  /// The oldest that lie in a row; empty only if the ring is.
  [[nodiscard]] view<T> front() noexcept {
    return {slots_ + head_, std::min(size_, room_ - head_)};
  }
  void drop_front(std::size_t count) noexcept {
    while (count-- != 0) drop();
  }

  /// Throws std::bad_alloc, and has then changed nothing.
  void push(T&& value) {
    if (MOORED_UNLIKELY(size_ == room_)) grow();
    ::new (static_cast<void*>(slots_ + index(size_))) T(std::move(value));
    ++size_;
  }

  /// The oldest; there must be one.
  [[nodiscard]] T pop() noexcept {
    T* const oldest = slots_ + head_;
    T value = std::move(*oldest);
    drop();
    return value;
  }

  void drop() noexcept {
    std::destroy_at(slots_ + head_);
    head_ = (head_ + 1) & (room_ - 1);
    --size_;
  }

  void clear() noexcept {
    while (!empty()) drop();
    head_ = 0;
  }

  /// Leaves them where they are, for ever.
  void forget() noexcept {
    slots_ = nullptr;
    room_ = head_ = size_ = 0;
  }

  friend void swap(ring& a, ring& b) noexcept {
    std::swap(a.slots_, b.slots_);
    std::swap(a.room_, b.room_);
    std::swap(a.head_, b.head_);
    std::swap(a.size_, b.size_);
  }

 private:
  [[nodiscard]] static std::allocator<T> memory() noexcept { return {}; }
  [[nodiscard]] std::size_t index(std::size_t number) const noexcept {
    return (head_ + number) & (room_ - 1);
  }

  void grow() {
    const std::size_t room = std::max<std::size_t>(16, room_ * 2);
    T* const slots = memory().allocate(room);
    for (std::size_t number = 0; number < size_; ++number) {
      T* const old = slots_ + index(number);
      ::new (static_cast<void*>(slots + number)) T(std::move(*old));
      std::destroy_at(old);
    }
    if (slots_ != nullptr) memory().deallocate(slots_, room_);
    slots_ = slots;
    room_ = room;
    head_ = 0;
  }

  T* slots_ = nullptr;
  std::size_t room_ = 0;  // a power of two, or nothing
  std::size_t head_ = 0;
  std::size_t size_ = 0;
};

}  // namespace detail
MOORED_NAMESPACE_END
