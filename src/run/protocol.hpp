// protocol.hpp: the references that `moored run` redirects, and the names by which its two
// libraries meet.
//
// The audit library knows which reference is bound to which function, but lives in a namespace of
// its own, where thread_local destructors do not run. So it sends each reference to a function of
// the preloaded library, and tells that library where the real one is.
#pragma once

/// Every function that is replaced: those by which a native thread enters Python, and those by
/// which it leaves. A state that is counted once more survives its Release; but what the call has
/// left behind has to go, as it would with a temporary state.
#define MOORED_FOR_EACH_HOOK(hook)                                            \
  hook(PyGILState_Ensure) hook(PyGILState_Release) hook(PyThreadState_Ensure) \
      hook(PyThreadState_EnsureFromView) hook(PyThreadState_Release)

/// The same, for those objects alone that make and clear states by themselves (pybind11).
#define MOORED_FOR_EACH_HOOK_OF_MAKERS(hook)                                   \
  hook(PyEval_AcquireThread) hook(PyEval_SaveThread) hook(PyThreadState_Clear) \
      hook(PyThreadState_DeleteCurrent)

/// The preloaded library exports its replacement of `f` as moored_hook_f, and as moored_real_f the
/// place for the address of f. What it does not export is not redirected.
#define MOORED_HOOK_NAME(f) moored_hook_##f
#define MOORED_REAL_NAME(f) moored_real_##f

#define MOORED_KEEP_LIBRARY "libmoored_keep.so"
#define MOORED_AUDIT_LIBRARY "libmoored_audit.so"

/// What the launcher tells the preloaded library; see settings.hpp.
#define MOORED_RUN_VARIABLE "MOORED_RUN"
#define MOORED_RUN_JSON_VARIABLE "MOORED_RUN_JSON"
#define MOORED_RUN_COMMAND_VARIABLE "MOORED_RUN_COMMAND"
