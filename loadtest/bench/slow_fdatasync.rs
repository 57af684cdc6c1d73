//! Adds a millisecond to every fdatasync of the process that it is loaded into, as a disk in a
//! cloud would: compiled as a `cdylib` by the benchmark, and named in LD_PRELOAD.

#![allow(unsafe_code)]

use std::{ffi::c_int, sync::OnceLock, time::Duration};

type Fdatasync = unsafe extern "C" fn(c_int) -> c_int;

unsafe extern "C" {
    fn dlsym(handle: *mut std::ffi::c_void, name: *const std::ffi::c_char) -> *mut std::ffi::c_void;
}

/// `RTLD_NEXT` on Linux: the symbol in what was loaded after this.
const NEXT: *mut std::ffi::c_void = -1_isize as *mut std::ffi::c_void;

/// # Safety
/// As libc's `fdatasync`, which it calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    static REAL: OnceLock<Option<Fdatasync>> = OnceLock::new();
    std::thread::sleep(Duration::from_millis(1));
    let real = REAL.get_or_init(|| {
        // SAFETY: the name ends with a NUL, and the symbol found has libc's signature.
        let found = unsafe { dlsym(NEXT, c"fdatasync".as_ptr()) };
        // SAFETY: a pointer to that function, or null, which is `None`.
        unsafe { std::mem::transmute::<*mut std::ffi::c_void, Option<Fdatasync>>(found) }
    });
    match real {
        // SAFETY: libc's own function, with the caller's argument.
        Some(real) => unsafe { real(fd) },
        None => -1,
    }
}
