// lib.rs: the callback of an extension in Rust, with PyO3.
use std::ffi::c_void;

use pyo3::prelude::*;

unsafe extern "C" fn call(callable: *mut c_void) {
    let callable = unsafe { &*(callable as *const Py<PyAny>) };
    Python::attach(|py| {
        if let Err(error) = callable.call0(py) {
            error.print(py);
        }
    });
}

/// The callable lives from now on for as long as the process.
#[pyfunction]
fn make(callable: Py<PyAny>) -> (usize, usize) {
    let function: unsafe extern "C" fn(*mut c_void) = call;
    (function as usize, Box::into_raw(Box::new(callable)) as usize)
}

#[pymodule]
fn pyo3_callback(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(make, module)?)
}
