// moored/detail/channel/ending.hpp: the end of Python, and forks, for one channel.
#pragma once

#include <cstddef>

#include "core.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

inline void channel_core::farewell(deadline& due) noexcept {
  close();
  bool mine = false;
  {
    const detachment others_turn;  // the runner may be waiting for the GIL
    const auto take_turn = [&] {
      const locked lock(mutex_);
      if (runner_.is_here()) return true;  // the end comes from within the handler
      if (runner_.is_running()) return false;
      runner_.take();
      return mine = true;
    };
    look_until(take_turn, due);
  }
  while (mine && run(runs_for::farewell) == ran::hold_over) {
    const locked lock(mutex_);
    if (due.over() || runner_.is_running()) break;
    runner_.take();
  }
  outlasting<batch_handler> handler;
  {
    const locked lock(mutex_);
    life_ = life::ended;
    handler.take(handler_);
  }
  const std::size_t rest = discard();
  if (rest == 0) return;
  PySys_WriteStderr("moored: channel '%.100s' ends with %zu event(s) that were not taken\n", name(),
                    rest);
}

inline void channel_core::end_without_python() noexcept {
  consumers::call all;
  {
    const locked lock(mutex_);
    life_ = life::ended;
    room_.notify_all();
    all = consumers_.look(true);
  }
  (void)consumers_.tell(all);
}

inline void channel_core::after_fork_in_child() noexcept {
  // Their waiters are not here, and a condition variable that has waiters cannot be destroyed.
  room_.renew();
  turns_.renew();
  blocked_ = 0;
  runner_.after_fork_in_child();
  consumers_.after_fork_in_child();
  forget();
  life_ = life::ended;
  mutex_.unlock();
}

}  // namespace detail
MOORED_NAMESPACE_END
