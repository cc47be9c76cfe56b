// hazard_threads: native threads that enter Python as most extensions do, and as moored does, for
// the tests of hazards. Each function does one dangerous thing; what it sees goes to stdout.
#include "building.hpp"
#include "crowds.hpp"
#include "ending.hpp"
#include "states.hpp"

namespace {

/// Ends the process, as one that hangs, when it says nothing for so long.
///
/// The time goes in turns that this thread is given: where the machine is busy with other things,
/// it goes more slowly, as all else does.
PyObject* hang_after(PyObject*, PyObject* seconds) {
  std::thread([limit = turns_of(seconds)] {
    int seen = said;
    for (long left = limit; left > 0; --left) {
      std::this_thread::sleep_for(turn);
      if (const int now = said; now != seen) {
        seen = now;
        left = limit;
      }
    }
    _exit(exit_code_of_a_hang);
  }).detach();
  Py_RETURN_NONE;
}

PyObject* wait_in_vain_for(PyObject*, PyObject* seconds) {
  vain_turns = turns_of(seconds);
  Py_RETURN_NONE;
}

PyObject* say_in_python(PyObject*, PyObject* line) {
  say(PyUnicode_AsUTF8(line));
  Py_RETURN_NONE;
}

PyObject* open_gate(PyObject*, PyObject*) {
  if (!moored::open()) return nullptr;
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"ask_a_stranger", ask_a_stranger, METH_O, nullptr},
    {"be_inside_when_it_closes", be_inside_when_it_closes, METH_O, nullptr},
    {"cache_hits", cache_hits, METH_NOARGS, nullptr},
    {"call_moored_with_gil_held", call_moored_with_gil_held, METH_NOARGS, nullptr},
    {"call_on_second_user", call_on_second_user, METH_O, nullptr},
    {"call_python_at_each_arena", call_python_at_each_arena, METH_O, nullptr},
    {"can_lock", can_lock, METH_NOARGS, nullptr},
    {"chunks", chunks, METH_NOARGS, nullptr},
    {"stats_of_chunks", stats_of_chunks, METH_NOARGS, nullptr},
    {"count_states", count_states, METH_NOARGS, nullptr},
    {"stats", stats, METH_NOARGS, nullptr},
    {"crowd", crowd, METH_VARARGS, nullptr},
    {"delete_state_of_ended_thread", delete_state_of_ended_thread, METH_O, nullptr},
    {"end_now", end_now, METH_NOARGS, nullptr},
    {"enter_and_be_joined", enter_and_be_joined, METH_O, nullptr},
    {"enter_from_noexcept", enter_from_noexcept, METH_O, nullptr},
    {"enter_now", enter_now, METH_NOARGS, nullptr},
    {"free_by_key", free_by_key, METH_O, nullptr},
    {"hang_after", hang_after, METH_O, nullptr},
    {"have_a_subinterpreter", have_a_subinterpreter, METH_NOARGS, nullptr},
    {"hold_a_lock", hold_a_lock, METH_O, nullptr},
    {"idle", idle, METH_O, nullptr},
    {"idle_with_guard", idle_with_guard, METH_O, nullptr},
    {"in_main_interpreter", in_main_interpreter, METH_NOARGS, nullptr},
    {"install", install, METH_NOARGS, nullptr},
    {"join_with_gil_held", join_with_gil_held, METH_O, nullptr},
    {"keep_and_wait", keep_and_wait, METH_O, nullptr},
    {"keep_until_exit", keep_until_exit, METH_O, nullptr},
    {"kept_state_dangles", kept_state_dangles, METH_NOARGS, nullptr},
    {"leave_an_error", leave_an_error, METH_O, nullptr},
    {"lock_with_gil_held", lock_with_gil_held, METH_NOARGS, nullptr},
    {"look_then_enter", look_then_enter, METH_NOARGS, nullptr},
    {"nested", nested, METH_NOARGS, nullptr},
    {"open", open_gate, METH_NOARGS, nullptr},
    {"patch_own_reference", patch_own_reference, METH_NOARGS, nullptr},
    {"private_fields", private_fields, METH_NOARGS, nullptr},
    {"release_elsewhere", release_elsewhere, METH_O, nullptr},
    {"say", say_in_python, METH_O, nullptr},
    {"state_id", state_id, METH_NOARGS, nullptr},
    {"use_state_made_elsewhere", use_state_made_elsewhere, METH_O, nullptr},
    {"wait_in_vain_for", wait_in_vain_for, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "hazard_threads",
    .m_doc = nullptr,
    .m_size = -1,
    .m_methods = methods,
    .m_slots = nullptr,
    .m_traverse = nullptr,
    .m_clear = nullptr,
    .m_free = nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit_hazard_threads() {
  return PyModule_Create(&definition);
}
