//! The last draft of WASI 0.3, which has the very interfaces of 0.3.0 and is what Spin and older bindings still import. Pure.
//!
//! A draft is compatible with nothing, but a build of a release with that release (semver section 10), and its name differs from the draft's
//! in one byte. So nothing in a module changes its length or place, and it links like one of today.

/// How a module names it.
pub(crate) const VERSION: &str = "0.3.0-rc-2026-03-15";
/// Where the byte is that makes it a draft.
const DASH: usize = "0.3.0".len();

/// Whether this is the name of an interface of the draft.
pub(crate) fn is_in(name: &str) -> bool {
    name.strip_suffix(VERSION).is_some_and(|name| name.ends_with('@'))
}

/// Gives all interfaces of the draft the name of a release, in a whole module.
pub(crate) fn make_release(module: &mut [u8]) {
    let version = VERSION.as_bytes();
    let mut at = 0;
    while let Some(found) = module[at..].iter().position(|byte| *byte == b'@') {
        at += found + 1;
        if module[at..].starts_with(version) {
            module[at + DASH] = b'+';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_of_each_name_changes() {
        let mut module =
            *b"@@0.3.0-rc-2026-03-15 0.3.0-rc-2026-03-15 @0.3.0-rc-2026-01-06@0.3.0-rc-2026-03-15@0.3.0-rc";
        make_release(&mut module);
        let expected = "@@0.3.0+rc-2026-03-15 0.3.0-rc-2026-03-15 @0.3.0-rc-2026-01-06@0.3.0+rc-2026-03-15@0.3.0-rc";
        assert_eq!(String::from_utf8_lossy(&module), expected);
        assert!(is_in("wasi:http/handler@0.3.0-rc-2026-03-15") && !is_in("wasi:http/handler@0.3.0"));
    }
}
