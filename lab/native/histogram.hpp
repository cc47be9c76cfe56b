// lab/native/histogram.hpp: durations in logarithmic buckets; one thread writes, any thread reads.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace moored::lab {

// A number that one thread adds to and others read. A load and a store, not a read-modify-write:
// with one writer nothing is lost, and no bus lock is paid.
class single_writer_count {
 public:
  void add(std::uint64_t n) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t read() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// 32 buckets for each power of two: a bucket is at most 1/32 of its value wide, so its middle is at
// most 1.6 % off. Values up to 31 ns are exact; the last bucket takes everything above 2^40 ns (18
// minutes).
struct buckets {
  static constexpr unsigned fine_bits = 5;
  static constexpr std::uint64_t fine = 1U << fine_bits;
  static constexpr unsigned top_bit = 40;
  static constexpr std::size_t count = (top_bit - fine_bits + 1) * fine;

  [[nodiscard]] static constexpr std::size_t index(std::uint64_t ns) noexcept {
    if (ns < fine) return static_cast<std::size_t>(ns);
    const auto octave = static_cast<unsigned>(std::bit_width(ns)) - 1 - fine_bits;
    const std::size_t at = (octave + 1) * fine + ((ns >> octave) - fine);
    return std::min(at, count - 1);
  }

  [[nodiscard]] static constexpr double middle(std::size_t at) noexcept {
    if (at < fine) return static_cast<double>(at);
    const std::size_t octave = at / fine - 1;
    const auto low = static_cast<double>((at % fine + fine) << octave);
    return low + static_cast<double>(std::uint64_t{1} << octave) / 2;
  }
};

// The promise, kept by the compiler: nowhere between 1 ns and 18 minutes is a value off by 2 %.
static_assert([] {
  for (std::uint64_t ns = 1; ns < (std::uint64_t{1} << buckets::top_bit); ns += 1 + ns / 97) {
    const double off = buckets::middle(buckets::index(ns)) - static_cast<double>(ns);
    if ((off < 0 ? -off : off) > 0.02 * static_cast<double>(ns)) return false;
  }
  return true;
}());

// What was recorded up to a moment, or between two moments: take one from the other.
class latencies {
 public:
  void add(std::size_t bucket, std::uint64_t n) noexcept { counts_[bucket] += n; }
  void add_sum(std::uint64_t ns) noexcept { sum_ns_ += ns; }

  latencies& operator-=(const latencies& earlier) noexcept {
    for (std::size_t at = 0; at < buckets::count; ++at) counts_[at] -= earlier.counts_[at];
    sum_ns_ -= earlier.sum_ns_;
    return *this;
  }

  [[nodiscard]] std::uint64_t count() const noexcept {
    std::uint64_t all = 0;
    for (const std::uint64_t n : counts_) all += n;
    return all;
  }

  [[nodiscard]] double mean_ns() const noexcept {
    const std::uint64_t all = count();
    return all == 0 ? 0 : static_cast<double>(sum_ns_) / static_cast<double>(all);
  }

  // The value that `share` (0 to 1) of the recorded ones do not exceed; 1 gives the largest.
  [[nodiscard]] double quantile_ns(double share) const noexcept {
    const double wanted = share * static_cast<double>(count());
    std::uint64_t seen = 0;
    std::size_t last = 0;
    for (std::size_t at = 0; at < buckets::count; ++at) {
      if (counts_[at] == 0) continue;
      seen += counts_[at];
      last = at;
      if (static_cast<double>(seen) >= wanted) break;
    }
    return buckets::middle(last);
  }

 private:
  std::array<std::uint64_t, buckets::count> counts_{};
  std::uint64_t sum_ns_ = 0;
};

class histogram {
 public:
  // Only by the thread that owns this histogram.
  void record(std::int64_t ns) noexcept {
    const std::uint64_t value = ns < 0 ? 0 : static_cast<std::uint64_t>(ns);
    counts_[buckets::index(value)].add(1);
    sum_ns_.add(value);
  }

  // From any thread.
  void add_to(latencies& all) const noexcept {
    for (std::size_t at = 0; at < buckets::count; ++at) all.add(at, counts_[at].read());
    all.add_sum(sum_ns_.read());
  }

 private:
  std::array<single_writer_count, buckets::count> counts_;
  single_writer_count sum_ns_;
};

}  // namespace moored::lab
