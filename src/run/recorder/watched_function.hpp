// watched_function.hpp: a function of the C library that the interpreter calls by way of ours.
#pragma once

#include <moored/detail/cpython/import_slots.hpp>

#include <atomic>

namespace moored::run::recorder {

/// The interpreter's own references alone lead to ours: nothing else in the process pays for it.
template <class Function>
class watched_function {
 public:
  constexpr watched_function(const char* name, Function* ours) noexcept
      : name_(name), ours_(ours) {}

  /// From now on the interpreter calls ours, from any thread. False where it cannot be had to, and
  /// where it did already. Attached to the main interpreter, or before Python is initialised.
  [[nodiscard]] bool watch() noexcept {
    moored::cpython::import_slots slots(name_);
    auto* const ours = reinterpret_cast<void*>(ours_);
    if (slots.why() != nullptr || slots.are(ours)) return false;
    next_.store(reinterpret_cast<Function*>(slots.target()), std::memory_order_release);
    return slots.replace(ours);
  }

  /// From now on it calls what it did before; a thread may still be in ours, or on its way there.
  /// Attached to the main interpreter.
  void unwatch() noexcept {
    moored::cpython::import_slots slots(name_);
    if (slots.why() != nullptr || !slots.are(reinterpret_cast<void*>(ours_))) return;
    (void)slots.replace(reinterpret_cast<void*>(next()));
  }

  /// What ours stands before. Any thread, in ours.
  [[nodiscard]] Function* next() const noexcept { return next_.load(std::memory_order_relaxed); }

 private:
  const char* name_;
  Function* ours_;
  std::atomic<Function*> next_{nullptr};
};

}  // namespace moored::run::recorder
