// The ways into Python from a native thread, by Google Benchmark: `moored bench attach` without
// Python around it.
#include <Python.h>
#include <benchmark/benchmark.h>

#include <moored/moored.hpp>
#include <vector>

#include "../cost/batch.hpp"
#include "../cost/entries.hpp"

namespace {

constexpr std::size_t batch = 64;

// Each run has a fresh native thread: no way finds a thread state that another one left behind.
void run(benchmark::State& state, const moored::lab::operation& op) {
  try {
    moored::lab::on_native_thread(-1, [&] {
      if (op.before) op.before();
      while (state.KeepRunningBatch(batch)) op.repeat(batch);
      if (op.after) op.after();
    });
  } catch (const moored::lab::refused& why) {
    state.SkipWithError(why.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  Py_InitializeEx(0);
  moored::open();
  PyRun_SimpleString("def only_returns(): pass");
  PyObject* const main_module = PyImport_AddModule("__main__");  // borrowed
  PyObject* const callback = PyObject_GetAttrString(main_module, "only_returns");
  for (const moored::lab::operation& op : moored::lab::entries(callback)) {
    benchmark::RegisterBenchmark(op.key.c_str(), [op](benchmark::State& state) { run(state, op); });
  }
  {
    const moored::lending main_waits;
    benchmark::RunSpecifiedBenchmarks();
  }
  benchmark::Shutdown();
  Py_DECREF(callback);
  return Py_FinalizeEx() == 0 ? 0 : 1;
}
