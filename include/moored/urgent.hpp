// moored/urgent.hpp: urgent attaches, which get the GIL from a busy holder in microseconds.
//
// An attach waits for a thread that runs Python until the switch interval is over: 5 ms. An urgent
// one has CPython ask that thread at once. What a busy holder may lose by it is bounded.
#pragma once

#include <cstdint>

#include "attach.hpp"
#include "detail/cpython/gil_hand_over.hpp"

MOORED_NAMESPACE_BEGIN

/// By what an urgent attach gets the GIL.
enum class urgent_means : std::uint8_t {
  none,       ///< By nothing: it is an ordinary attach.
  hand_over,  ///< A pending call in which main lets go. From CPython 3.13 on; main alone is asked.
  request,    ///< The wait for the GIL itself asks, whichever thread holds it.
};

struct urgent_support {
  urgent_means by = urgent_means::none;
  const char* why = nullptr;  ///< Why not by `request`: a sentence, or null. Of static storage.
};

/// Prepares urgent attaches, for the whole process and for good: redirects the interpreter's own
/// reference to pthread_cond_timedwait. Preparing again is preparing once. Attached to the main
/// interpreter; in a subinterpreter nothing is changed.
inline urgent_support install(urgent_t) noexcept {
  if (!detail::is_attached_to_main(detail::this_thread))
    return {urgent_means::none, "it is called in a subinterpreter, or without the GIL"};
  const char* const why = cpython::the_gil_requests.install();
  if (why == nullptr) return {urgent_means::request, nullptr};
  return {cpython::gil_hand_over::prepare() ? urgent_means::hand_over : urgent_means::none, why};
}

/// By what try_attach(urgent) would get the GIL now. Any thread, attached or not.
[[nodiscard]] inline urgent_means means(urgent_t) noexcept {
  if (cpython::the_gil_requests.is_installed()) return urgent_means::request;
  return cpython::gil_hand_over::is_prepared() ? urgent_means::hand_over : urgent_means::none;
}

/// How much of its time a busy holder may lose to urgent attaches, from 0 to 1; 0.1 at first. An
/// attach that would exceed it waits as any other. Any thread.
inline void set_urgent_budget(double share) noexcept {
  cpython::the_gil_requests.budget.set_share(share);
}

/// keep_thread(), and from now on every wait of this thread for the GIL asks at once, through
/// whatever binding, until the thread ends. Needs `request`; without it only the state is kept.
inline bool keep_thread(urgent_t) {
  cpython::be_urgent();
  return keep_thread();
}

/// try_attach() that asks a busy holder of the GIL to let go at once, by what install(urgent) has
/// prepared. Without it an ordinary attach. Any thread, with or without the GIL.
inline attachment try_attach(urgent_t) noexcept {
  switch (means(urgent)) {
    case urgent_means::none:
      return try_attach();
    case urgent_means::hand_over: {
      const cpython::gil_hand_over asked;
      return try_attach();
    }
    case urgent_means::request:
      break;
  }
  const cpython::urgent_scope wish;
  attachment attached = try_attach();
  detail::beginning& begun = attached.begun_;
  if (begun.how == attachment::undo::save && begun.counted_in &&
      cpython::this_threads_wish.asked_at != 0) {
    begun.seated = nullptr;
    begun.how = attachment::undo::save_and_pay;
  }
  return attached;
}

MOORED_NAMESPACE_END
