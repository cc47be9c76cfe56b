// moored/moored_c.cpp: moored.h over the C++ library. Compile this one file into your program.
#include "moored.hpp"

#include "moored.h"

#include <new>
#include <type_traits>

namespace {

static_assert(sizeof(moored::attachment) <= sizeof(moored_attachment));
static_assert(alignof(moored::attachment) <= alignof(moored_attachment));
static_assert(static_cast<int>(moored::refusal::no_memory) == MOORED_NO_MEMORY &&
              static_cast<int>(moored::refusal::none) == MOORED_OK);
static_assert(static_cast<int>(moored::strategy::borrowed) == MOORED_BORROWED);

moored::attachment* inside(moored_attachment* outside) noexcept {
  return std::launder(reinterpret_cast<moored::attachment*>(outside->opaque));
}

}  // namespace

extern "C" {

moored_status moored_attach_by(moored_attachment* attachment, int how) {
  if (attachment == nullptr) return MOORED_BAD_ARGUMENT;
  auto* const attached = new (attachment->opaque) moored::attachment;
  if (how < MOORED_TEMPORARY || how > MOORED_BORROWED) return MOORED_BAD_ARGUMENT;
  *attached = moored::try_attach(static_cast<moored::strategy>(how));
  return static_cast<moored_status>(attached->why());
}

moored_status moored_attach(moored_attachment* attachment) {
  return moored_attach_by(attachment, MOORED_KEPT);
}

void moored_detach(moored_attachment* attachment) {
  if (attachment != nullptr) inside(attachment)->end();
}

moored_status moored_keep_thread() {
  if (moored::keep_thread()) return MOORED_OK;
  const moored::attachment attached = moored::try_attach();
  return attached ? MOORED_NOT_KEPT : static_cast<moored_status>(attached.why());
}

void moored_release_thread() {
  moored::release_thread();
}

moored_status moored_open() {
  return moored::open() ? MOORED_OK : MOORED_NO_MEMORY;
}

void moored_set_closing_bound(int64_t milliseconds) {
  moored::set_closing_bound(std::chrono::milliseconds(milliseconds));
}

moored_counters moored_count() {
  const moored::counters now = moored::count();
  return {now.attaches,    now.refusals,     now.states_made,      now.states_adopted,
          now.states_kept, now.states_freed, now.states_forgotten, now.overdue};
}

moored_status moored_install() {
  return moored::install() == moored::cache_status::nothing_to_gain ? MOORED_NOTHING_TO_GAIN
                                                                    : MOORED_OK;
}

moored_chunk_counters moored_count_chunks() {
  const moored::chunk_counters now = moored::count_chunks();
  return {now.hits, now.misses, now.held, now.bytes_held};
}

const char* moored_describe(moored_status status) {
  if (status == MOORED_BAD_ARGUMENT) return "a null pointer, or a strategy that does not exist";
  if (status == MOORED_NOT_KEPT) return "the state of this thread cannot be kept here";
  if (status == MOORED_NOTHING_TO_GAIN) return "this Python maps no chunks: nothing to gain";
  return moored::describe(static_cast<moored::refusal>(status));
}

}  // extern "C"
