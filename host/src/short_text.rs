//! Text that guests and clients choose, cut: no more of it is formatted than is kept, however long it would be. Pure.

use std::fmt::{self, Display, Write};

/// So many bytes of a text, and a mark if that is not all of it.
pub(crate) fn shortened(text: impl Display, most: usize) -> String {
    let mut short = ShortText { text: String::new(), most, is_cut: false };
    // An error ends the formatting, and means nothing else.
    let _ = write!(short, "{text}");
    if short.is_cut {
        short.text.push('…');
    }
    short.text
}

struct ShortText {
    text: String,
    most: usize,
    is_cut: bool,
}

impl Write for ShortText {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = if self.is_cut { 0 } else { self.most - self.text.len() };
        self.is_cut |= more.len() > room;
        self.text.push_str(&more[..more.floor_char_boundary(room)]);
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_short_stays_and_what_is_long_is_cut_between_characters() {
        assert_eq!(shortened("", 0), "");
        assert_eq!(shortened(format_args!("{}-{}", "ab", 1), 4), "ab-1");
        assert_eq!(shortened(format_args!("{}-{}", "ab", 12), 4), "ab-1…");
        assert_eq!(shortened("aéé", 4), "aé…");
    }

    #[test]
    fn what_is_beyond_is_not_even_formatted() {
        struct Counted(Cell<usize>);

        impl Display for Counted {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for _ in 0..1000 {
                    self.0.set(self.0.get() + 1);
                    f.write_str("é")?;
                }
                Ok(())
            }
        }

        let counted = Counted(Cell::new(0));
        assert_eq!(shortened(&counted, 5), "éé…");
        assert_eq!(counted.0.get(), 3);
        let text = "\u{1}".repeat(1 << 20);
        assert_eq!(shortened(format_args!("{text:?}"), 6), r#""\u{1}…"#);
    }

    /// Some do not look whether what they wrote was taken.
    #[test]
    fn nothing_follows_the_mark() {
        struct Deaf;

        impl Display for Deaf {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let _ = f.write_str("aé");
                let _ = f.write_str("b");
                Ok(())
            }
        }

        assert_eq!(shortened(Deaf, 2), "a…");
    }
}
