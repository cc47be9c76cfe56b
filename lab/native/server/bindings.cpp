// lab/native/server/bindings.cpp: the module moored_lab._server: the server as Python sees it, and
// nothing of its own.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <exception>
#include <moored/moored.hpp>
#include <string>
#include <string_view>
#include <system_error>

#include "../clock.hpp"
#include "scheduling.hpp"
#include "server.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace moored::lab {

namespace {

// The server, with the start of the running phase: latencies are told for one phase at a time.
class bound_server {
 public:
  bound_server(std::string_view mode, nb::callable on_frame, nb::callable on_request,
               nb::callable call_soon_threadsafe, std::uint16_t port, std::size_t threads,
               std::size_t queue, bool http, std::vector<int> watched)
      : server_({.port = port,
                 .threads = threads,
                 .queue_limit = queue,
                 .http = http,
                 .watched = std::move(watched)},
                known(mode), on_frame.ptr(), on_request.ptr(), call_soon_threadsafe.ptr()) {}

  [[nodiscard]] server& operator*() noexcept { return server_; }
  [[nodiscard]] const server& operator*() const noexcept { return server_; }
  [[nodiscard]] server* operator->() noexcept { return &server_; }

  void switch_to(std::string_view mode) { server_.switch_to(known(mode)); }

  [[nodiscard]] latencies phase() const { return since_phase_start(server_.latency()); }

  // One look at the histograms for both, so that each event belongs to exactly one phase.
  [[nodiscard]] latencies end_phase() {
    const latencies now = server_.latency();
    const latencies ended = since_phase_start(now);
    phase_start_ = now;
    return ended;
  }

 private:
  [[nodiscard]] latencies since_phase_start(latencies all) const {
    all -= phase_start_;
    return all;
  }

  [[nodiscard]] static const mode& known(std::string_view name) {
    const mode* found = mode_named(name);
    if (found == nullptr) throw nb::value_error("unknown mode");
    return *found;
  }

  server server_;
  latencies phase_start_;
};

nb::dict stats_of(const bound_server& self) {
  const server_stats all = (*self).stats();
  nb::dict told;
  told["received"] = all.received;
  told["delivered"] = all.delivered;
  told["lost"] = all.lost;
  told["refused"] = all.refused;
  told["queued"] = all.queued;
  told["entries"] = all.entries;
  return told;
}

nb::dict told_of(const latencies& all) {
  const auto us = [](double ns) { return ns / static_cast<double>(ns_per_us); };
  nb::dict told;
  told["count"] = all.count();
  told["mean_us"] = us(all.mean_ns());
  told["p50_us"] = us(all.quantile_ns(0.5));
  told["p90_us"] = us(all.quantile_ns(0.9));
  told["p99_us"] = us(all.quantile_ns(0.99));
  told["max_us"] = us(all.quantile_ns(1));
  return told;
}

nb::dict states() {
  const moored::state_stats all = moored::stats();
  nb::dict told;
  told["attaches"] = all.attaches;
  told["states_made"] = all.states_made;
  told["states_kept"] = all.states_kept;
  told["states_freed"] = all.states_freed;
  told["states_forgotten"] = all.states_forgotten;
  told["refusals"] = all.refusals;
  return told;
}

std::vector<std::string> mode_names() {
  std::vector<std::string> names;
  for (const mode& each : modes()) names.emplace_back(each.name);
  return names;
}

// A failed system call (a taken port) becomes the OSError that Python people expect.
void translate_system_error(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const std::system_error& error) {
    errno = error.code().value();
    PyErr_SetFromErrno(PyExc_OSError);
  }
}

}  // namespace

}  // namespace moored::lab

NB_MODULE(_server, module) {
  using namespace moored::lab;
  moored::open();
  nb::register_exception_translator(translate_system_error);
  bind_scheduled_event(module);
  module.def("modes", &mode_names, "The names of the modes, in the order of the table.");
  module.def(
      "why_not_urgent",
      [] {
        const char* const why = moored::install(moored::urgent).why;
        moored::set_urgent_budget(0);  // only the modes that are urgent spend
        return std::string(why != nullptr ? why : "");
      },
      "Why a busy main cannot be asked for the GIL here; empty where it can.");
  module.def("states", &states, "What moored counts about thread states in this process.");
  nb::class_<bound_server>(module, "Server", "The IO server; use it from the main thread only.")
      .def(nb::init<std::string_view, nb::callable, nb::callable, nb::callable, std::uint16_t,
                    std::size_t, std::size_t, bool, std::vector<int>>(),
           nb::kw_only(), "mode"_a, "on_frame"_a, "on_request"_a, "call_soon_threadsafe"_a,
           "port"_a, "threads"_a, "queue"_a, "http"_a, "watched"_a)
      .def_prop_ro("port", [](bound_server& self) { return self->port(); })
      .def_prop_ro("io_tids", [](bound_server& self) { return self->io_tids(); })
      .def_prop_ro("connections", [](bound_server& self) { return self->connections(); })
      .def_prop_ro(
          "scheduled", [](bound_server& self) { return self->scheduled(); },
          "Events that wait in the asyncio loop.")
      .def_prop_ro(
          "wake_fd", [](bound_server& self) { return self->wake_descriptor(); },
          "Readable when drain() has something to do.")
      .def_prop_ro(
          "channel_fd", [](bound_server& self) { return self->channel_descriptor(); },
          "Readable when drain() has something of the channel's to do.")
      .def("switch_to", &bound_server::switch_to, "mode"_a,
           "Change the mode while events arrive; what the old mode queued is delivered.")
      .def(
          "serve",
          [](bound_server& self, std::optional<std::int64_t> until_ns) {
            return self->main().serve(until_ns);
          },
          "until_ns"_a.none(),
          "Idle and deliver until that monotonic time (False) or until a watched descriptor is "
          "readable (True).")
      .def(
          "drain", [](bound_server& self) { self->main().drain(); }, "Deliver what is queued now.")
      .def(
          "watch_nothing", [](bound_server& self) { self->main().watch_nothing(); },
          "From now on serve() ends by time only.")
      .def("stats", &stats_of)
      .def(
          "latency", [](const bound_server& self) { return told_of(self.phase()); },
          "Of the running phase.")
      .def(
          "end_phase", [](bound_server& self) { return told_of(self.end_phase()); },
          "The latency of the phase that ends with this call; the next one begins.")
      .def("stop_accepting", [](bound_server& self) { self->stop_accepting(); })
      .def(
          "stop", [](bound_server& self) { self->stop(); },
          "Close all connections and join the IO threads.");
}
