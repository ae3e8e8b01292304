//! Heads as guests of WASI 0.3 see and make them.

use crate::harness::{BOTH, Host, Http};

const GUEST: &str = "wasip3_guest";

#[test]
fn heads_follow_the_rules_of_the_interface() {
    let host = Host::of(GUEST);
    let expected = "\
name with a space: HeaderError::InvalidSyntax
empty name: HeaderError::InvalidSyntax
value with a line feed: HeaderError::InvalidSyntax
set to a value with a zero: HeaderError::InvalidSyntax
value that is not UTF-8: accepted
Connection: HeaderError::Forbidden
keep-alive: HeaderError::Forbidden
Host: HeaderError::Forbidden
Transfer-Encoding: HeaderError::Forbidden
upgrade: HeaderError::Forbidden
te: HeaderError::Forbidden
proxy-connection: HeaderError::Forbidden
list with a malformed name: HeaderError::InvalidSyntax
list with a forbidden name: HeaderError::Forbidden
list with a malformed value: HeaderError::InvalidSyntax
too large a value: HeaderError::SizeExceeded
get and delete: accepted
set in incoming: HeaderError::Immutable
append to incoming: HeaderError::Immutable
delete from incoming: HeaderError::Immutable
append to a clone of incoming: accepted
set in outgoing: HeaderError::Immutable
append to outgoing: HeaderError::Immutable
delete from outgoing: HeaderError::Immutable
append to a clone of outgoing: accepted
set in answer's: HeaderError::Immutable
append to answer's: HeaderError::Immutable
delete from answer's: HeaderError::Immutable
append to a clone of answer's: accepted
";
    for version in BOTH {
        assert_eq!(host.get(version, "/fields/rules").text(), expected, "{version:?}");
        let hop_by_hop = [("te", "trailers"), ("x-private", "1"), ("x-stays", "1")];
        let names = host.ask(version, "GET", "/fields/names", &hop_by_hop, None).expect("a whole answer");
        assert!(names.text().contains("x-stays\n"), "{}", names.text());
        for name in ["host", "te", "connection"] {
            assert!(names.text().lines().all(|line| line != name), "{version:?}: {}", names.text());
        }
    }
}

#[test]
fn parts_of_requests_and_answers_are_looked_at_when_they_are_set() {
    let host = Host::of(GUEST);
    let expected = "\
method with a space: false
method of one's own: true
scheme with a line feed: false
path with a line feed: false
authority \"host:99999\": false
authority \"host:80:80\": false
authority \"bad\\nhost\": false
authority \"[::1]\": true
authority \"[::1]:443\": true
authority \"host\": true
status 99: false
status 200: true
status 599: true
status 600: false
status 1000: false
";
    assert_eq!(host.get(Http::One, "/fields/parts").text(), expected);
    assert_eq!(
        host.get(Http::One, "/fields/options").text(),
        "[Some(1), Some(2), Some(3)], RequestOptionsError::Immutable, Ok(())"
    );
}
