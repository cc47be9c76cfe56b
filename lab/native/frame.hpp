// lab/native/frame.hpp: what the load sender puts on the wire: 64 bytes, little-endian.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace moored::lab {

struct frame {
  static constexpr std::size_t size = 64;  // the rest, after the two numbers, is zero

  std::uint64_t sequence = 0;
  std::int64_t planned_ns = 0;  // when it was due, by CLOCK_MONOTONIC: both ends are on one machine

  [[nodiscard]] static frame from(std::span<const char, size> bytes) noexcept {
    frame got;
    std::memcpy(&got.sequence, bytes.data(), sizeof got.sequence);
    std::memcpy(&got.planned_ns, bytes.data() + sizeof got.sequence, sizeof got.planned_ns);
    return got;
  }

  void put(std::span<char, size> bytes) const noexcept {
    std::memset(bytes.data(), 0, size);
    std::memcpy(bytes.data(), &sequence, sizeof sequence);
    std::memcpy(bytes.data() + sizeof sequence, &planned_ns, sizeof planned_ns);
  }
};

static_assert(std::endian::native == std::endian::little, "the frame is copied as it is in memory");

}  // namespace moored::lab
