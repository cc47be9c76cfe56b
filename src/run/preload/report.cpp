// report.cpp: --stats and --json, when the process ends.
#include "report.hpp"

#include <moored/version.hpp>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "process.hpp"

namespace moored::run {

namespace {

/// What one chunk costs here and now: to map it, to touch it, to unmap it. Nearly all of a
/// temporary state's cost is that.
[[nodiscard]] double seconds_per_chunk() noexcept {
  constexpr std::size_t chunk = 16 * 1024;
  constexpr int batches = 5, chunks_a_batch = 40;
  auto best = std::chrono::steady_clock::duration::max();
  for (int batch = 0; batch < batches; ++batch) {
    const auto start = std::chrono::steady_clock::now();
    for (int at = 0; at < chunks_a_batch; ++at) {
      void* const mapped =
          mmap(nullptr, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapped == MAP_FAILED) return 0;
      *static_cast<volatile char*>(mapped) = 1;
      munmap(mapped, chunk);
    }
    best = std::min(best, std::chrono::steady_clock::now() - start);
  }
  return std::chrono::duration<double>(best).count() / chunks_a_batch;
}

/// Each call that was served, and each chunk that came from the cache, spared one mapping. 3.10 has
/// no chunks.
[[nodiscard]] double seconds_saved(const numbers& own) noexcept {
  if (own.chunk_hits + own.chunk_misses == 0) return 0;
  return static_cast<double>(own.calls_served + own.chunk_hits) * seconds_per_chunk();
}

/// Writes all of it, or says why not.
[[nodiscard]] int write_all(int file, std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

void say(const std::string& text) noexcept {
  (void)write_all(STDERR_FILENO, text);
}

[[nodiscard]] std::string line(std::string_view what, std::string_view value) {
  constexpr std::size_t width = 44;
  std::string text = "  ";
  text += what;
  text.append(width - std::min(width, what.size() + std::min(value.size(), width)), ' ');
  text += value;
  return text + '\n';
}

[[nodiscard]] std::string in_milliseconds(double seconds) {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.1f ms", seconds * 1e3);
  return text.data();
}

[[nodiscard]] std::string as_table(const process& here, const numbers& own, double saved) {
  std::string text = "moored run: ";
  if (!here.asked().is_top()) text += "process " + std::to_string(getpid()) + ", ";
  const std::string python = here.python_version();
  if (!python.empty()) text += "Python " + python + ", states of native threads ";
  text += describe(here.decided());
  text += '\n';
  if (here.decided() == keeping::on) {
    text += line("threads seen", std::to_string(own.threads_seen));
    text += line("states adopted", std::to_string(own.states_adopted));
    text += line("states kept now", std::to_string(own.states_kept));
    text += line("states freed", std::to_string(own.states_freed));
    text += line("of those, freed late", std::to_string(own.states_freed_late));
    text += line("states left to Python", std::to_string(own.states_forgotten));
    text += line("calls served from a kept state", std::to_string(own.calls_served));
  }
  if (!python.empty()) {
    text += line("chunk hits", std::to_string(own.chunk_hits));
    text += line("chunk misses", std::to_string(own.chunk_misses));
    text += line("estimated time saved", in_milliseconds(saved));
  }
  return text;
}

[[nodiscard]] std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char one : text) {
    if (one == '"' || one == '\\') {
      result += '\\';
      result += one;
    } else if (static_cast<unsigned char>(one) < 0x20) {
      std::array<char, 8> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(one));
      result += escaped.data();
    } else {
      result += one;
    }
  }
  return result + '"';
}

/// As moored.report.document describes a machine: what explains a number; no host name, no path.
[[nodiscard]] std::string machine() {
  utsname system{};
  uname(&system);
  std::string processor = "unknown";
  if (std::FILE* const info = std::fopen("/proc/cpuinfo", "re")) {
    std::array<char, 512> text{};
    while (std::fgets(text.data(), text.size(), info) != nullptr) {
      const std::string_view read = text.data();
      const std::size_t colon = read.find(": ");
      if (read.rfind("model name", 0) != 0 || colon == std::string_view::npos) continue;
      processor = read.substr(colon + 2, read.find('\n') - colon - 2);
      break;
    }
    std::fclose(info);
  }
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  sched_getaffinity(0, sizeof cpus, &cpus);
  return "{\n    \"system\": " + quoted(system.sysname) +
         ",\n    \"release\": " + quoted(system.release) +
         ",\n    \"architecture\": " + quoted(system.machine) +
         ",\n    \"processor\": " + quoted(processor) +
         ",\n    \"cpus\": " + std::to_string(CPU_COUNT(&cpus)) + "\n  }";
}

[[nodiscard]] std::string as_document(const process& here, const numbers& own, double saved) {
  const std::string python = here.python_version();
  std::string text = "{\n  \"moored\": " + quoted(MOORED_VERSION) +
                     ",\n  \"python\": " + quoted(python.empty() ? "none" : python) +
                     ",\n  \"machine\": " + machine() +
                     ",\n  \"command\": " + quoted(here.asked().command) +
                     ",\n  \"rows\": [\n    {";
  text += "\n      \"states_of_native_threads\": " + quoted(describe(here.decided()));
  const auto field = [&text](const char* name, std::uint64_t value) {
    text += ",\n      \"";
    text += name;
    text += "\": " + std::to_string(value);
  };
  field("threads_seen", own.threads_seen);
  field("states_adopted", own.states_adopted);
  field("states_kept", own.states_kept);
  field("states_freed", own.states_freed);
  field("states_freed_late", own.states_freed_late);
  field("states_forgotten", own.states_forgotten);
  field("calls_served", own.calls_served);
  field("chunk_hits", own.chunk_hits);
  field("chunk_misses", own.chunk_misses);
  std::array<char, 40> estimate{};
  std::snprintf(estimate.data(), estimate.size(), "%.6f", saved);
  text += ",\n      \"estimated_seconds_saved\": ";
  text += estimate.data();
  return text + "\n    }\n  ]\n}\n";
}

/// As a whole or not at all: into a neighbour first, then renamed. What is no file, as /dev/stdout,
/// is written to, not replaced. Returns an errno, or 0.
[[nodiscard]] int write_document(const std::string& path, const std::string& text) {
  struct stat found {};
  const bool is_device = stat(path.c_str(), &found) == 0 && !S_ISREG(found.st_mode);
  const std::size_t name = path.rfind('/') + 1;
  const std::string target = is_device ? path
                                       : path.substr(0, name) + '.' + path.substr(name) + '.' +
                                             std::to_string(getpid()) + ".tmp";
  const int file = open(target.c_str(), O_WRONLY | O_CLOEXEC | (is_device ? 0 : O_CREAT | O_TRUNC),
                        0666);  // NOLINT: the umask takes away
  if (file < 0) return errno;
  int failed = write_all(file, text);
  if (close(file) != 0 && failed == 0) failed = errno;
  if (is_device) return failed;
  if (failed == 0 && rename(target.c_str(), path.c_str()) != 0) failed = errno;
  if (failed != 0) unlink(target.c_str());
  return failed;
}

}  // namespace

void report(const process& here) {
  const settings& asked = here.asked();
  const bool writes = !asked.json.empty() && asked.is_top();
  if (!asked.present || !(asked.statistics || writes)) return;
  const numbers own = here.own();
  // A child that had nothing to do with native threads is nobody's interest.
  const bool prints =
      asked.statistics &&
      (asked.is_top() ? !here.python_version().empty()
                      : own.threads_seen > 0 || here.decided() == keeping::other_python);
  if (!prints && !writes) return;
  const double saved = seconds_saved(own);
  if (prints) say(as_table(here, own, saved));
  if (!writes) return;
  if (const int failed = write_document(asked.json, as_document(here, own, saved)))
    say("moored: cannot write " + asked.json + ": " + std::strerror(failed) + '\n');
}

}  // namespace moored::run
