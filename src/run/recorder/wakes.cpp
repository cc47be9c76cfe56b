// wakes.cpp: see wakes.hpp.
//
// asyncio's call_soon_threadsafe sends one byte of 0 through a pair of sockets that the loop reads;
// trio does the same. So it is seen where Python's module _socket calls send: by its own reference,
// in an extension module, or in the interpreter where that is built in. uvloop writes to an eventfd
// of its own, and is not seen.
#include "../preload/weak_python.hpp"

#include "wakes.hpp"

#include <moored/detail/cpython/import_slots.hpp>

#include <link.h>
#include <sys/socket.h>

#include <cstring>

#include "rows.hpp"

namespace moored::run::recorder {

namespace {

using moored::cpython::import_slots;

/// True for what an event loop is woken by. Asks the kernel for sends of one byte of 0 alone.
[[nodiscard]] bool is_wake(int socket, const void* data, std::size_t size, int flags) noexcept {
  if (size != 1 || flags != 0 || *static_cast<const char*>(data) != 0) return false;
  int domain = 0;
  socklen_t bytes = sizeof domain;
  return getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_UNIX;
}

/// _socket's send. Any thread, detached. May be cancelled.
ssize_t recorded_send(int socket, const void* data, std::size_t size, int flags) {
  if (is_wake(socket, data, size, flags)) {
    if (thread_row* const row = this_row()) add(row->wakes, 1);
  }
  return send(socket, data, size, flags);
}

/// An address in the extension module _socket; null while that is not loaded. Does not wait for the
/// lock that the loader holds while it loads.
[[nodiscard]] const void* place_of_module() noexcept {
  const void* place = nullptr;
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* found) {
        constexpr char name[] = "/_socket.";
        if (std::strstr(object->dlpi_name, name) == nullptr) return 0;
        for (int index = 0; index < object->dlpi_phnum; ++index) {
          const ElfW(Phdr)& part = object->dlpi_phdr[index];
          if (part.p_type == PT_DYNAMIC)
            *static_cast<const void**>(found) =
                reinterpret_cast<const void*>(object->dlpi_addr + part.p_vaddr);
        }
        return 1;
      },
      &place);
  return place;
}

/// The references to be changed: those of the module, or, where it is built in, the interpreter's.
[[nodiscard]] import_slots references() noexcept {
  const void* const module = place_of_module();
  return module != nullptr ? import_slots("send", module) : import_slots("send");
}

constinit auto* const ours = &recorded_send;

}  // namespace

// A reference that leads to another tool's function is left alone; so is one that the loader has
// not come to, for it would write over ours.

void watch_wakes() noexcept {
  import_slots slots = references();
  if (slots.why() == nullptr && slots.target() == reinterpret_cast<void*>(&send))
    (void)slots.replace(reinterpret_cast<void*>(ours));
}

void unwatch_wakes() noexcept {
  import_slots slots = references();
  if (slots.why() == nullptr && slots.are(reinterpret_cast<void*>(ours)))
    (void)slots.replace(reinterpret_cast<void*>(&send));
}

}  // namespace moored::run::recorder
