// callers.cpp: see callers.hpp.
//
// Where a return address lies on the stack is learnt by following the stack once, by its tables,
// for each return address of a hook; after that the words are read where they were found. Words
// that are not known yet have the stack followed again.
#include "callers.hpp"

#include <dlfcn.h>
#include <link.h>
#include <sched.h>
#include <unistd.h>
#include <unwind.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>

namespace moored::run::recorder {

namespace {

constexpr std::size_t words = 4;

struct shape {
  std::atomic<std::uintptr_t> caller{0};
  std::atomic<std::int32_t> offsets[words]{};  // from the hook's frame; 0: there is none
};
/// Words beyond are not read: a thread that is less deep in its stack may have no memory there.
/// That much lies behind the first frame of every thread, in what the C library and thread_locals
/// need.
constexpr std::uintptr_t farthest = 4096;
constinit std::array<shape, 512> shapes;

[[nodiscard]] std::uint64_t mixed(std::uint64_t key, std::uint64_t with) noexcept {
  key = (key ^ with) * 0x9E3779B97F4A7C15;
  return key ^ (key >> 29);
}

/// The shape of that caller, or a free place for it, or null.
[[nodiscard]] shape* shape_of(std::uintptr_t caller) noexcept {
  std::size_t at = mixed(0, caller) % shapes.size();
  for (std::size_t tried = 0; tried < 16; ++tried, at = (at + 1) % shapes.size()) {
    const std::uintptr_t there = shapes[at].caller.load(std::memory_order_acquire);
    if (there == caller || there == 0) return &shapes[at];
  }
  return nullptr;
}

struct stack {
  std::uintptr_t caller = 0;  // frames before it are ours
  std::uint32_t frames = 0;
  bool is_whole = true;
  std::uintptr_t address[most_frames]{};
  std::uintptr_t place[most_frames]{};  // where each lies on the stack
};

_Unwind_Reason_Code follow(_Unwind_Context* context, void* into) noexcept {
  auto& all = *static_cast<stack*>(into);
  const std::uintptr_t address = _Unwind_GetIP(context);
  if (address == 0) return _URC_NO_REASON;
  if (all.frames == 0 && address != all.caller) return _URC_NO_REASON;
  if (all.frames == most_frames) {
    all.is_whole = false;
    return _URC_END_OF_STACK;
  }
  all.address[all.frames] = address;
#ifdef __x86_64__
  all.place[all.frames] = _Unwind_GetCFA(context) - sizeof(void*);
#endif
  ++all.frames;
  return _URC_NO_REASON;
}

// The capture's tables of modules and sites, which grow seldom.
constinit std::atomic_flag growing;

class turn {
 public:
  turn() noexcept {
    while (growing.test_and_set(std::memory_order_acquire)) sched_yield();
  }
  ~turn() { growing.clear(std::memory_order_release); }
  turn(const turn&) = delete;
  turn& operator=(const turn&) = delete;
};

/// By the object's notes, which are mapped with it.
void note_build_id(module_row& row, const link_map& map) noexcept {
  const auto* const header = reinterpret_cast<const ElfW(Ehdr)*>(map.l_addr);
  if (map.l_addr == 0 || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return;
  const auto* const parts = reinterpret_cast<const ElfW(Phdr)*>(map.l_addr + header->e_phoff);
  for (unsigned index = 0; index < header->e_phnum; ++index) {
    if (parts[index].p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(map.l_addr + parts[index].p_vaddr);
    const char* const end = at + parts[index].p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      const auto& note = *reinterpret_cast<const ElfW(Nhdr)*>(at);
      const char* const name = at + sizeof note;
      const char* const what = name + ((note.n_namesz + 3U) & ~3U);
      at = what + ((note.n_descsz + 3U) & ~3U);
      if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 || std::memcmp(name, "GNU", 4) != 0)
        continue;
      row.build_id_size = static_cast<std::uint8_t>(
          note.n_descsz < sizeof row.build_id ? note.n_descsz : sizeof row.build_id);
      std::memcpy(row.build_id, what, row.build_id_size);
      return;
    }
  }
}

/// The module that an address is in; most_modules for one in none, and when they are used up. The
/// caller has the turn. _dl_find_object() takes no lock of the loader's.
[[nodiscard]] std::uint32_t module_of(capture& file, std::uintptr_t address) noexcept {
  dl_find_object found{};
  if (_dl_find_object(reinterpret_cast<void*>(address), &found) != 0) return most_modules;
  const link_map& map = *found.dlfo_link_map;
  const std::uint32_t known = file.header.modules.load(std::memory_order_relaxed);
  for (std::uint32_t index = 0; index < known; ++index) {
    const module_row& one = file.modules[index];
    if (one.base == map.l_addr &&
        (map.l_name[0] == '\0' || std::strncmp(one.path, map.l_name, sizeof one.path - 1) == 0))
      return index;
  }
  if (known == most_modules) return most_modules;
  module_row& row = file.modules[known];
  row.base = map.l_addr;
  if (map.l_name[0] != '\0') {
    std::strncpy(row.path, map.l_name, sizeof row.path - 1);
  } else {  // the program itself
    (void)!readlink("/proc/self/exe", row.path, sizeof row.path - 1);
  }
  note_build_id(row, map);
  file.header.modules.store(known + 1, std::memory_order_release);
  return known;
}

[[nodiscard]] bool is_same(const site_row& one, const site_row& other) noexcept {
  return one.frames == other.frames &&
         std::memcmp(one.module, other.module, sizeof one.module) == 0 &&
         std::memcmp(one.offset, other.offset, sizeof one.offset) == 0;
}

/// Where the words lie that tell this caller from others of the same return address: what all the
/// stacks that were followed for it have in common. So it only ever becomes less.
void learn(const stack& all, const void* frame) noexcept {
  shape* const mine = shape_of(all.caller);
  if (mine == nullptr) return;
  const auto base = reinterpret_cast<std::uintptr_t>(frame);
  const bool is_new = mine->caller.load(std::memory_order_acquire) != all.caller;
  bool agrees = true;
  for (std::size_t index = 0; index < words; ++index) {
    std::int32_t offset = 0;
    const std::size_t at = index + 1;
    if (at < all.frames && all.place[at] > base && all.place[at] - base < farthest &&
        *reinterpret_cast<const std::uintptr_t*>(all.place[at]) == all.address[at])
      offset = static_cast<std::int32_t>(all.place[at] - base);
    agrees = agrees && (is_new || mine->offsets[index].load(std::memory_order_relaxed) == offset);
    mine->offsets[index].store(agrees ? offset : 0, std::memory_order_relaxed);
  }
  mine->caller.store(all.caller, std::memory_order_release);
}

}  // namespace

std::uint64_t key_of(const void* caller, const void* frame) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  std::uint64_t key = mixed(1, address);
  const shape* const mine = shape_of(address);
  if (mine != nullptr && mine->caller.load(std::memory_order_acquire) == address) {
    for (const auto& one : mine->offsets) {
      const std::int32_t offset = one.load(std::memory_order_relaxed);
      if (offset == 0) break;
      std::uint64_t word = 0;
      std::memcpy(&word, static_cast<const char*>(frame) + offset, sizeof word);
      key = mixed(key, word);
    }
  }
  return key | 1;
}

int site_of(capture& file, const void* caller, const void* frame) noexcept {
  stack all;
  all.caller = reinterpret_cast<std::uintptr_t>(caller);
  (void)_Unwind_Backtrace(follow, &all);
  if (all.frames == 0) {  // no tables led there
    all.frames = 1;
    all.is_whole = false;
    all.address[0] = all.caller;
  }
  learn(all, frame);
  site_row row{};
  row.frames = all.frames;
  row.is_whole = all.is_whole ? 1 : 0;
  const turn mine;
  for (std::uint32_t index = 0; index < all.frames; ++index) {
    row.module[index] = module_of(file, all.address[index] - 1);
    row.offset[index] = row.module[index] < most_modules
                            ? all.address[index] - file.modules[row.module[index]].base
                            : all.address[index];
  }
  const std::uint32_t known = file.header.sites.load(std::memory_order_relaxed);
  for (std::uint32_t index = 0; index < known; ++index) {
    if (is_same(file.sites[index], row)) return static_cast<int>(index);
  }
  if (known == most_sites) {
    add(file.header.sites_lost, 1);
    return -1;
  }
  file.sites[known] = row;
  file.header.sites.store(known + 1, std::memory_order_release);
  return static_cast<int>(known);
}

}  // namespace moored::run::recorder
