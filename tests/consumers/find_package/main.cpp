// A program that embeds Python and calls it from a thread of its own, nesting moored and CPython's
// own calls.
#include <moored/moored.hpp>

#include <cstdio>
#include <thread>

namespace {

constexpr int rounds = 5;

void call_python() {
  PyRun_SimpleString("note()");
}

void nest_both_ways() {
  for (int i = 0; i < rounds; ++i) {
    {
      const auto attached = moored::attach();
      const PyGILState_STATE inner = PyGILState_Ensure();
      call_python();
      PyGILState_Release(inner);
    }
    {
      const PyGILState_STATE outer = PyGILState_Ensure();
      {
        const auto attached = moored::attach();
        call_python();
      }
      PyGILState_Release(outer);
    }
  }
}

}  // namespace

int main() {
  if (moored::try_attach()) return 1;  // there is no interpreter yet
  Py_InitializeEx(0);
  moored::open();
  PyRun_SimpleString(
      "import threading\n"
      "local = threading.local()\n"
      "calls = []\n"
      "def note():\n"
      "    local.calls = getattr(local, 'calls', 0) + 1\n"
      "    calls.append((threading.get_ident(), local.calls))\n");
  {
    const moored::detachment detached;
    std::thread(nest_both_ways).join();
  }
  const int status = PyRun_SimpleString(
      "assert len({thread for thread, _ in calls}) == 1, calls\n"
      "assert [count for _, count in calls] == list(range(1, 11)), calls\n");
  const bool closed_well = Py_FinalizeEx() == 0;
  if (moored::try_attach()) return 1;  // it is gone again
  std::printf("%s\n", status == 0 && closed_well ? "moored" : "adrift");
  return status == 0 && closed_well ? 0 : 1;
}
