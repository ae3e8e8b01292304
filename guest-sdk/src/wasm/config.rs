//! `wasi:config/store@0.2.0-rc.1`, by hand: the WASI bindings do not have it, and two functions are no reason for every guest's first build
//! to wait for a generator of bindings.
//!
//! The canonical ABI (component-model, `CanonicalABI.md`) returns both results as four words in memory. Strings and lists in them were
//! allocated with this guest's own allocator (`cabi_realloc`, which comes with the bindings of what every handler uses).

#![expect(unsafe_code, reason = "imported functions, and memory that the host has filled")]

use std::ptr;

use crate::response::report;

#[link(wasm_import_module = "wasi:config/store@0.2.0-rc.1")]
unsafe extern "C" {
    #[link_name = "get"]
    fn store_get(name: *const u8, length: usize, result: *mut [usize; 4]);
    #[link_name = "get-all"]
    fn store_get_all(result: *mut [usize; 4]);
}

/// What the two are, for the linker that makes a component: what wit-bindgen 0.62 writes for the world `wasi:config/imports@0.2.0-rc.1`. It
/// only counts if the functions are used, too.
#[used]
#[unsafe(link_section = "component-type:wit-bindgen:0.62.0:wasi:config@0.2.0-rc.1:imports:encoded world:guest-sdk")]
static WORLD: [u8; 293] = *b"\
\0asm\x0d\0\x01\0\0\x19\x16wit-component-encoding\x04\0\x07\xa7\x01\x01A\x02\x01\
A\x02\x01B\x0b\x01q\x02\x08upstream\x01s\0\x02io\x01s\0\x04\0\x05error\x03\0\0\x01\
ks\x01j\x01\x02\x01\x01\x01@\x01\x03keys\0\x03\x04\0\x03get\x01\x04\x01o\x02ss\x01\
p\x05\x01j\x01\x06\x01\x01\x01@\0\0\x07\x04\0\x07get-all\x01\x08\x03\0\x1cwasi:c\
onfig/store@0.2.0-rc.1\x05\0\x04\0\x1ewasi:config/imports@0.2.0-rc.1\x04\0\x0b\x0d\
\x01\0\x07imports\x03\0\0\0G\x09producers\x01\x0cprocessed-by\x02\x0dwit-compone\
nt\x070.259.0\x10wit-bindgen-rust\x060.62.0";

/// Not inlined into another crate: the section above is linked with the object file of this function.
#[inline(never)]
pub(crate) fn config_var(name: &str) -> Option<String> {
    let mut result = [0; 4];
    // SAFETY: as the import's type says (`get: func(key: string) -> result<option<string>, error>`): a string, and room for four words.
    unsafe { store_get(name.as_ptr(), name.len(), &raw mut result) };
    let [is_error, tag, bytes, length] = result;
    if is_error == 0 && tag == 0 {
        return None;
    }
    // SAFETY: it is a string, of the value or of the error, and it is taken over once.
    let text = unsafe { Text { bytes, length }.lift() };
    if is_error != 0 { refused(text) } else { Some(text) }
}

/// See [`config_var`].
#[inline(never)]
pub(crate) fn config_all() -> Vec<(String, String)> {
    let mut result = [0; 4];
    // SAFETY: as the import's type says (`get-all: func() -> result<list<tuple<string, string>>, error>`): room for four words.
    unsafe { store_get_all(&raw mut result) };
    let [is_error, one, two, three] = result;
    if is_error != 0 {
        // SAFETY: it is the string of the error, and it is taken over once.
        return refused(unsafe { Text { bytes: two, length: three }.lift() }).unwrap_or_default();
    }
    // SAFETY: it is a list, allocated with exactly this length, of two strings each, and it is taken over once; and so are they.
    let list = unsafe { Vec::from_raw_parts(ptr::with_exposed_provenance_mut::<[Text; 2]>(one), two, two) };
    list.into_iter().map(|[name, value]| unsafe { (name.lift(), value.lift()) }).collect()
}

/// A `string` in memory.
#[repr(C)]
struct Text {
    bytes: usize,
    length: usize,
}

impl Text {
    /// # Safety
    ///
    /// It is a string that the host has allocated, and nobody else takes it over.
    unsafe fn lift(self) -> String {
        // SAFETY: allocated by `cabi_realloc` with this length; the caller vouches for the rest.
        let bytes =
            unsafe { Vec::from_raw_parts(ptr::with_exposed_provenance_mut(self.bytes), self.length, self.length) };
        String::from_utf8(bytes).unwrap_or_default() // the host has checked that it is UTF-8
    }
}

fn refused<T>(reason: String) -> Option<T> {
    report("the host could not look into its configuration", &*Box::<dyn std::error::Error>::from(reason));
    None
}
