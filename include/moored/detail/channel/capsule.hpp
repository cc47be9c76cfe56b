// moored/detail/channel/capsule.hpp: what a channel shows to another extension: a C table in a
// PyCapsule.
//
// The extension that makes a channel and the one that gives it a Python face (moored._core) each
// carry a copy of moored, perhaps of another version. They meet in this table alone, which only
// ever grows at its end.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN

inline constexpr const char* channel_capsule_name = "moored.channel.1";

/// Every function is called attached, to the main interpreter, and may leave an exception only
/// where it says so. `channel` is always the table's own.
struct channel_capsule {
  std::uint32_t size;  ///< Of this struct, in the copy that filled it.
  void* channel;

  /// UTF-8; lives as long as the capsule.
  const char* (*name)(void* channel);
  /// At most `limit` events, or all if negative, as a new list. Null with an exception.
  PyObject* (*take)(void* channel, std::ptrdiff_t limit);
  /// Waits, without the GIL, until there is something to take or the channel is closed: 1. 0 when
  /// the time is over (negative: no limit), -1 with an exception when a signal handler raised, or
  /// the OS refused.
  int (*wait)(void* channel, std::int64_t timeout_ns);
  /// The channel's own descriptor, which is for the one loop that runs the handler: it becomes
  /// readable when the delivery says that the loop is to run it, and at the close. Consumers that
  /// take subscribe (below). -1 with an exception.
  int (*fileno)(void* channel);
  /// Makes the descriptor unreadable until the next wake. Do it before taking.
  void (*acknowledge)(void* channel);
  /// Tells the channel that an event loop watches the descriptor (1), or no longer does (0).
  void (*listen)(void* channel, int listening);
  /// A callable that gets lists of events, or null for none. Tells about what is queued already.
  void (*set_handler)(void* channel, PyObject* handler);
  /// Runs the handler on what is queued, for at most the channel's hold: 1 when something is left,
  /// 0 when not, -1 with the handler's exception, after which something may be left.
  int (*deliver)(void* channel);
  /// A moored::delivery, and times in ns, negative to leave them as they are. -1 with an exception.
  int (*deliver_by)(void* channel, int delivery, std::int64_t hold_ns, std::int64_t linger_ns);
  /// The moored::delivery, and the times where the pointers are not null.
  int (*delivery)(void* channel, std::int64_t* hold_ns, std::int64_t* linger_ns);
  void (*close)(void* channel);
  int (*closed)(void* channel);
  /// Fills at most `count` numbers, in the order of moored::channel_stats, and says how many.
  std::size_t (*stats)(void* channel, std::uint64_t* numbers, std::size_t count);

  // Several consumers on one channel: each has a descriptor of its own, and hears of every event
  // that is queued after it has acknowledged, and of the close, whatever the others do.

  /// A new descriptor for one consumer, readable at once if there is something to take or the
  /// channel is closed. -1 with an exception. The channel owns it.
  int (*subscribe)(void* channel);
  /// Makes that descriptor unreadable until the next wake. Do it before taking. A descriptor that
  /// is no subscription of this channel, or of this process (after a fork), is left alone.
  void (*acknowledge_own)(void* channel, int fd);
  /// Closes that descriptor. Left alone as above.
  void (*unsubscribe)(void* channel, int fd);
};

MOORED_NAMESPACE_END
