//! Which part of a file is asked for (RFC 9110 section 14).

use std::ops::Range;

use guest_sdk::{
    HeaderMap, HeaderValue,
    header::{IF_RANGE, RANGE},
};

/// So many ranges at once are an attempt to have the file sent many times (RFC 9110 section 17.15).
const MOST: usize = 10;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Bytes(Range<u64>),
    /// There is no such part, or there are too many.
    Unsatisfiable,
}

/// What of a file of `length` bytes the head of a GET request asks for. Of several ranges it is all of the file, as it is where
/// `If-Range` says so: nothing here tells one state of a file from the next.
pub(crate) fn part(headers: &HeaderMap, length: u64) -> Part {
    let range = headers.get(RANGE).filter(|_| !headers.contains_key(IF_RANGE));
    let Some(ranges) = range.and_then(ranges) else { return Part::Whole };
    if ranges.split(',').count() > MOST {
        return Part::Unsatisfiable;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else { return Part::Whole };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => within(first..last.saturating_add(1), length),
        (Some(first), None) if last.is_empty() => within(first..u64::MAX, length),
        (None, Some(0)) if first.is_empty() => Part::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() => within(length.saturating_sub(suffix)..u64::MAX, length),
        // What is no range, or several, is as if it were not there.
        _ => Part::Whole,
    }
}

fn ranges(value: &HeaderValue) -> Option<&str> {
    let (unit, ranges) = value.to_str().ok()?.split_once('=')?;
    unit.eq_ignore_ascii_case("bytes").then_some(ranges)
}

/// No file has more bytes than can be counted.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn within(range: Range<u64>, length: u64) -> Part {
    if range.start < length { Part::Bytes(range.start..range.end.min(length)) } else { Part::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ten(range: &str) -> Part {
        part(&HeaderMap::from_iter([(RANGE, HeaderValue::try_from(range).expect("a value"))]), 10)
    }

    #[test]
    fn a_range_is_a_part_of_the_file() {
        for (range, bytes) in [
            ("bytes=0-0", 0..1),
            ("bytes=2-5", 2..6),
            ("bytes=2-", 2..10),
            ("bytes=9-99", 9..10),
            ("bytes=0-18446744073709551616", 0..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("Bytes=1-1", 1..2),
        ] {
            assert_eq!(of_ten(range), Part::Bytes(bytes), "{range}");
        }
        for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(of_ten(range), Part::Unsatisfiable, "{range}");
        }
    }

    #[test]
    fn what_is_no_range_is_ignored_and_too_many_are_refused() {
        for range in
            ["bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=+1-2", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5"]
        {
            assert_eq!(of_ten(range), Part::Whole, "{range}");
        }
        assert_eq!(of_ten(&format!("bytes=0-{}", ",5-0".repeat(10))), Part::Unsatisfiable);
        let mut headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=1-2"))]);
        headers.insert(IF_RANGE, HeaderValue::from_static("\"tag\""));
        assert_eq!(part(&headers, 10), Part::Whole);
        assert_eq!(part(&HeaderMap::new(), 10), Part::Whole);
    }

    #[test]
    fn an_empty_file_has_no_parts() {
        let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-"))]);
        assert_eq!(part(&headers, 0), Part::Unsatisfiable);
    }
}
