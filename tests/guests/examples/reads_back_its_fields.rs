//! Writes `fields` in every way there is, and says what it reads back.
//!
//! Names are the same in any case; `append` adds, `set` replaces, `delete` removes all values and minds no absent name; an empty value is
//! one; what is malformed is simply not there; a clone has a life of its own.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{Fields, IncomingRequest, ResponseOutparam};

test_guests::export!(read_back);

fn read_back(_request: &IncomingRequest, responder: ResponseOutparam) {
    let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let fields = Fields::from_list(&[pair("x-a", "1"), pair("X-B", "2"), pair("x-a", "3")]).expect("valid headers");
    let get = |fields: &Fields, name: &str| {
        let values: Vec<_> =
            fields.get(name).into_iter().map(|value| String::from_utf8(value).expect("ASCII")).collect();
        format!("{values:?}")
    };
    let mut text = format!("from a list: {} {}\n", get(&fields, "x-a"), fields.entries().len());
    text += &format!("in another case: {} {}\n", get(&fields, "X-A"), fields.has("x-b"));
    fields.append("X-a", b"4").expect("a valid header");
    text += &format!("appended: {}\n", get(&fields, "x-a"));
    fields.append("x-empty", b"").expect("a valid header");
    text += &format!("empty: {} {}\n", get(&fields, "x-empty"), fields.has("x-empty"));
    text += &format!("absent: {} {}\n", get(&fields, "x-none"), fields.has("x-none"));
    text += &format!("malformed: {} {}\n", get(&fields, "x none"), fields.has("x none"));
    let clone = fields.clone();
    clone.set("x-a", &[b"5".to_vec(), b"6".to_vec()]).expect("valid headers");
    text += &format!("set in a clone: {} and not here: {}\n", get(&clone, "x-a"), get(&fields, "x-a"));
    fields.delete("x-A").expect("a valid name");
    fields.delete("x-none").expect("a valid name");
    text += &format!("deleted: {} {}\n", get(&fields, "x-a"), fields.has("x-a"));
    let mut names: Vec<_> = clone.entries().into_iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    text += &format!("all of the clone: {names:?}\n");
    test_guests::answer(responder, &text);
}
