// A Rust library whose own thread calls a Python callable, through the C face. Python loads it with ctypes.
use std::ffi::{c_int, c_void};
use std::thread;

#[repr(C)]
struct Attachment {
    opaque: [u64; 2],
}

extern "C" {
    fn moored_attach(attachment: *mut Attachment) -> c_int;
    fn moored_detach(attachment: *mut Attachment);
    fn PyObject_CallNoArgs(callable: *mut c_void) -> *mut c_void;
    fn Py_DecRef(object: *mut c_void);
    fn PyEval_SaveThread() -> *mut c_void;
    fn PyEval_RestoreThread(state: *mut c_void);
}

struct Callable(*mut c_void);
unsafe impl Send for Callable {}

/// Calls `callable` so many times on one new thread; the caller holds the GIL. Gives how many calls went well.
#[no_mangle]
pub unsafe extern "C" fn call_on_a_thread(callable: *mut c_void, times: c_int) -> c_int {
    let callable = Callable(callable);
    let state = PyEval_SaveThread();
    let calls = thread::spawn(move || {
        let callable = callable;
        let mut calls = 0;
        for _ in 0..times {
            let mut attachment = Attachment { opaque: [0; 2] };
            if moored_attach(&mut attachment) != 0 {
                break;
            }
            let result = PyObject_CallNoArgs(callable.0);
            if !result.is_null() {
                Py_DecRef(result);
                calls += 1;
            }
            moored_detach(&mut attachment);
        }
        calls
    })
    .join()
    .unwrap_or(-1);
    PyEval_RestoreThread(state);
    calls
}
