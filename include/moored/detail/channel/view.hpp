// moored/detail/channel/view.hpp: events that lie in a row: std::span, which C++17 does not have.
#pragma once

#include <cstddef>
#if __cplusplus >= 202002L
#include <span>
#endif

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN

/// What a native handler is given: `size()` events from `begin()` on. In C++20 it is made from, and
/// becomes, a std::span.
template <class T>
class view {
 public:
  constexpr view() noexcept = default;
  constexpr view(T* first, std::size_t size) noexcept : first_(first), size_(size) {}

  [[nodiscard]] constexpr T* begin() const noexcept { return first_; }
  [[nodiscard]] constexpr T* end() const noexcept { return first_ + size_; }
  [[nodiscard]] constexpr T* data() const noexcept { return first_; }
  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] constexpr T& operator[](std::size_t index) const noexcept { return first_[index]; }
  [[nodiscard]] constexpr T& front() const noexcept { return *first_; }
  [[nodiscard]] constexpr T& back() const noexcept { return first_[size_ - 1]; }

#if __cplusplus >= 202002L
  constexpr operator std::span<T>() const noexcept {
    return {first_, size_};
  }
#endif

 private:
  T* first_ = nullptr;
  std::size_t size_ = 0;
};

MOORED_NAMESPACE_END
