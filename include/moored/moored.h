/* moored/moored.h: the C face of moored, for C, Cython, Rust and other languages that call C.
 *
 * Compile moored_c.cpp, which lies beside this file, once into your program (CMake: link moored::c;
 * Python: moored.get_c_source()). Unless it says otherwise, a function may be called by any thread,
 * attached or not. None of them throws. */
#ifndef MOORED_H
#define MOORED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What came of a call. Zero is success. */
typedef enum moored_status {
  MOORED_OK = 0,
  MOORED_NO_INTERPRETER = 1, /* there is no running Python interpreter */
  MOORED_CLOSING = 2,        /* the interpreter is shutting down */
  MOORED_STALE_THREAD = 3, /* 3.15: CPython shows this thread a state of an interpreter now gone */
  MOORED_NOT_IDLE = 4,     /* borrowed: no thread is lending its state */
  MOORED_UNSUPPORTED = 5,  /* shared, borrowed: cannot be made safe with this Python */
  MOORED_NO_MEMORY = 6,    /* a thread state could not be made */
  MOORED_BAD_ARGUMENT = 7, /* a null pointer, or a strategy that does not exist */
  MOORED_NOT_KEPT = 8,     /* not here: the thread is ending, lending, or on a shared state */
  MOORED_NOTHING_TO_GAIN = 9, /* moored_install: this Python (3.10) maps no chunks */
  MOORED_FULL = 10,           /* moored_channel_send: rejected */
  MOORED_DROPPED = 11,        /* moored_channel_send: the channel was full, and dropped the event */
  MOORED_CLOSED = 12,         /* moored_channel_send: the channel is closed */
  MOORED_NO_DESCRIPTORS = 13, /* moored_channel_new: the process has none left */
  MOORED_ATTACHED_ALREADY = 14 /* moored_attach: this attachment is live, and stays so */
} moored_status;

/* Which thread state a foreign thread enters with; see moored::strategy. */
typedef enum moored_strategy {
  MOORED_TEMPORARY = 0,
  MOORED_KEPT = 1,
  MOORED_SHARED = 2,
  MOORED_BORROWED = 3
} moored_strategy;

/* One attachment. Filled by moored_attach, given back to moored_detach by the same thread. Not to
 * be copied. */
typedef struct moored_attachment {
  uint64_t opaque[2];
} moored_attachment;

/* Attaches the calling thread to the main interpreter by its kept state. Unless MOORED_OK comes
 * back nothing has begun, and `attachment` needs no moored_detach (but bears one).
 * MOORED_ATTACHED_ALREADY: the thread has filled this attachment before and not given it back; it
 * is attached, and still needs its one moored_detach. */
moored_status moored_attach(moored_attachment* attachment);

/* The same by another strategy, a moored_strategy. */
moored_status moored_attach_by(moored_attachment* attachment, int how);

/* moored_attach that asks a busy holder of the GIL to let go at once, where moored_install_urgent
 * has prepared that. */
moored_status moored_attach_urgent(moored_attachment* attachment);

/* Ends what moored_attach began. Attachments of one thread end in the reverse order of their
 * beginning. */
void moored_detach(moored_attachment* attachment);

/* Keeps the calling thread's state from now on, without leaving the thread attached if it was not.
 */
moored_status moored_keep_thread(void);

/* Lets it go before the thread ends. */
void moored_release_thread(void);

/* Opens the closing gate. Call it with the GIL held, in the module's init function or after
 * Py_Initialize. MOORED_NO_MEMORY when Python could not register the callback: a Python exception
 * is then set. */
moored_status moored_open(void);

/* How long shutdown waits for native calls that are inside, in milliseconds. 5000 unless set. */
void moored_set_closing_bound(int64_t milliseconds);

/* How many states threads may keep: 0, the default, for any number; see moored::set_kept_limit. */
void moored_set_kept_limit(size_t limit);

/* What has happened in this process; see moored::state_stats. */
typedef struct moored_state_stats {
  uint64_t attaches;
  uint64_t refusals;
  uint64_t states_made;
  uint64_t states_adopted;
  uint64_t states_kept;
  uint64_t states_freed;
  uint64_t states_forgotten;
  uint64_t overdue;
  uint64_t states_over_limit;
  uint64_t states_freed_late;
  uint64_t references_forgotten;
  uint64_t urgent_requests;
  uint64_t urgent_requests_denied;
} moored_state_stats;

moored_state_stats moored_stats(void);

/* Puts the chunk cache in place, which makes temporary thread states cheap for every binding in the
 * process. Installing again is installing once. Unlike the others, call it with the GIL held, or
 * before Py_Initialize. */
moored_status moored_install(void);

/* Prepares urgent attaches for the process; see moored::install(urgent). MOORED_UNSUPPORTED where
 * they are ordinary ones, or reach a busy main thread alone. Unless `why` is null it is set to the
 * reason, of static storage, or to null. Call it with the GIL held. */
moored_status moored_install_urgent(const char** why);

/* How much of its time a busy holder of the GIL may lose to urgent attaches, from 0 to 1; 0.1
 * unless set. */
void moored_set_urgent_budget(double share);

/* What the chunk cache has done in this process; see moored::chunk_stats. */
typedef struct moored_chunk_stats {
  uint64_t hits;
  uint64_t misses;
  uint64_t held;
  uint64_t bytes_held;
} moored_chunk_stats;

moored_chunk_stats moored_stats_of_chunks(void);

/* A bounded queue of events, each some bytes, from native threads to Python; see moored::channel.
 * In Python, give moored_channel_capsule() to moored.Channel, which gets each event as `bytes`. */
typedef struct moored_channel moored_channel;

/* What a full channel does with an event; see moored::overflow. */
typedef enum moored_overflow {
  MOORED_BLOCK = 0,
  MOORED_REJECT = 1,
  MOORED_DROP_OLDEST = 2,
  MOORED_DROP_NEWEST = 3
} moored_overflow;

/* How events reach Python; see moored::delivery. */
typedef enum moored_delivery {
  MOORED_POLL = 0,
  MOORED_WAKE = 1,
  MOORED_ENTER = 2,
  MOORED_INTERRUPT = 3,
  MOORED_ADAPTIVE = 4
} moored_delivery;

/* A new channel in *channel; `name` is copied. MOORED_UNSUPPORTED when this Python does not have
 * the delivery. */
moored_status moored_channel_new(moored_channel** channel, const char* name, size_t capacity,
                                 int overflow, int delivery);

/* Lets the handle go; the channel closes, and Python may still take what was sent. */
void moored_channel_free(moored_channel* channel);

/* Copies the bytes into the channel. Waits for room, without the GIL, if that is the channel's
 * overflow. */
moored_status moored_channel_send(moored_channel* channel, const void* bytes, size_t size);

/* The same, but MOORED_FULL where that would wait. */
moored_status moored_channel_try_send(moored_channel* channel, const void* bytes, size_t size);

/* Refuses from now on. */
void moored_channel_close(moored_channel* channel);

/* Changes the delivery, a moored_delivery, also while events flow. */
moored_status moored_channel_deliver_by(moored_channel* channel, int delivery);

/* Called with the GIL held for each event of a batch, in order. An exception that it leaves is
 * reported as unraisable. */
typedef void (*moored_channel_handler)(void* context, const void* bytes, size_t size);

/* Sets the handler; null for none. */
moored_status moored_channel_on_event(moored_channel* channel, moored_channel_handler handler,
                                      void* context);

/* What moored.Channel takes: a new reference to a PyObject, null with an exception. GIL held. */
void* moored_channel_capsule(moored_channel* channel);

/* A descriptor for an event loop: when it is readable, call moored_channel_deliver. Never read it.
 */
int moored_channel_fileno(moored_channel* channel);

/* Runs the handler on what is queued. 1 when something is left, so that it must be called again
 * soon, else 0. GIL held. */
int moored_channel_deliver(moored_channel* channel);

/* What has happened to its events; see moored::channel_stats. */
typedef struct moored_channel_stats {
  uint64_t sent;
  uint64_t delivered;
  uint64_t dropped_oldest;
  uint64_t dropped_newest;
  uint64_t rejected;
  uint64_t refused;
  uint64_t unconvertible;
  uint64_t undelivered;
  uint64_t batches;
  uint64_t largest_batch;
  uint64_t wakes;
  uint64_t interrupts;
  uint64_t entries;
  uint64_t waits;
  uint64_t depth;
} moored_channel_stats;

moored_channel_stats moored_stats_of_channel(const moored_channel* channel);

/* One line of English for a status; never null. */
const char* moored_describe(moored_status status);

#ifdef __cplusplus
}
#endif

#endif
