// report.cpp: --stats and --json, when the process ends.
#include "report.hpp"

#include <moored/version.hpp>

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "estimate.hpp"
#include "process.hpp"
#include "writing.hpp"

namespace moored::run {

namespace {

[[nodiscard]] std::string line(std::string_view what, std::string_view value) {
  constexpr std::size_t width = 44;
  std::string text = "  ";
  text += what;
  text.append(width - std::min(width, what.size() + std::min(value.size(), width)), ' ');
  text += value;
  return text + '\n';
}

/// In the unit in which it has figures before the point.
[[nodiscard]] std::string readable(double seconds) {
  std::array<char, 40> text{};
  if (seconds < 1e-3) {
    std::snprintf(text.data(), text.size(), "%.0f us", seconds * 1e6);
  } else if (seconds < 1) {
    std::snprintf(text.data(), text.size(), "%.1f ms", seconds * 1e3);
  } else {
    std::snprintf(text.data(), text.size(), "%.2f s", seconds);
  }
  return text.data();
}

[[nodiscard]] std::string as_table(const process& self, const numbers& own, double saved) {
  std::string text = "moored run: ";
  if (!self.asked().is_top()) text += "process " + std::to_string(getpid()) + ", ";
  text += "Python " + self.python_version() + ", states of native threads " + self.describe();
  text += '\n';
  if (self.decided() == keeping::out_of_reach) return text;  // there is nothing to count
  if (self.decided() == keeping::on) {
    text += line("threads seen", std::to_string(own.threads_seen));
    text += line("states adopted", std::to_string(own.states_adopted));
    text += line("states kept now", std::to_string(own.states_kept));
    text += line("states freed", std::to_string(own.states_freed));
    text += line("of those, freed late", std::to_string(own.states_freed_late));
    text += line("states left to Python", std::to_string(own.states_forgotten));
    text += line("calls served from a kept state", std::to_string(own.calls_served));
    if (self.asked().urgent) {
      text += line("busy threads asked for the GIL", std::to_string(own.urgent_requests));
      text += line("not asked, over the budget", std::to_string(own.urgent_requests_denied));
    }
  }
  text += line("chunk hits", std::to_string(own.chunk_hits));
  text += line("chunk misses", std::to_string(own.chunk_misses));
  if (own.chunk_hits + own.chunk_misses != 0) text += line("estimated time saved", readable(saved));
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

[[nodiscard]] std::string as_document(const process& self, const numbers& own, double saved) {
  const std::string python = self.python_version();
  std::string text = "{\n  \"moored\": " + quoted(MOORED_VERSION) +
                     ",\n  \"python\": " + quoted(python.empty() ? "none" : python) +
                     ",\n  \"machine\": " + machine() +
                     ",\n  \"command\": " + quoted(self.asked().command) +
                     ",\n  \"rows\": [\n    {";
  text += "\n      \"states_of_native_threads\": " + quoted(self.describe());
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
  field("urgent_requests", own.urgent_requests);
  field("urgent_requests_denied", own.urgent_requests_denied);
  field("chunk_hits", own.chunk_hits);
  field("chunk_misses", own.chunk_misses);
  std::array<char, 40> estimate{};
  std::snprintf(estimate.data(), estimate.size(), "%.6f", saved);
  text += ",\n      \"estimated_seconds_saved\": ";
  text += estimate.data();
  return text + "\n    }\n  ]\n}\n";
}

/// Of a child, only what has to do with native threads is of interest. A process that was forked is
/// no news where states cannot be kept: the one that it came from says so.
[[nodiscard]] bool has_something_to_say(const process& self, const numbers& own) {
  if (self.python_version().empty()) return false;
  if (self.asked().is_top() || own.threads_seen > 0) return true;
  const keeping decided = self.decided();
  return !self.is_forked() &&
         (decided == keeping::other_python || decided == keeping::out_of_reach);
}

}  // namespace

void report(process& self) {
  const settings& asked = self.asked();
  const bool writes = !asked.json.empty() && asked.is_top();
  if (!asked.present || !(asked.statistics || writes)) return;
  self.look_for_late_python();
  const numbers own = self.own();
  const bool prints = asked.statistics && has_something_to_say(self, own);
  if (!prints && !writes) return;
  const double saved = seconds_saved(own);
  if (prints) say(as_table(self, own, saved));
  if (!writes) return;
  if (const int failed = write_document(asked.json, as_document(self, own, saved))) {
    const std::string place = asked.descriptor() == STDOUT_FILENO ? "stdout" : asked.json;
    say("moored: cannot write " + place + ": " + std::strerror(failed) + '\n');
  }
}

}  // namespace moored::run
