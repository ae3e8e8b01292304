//! How lines end that a client of HTTP/1 sends. Pure.

/// Looks for LF without CR in front of it, in whatever pieces the bytes come. What is in a body counts too: there is no telling here.
#[derive(Default)]
pub(crate) struct LineEnds {
    last: u8,
}

impl LineEnds {
    /// Whether there is one in the next bytes.
    pub(crate) fn have_bare_lf(&mut self, bytes: &[u8]) -> bool {
        let Some(last) = bytes.last() else { return false };
        let first = std::mem::replace(&mut self.last, *last);
        let before = |at: usize| at.checked_sub(1).map_or(first, |at| bytes[at]);
        memchr::memchr_iter(b'\n', bytes).any(|at| before(at) != b'\r')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_lf_is_found_in_whatever_pieces_it_comes() {
        for (text, expected) in [
            ("", false),
            ("a\r\nb\r\n\r\n", false),
            ("a\r\nb\n", true),
            ("\n", true),
            ("a\r\r\n\n", true),
            ("\r\n\r\n", false),
        ] {
            assert_eq!(LineEnds::default().have_bare_lf(text.as_bytes()), expected, "{text:?}");
            let mut lines = LineEnds::default();
            let found = text.as_bytes().chunks(1).filter(|byte| lines.have_bare_lf(byte)).count();
            assert_eq!(found > 0, expected, "{text:?}, byte by byte");
        }
    }
}
