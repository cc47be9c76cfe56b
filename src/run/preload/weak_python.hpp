// weak_python.hpp: makes every reference to Python a weak one, because this library is also loaded
// into processes that have no Python. Included before anything of CPython's or moored's.
#pragma once

#include <patchlevel.h>

#pragma weak _Py_Dealloc
#pragma weak _Py_DecRef
#pragma weak _Py_DecRefShared
#pragma weak _Py_MergeZeroLocalRefcount
#pragma weak _Py_NoneStruct
#pragma weak _PyEval_GetSwitchInterval
#pragma weak _PyObject_CallMethod_SizeT
#pragma weak Py_AddPendingCall
#pragma weak Py_AtExit
#pragma weak Py_DecRef
#pragma weak Py_GetVersion
#pragma weak Py_IncRef
#pragma weak Py_IsFinalizing
#pragma weak Py_IsInitialized
#pragma weak PyCapsule_GetPointer
#pragma weak PyCapsule_New
#pragma weak PyCFunction_New
#pragma weak PyCMethod_New
#pragma weak PyContext_CopyCurrent
#pragma weak PyContext_Enter
#pragma weak PyContext_Exit
#pragma weak PyContext_Type
#pragma weak PyDict_Clear
#pragma weak PyDict_DelItemString
#pragma weak PyDict_GetItemString
#pragma weak PyDict_New
#pragma weak PyDict_SetItemString
#pragma weak PyDict_Size
#pragma weak PyErr_Clear
#pragma weak PyErr_Fetch
#pragma weak PyErr_GetRaisedException
#pragma weak PyErr_NoMemory
#pragma weak PyErr_NormalizeException
#pragma weak PyErr_Occurred
#pragma weak PyErr_Restore
#pragma weak PyErr_SetExcInfo
#pragma weak PyErr_SetRaisedException
#pragma weak PyEval_AcquireThread
#pragma weak PyEval_RestoreThread
#pragma weak PyEval_SaveThread
#pragma weak PyException_GetTraceback
#pragma weak PyException_SetTraceback
#pragma weak PyGILState_Ensure
#pragma weak PyGILState_GetThisThreadState
#pragma weak PyGILState_Release
#pragma weak PyImport_GetModuleDict
#pragma weak PyImport_ImportModule
#pragma weak PyInterpreterGuard_Close
#pragma weak PyInterpreterGuard_FromView
#pragma weak PyInterpreterState_Get
#pragma weak PyInterpreterState_GetDict
#pragma weak PyInterpreterState_Main
#pragma weak PyInterpreterView_Close
#pragma weak PyInterpreterView_FromMain
#pragma weak PyIter_Next
#pragma weak PyMem_RawCalloc
#pragma weak PyMem_RawFree
#pragma weak PyObject_Call
#pragma weak PyObject_CallMethod
#pragma weak PyObject_CallNoArgs
#pragma weak PyObject_GetArenaAllocator
#pragma weak PyObject_GetAttrString
#pragma weak PyObject_GetIter
#pragma weak PyObject_IsTrue
#pragma weak PyObject_SetArenaAllocator
#pragma weak PyObject_Size
#pragma weak PySet_Type
#pragma weak PySys_WriteStderr
#pragma weak PyThread_get_thread_ident
#pragma weak PyThreadState_Clear
#pragma weak PyThreadState_Delete
#pragma weak PyThreadState_DeleteCurrent
#pragma weak PyThreadState_Ensure
#pragma weak PyThreadState_EnsureFromView
#pragma weak PyThreadState_GetDict
#pragma weak PyThreadState_GetInterpreter
#pragma weak PyThreadState_GetUnchecked
#pragma weak PyThreadState_New
#pragma weak PyThreadState_Release
#pragma weak PyThreadState_SetAsyncExc
#pragma weak PyThreadState_Swap
#pragma weak PyTuple_New

// Before they were public; inline functions by now.
#if PY_VERSION_HEX < 0x030D0000
#pragma weak _Py_IsFinalizing
#pragma weak _PyThreadState_UncheckedGet
#endif
