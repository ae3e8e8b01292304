//! The guests of these tests as Rust's toolchain would put them: one core module in a component that only wraps it, which is called directly.
//! What comes of them must be the same either way.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use astra_server::Body;
use http::Method;
use http_body::Body as _;

use super::{Ended, GUEST, IMPORTS, MEMORY, engine, load_wat, run_watched};
use crate::{
    failure::FailureKind,
    guest::{Limits, program::Program},
};

/// A function that they import: of which instance, which is which interface, its name there, and here, and its parameters and results.
const FUNCTIONS: [(&str, &str, &str, &str, &str); 15] = [
    ("$poll", "wasi:io/poll@0.2.0", "[method]pollable.block", "$block", "(param i32)"),
    ("$clock", "wasi:clocks/monotonic-clock@0.2.3", "subscribe-duration", "$sleep", "(param i64) (result i32)"),
    ("$exit", "wasi:cli/exit@0.2.0", "exit", "$exit", "(param i32)"),
    ("$stdout", "wasi:cli/stdout@0.2.0", "get-stdout", "$stdout", "(result i32)"),
    ("$types", "wasi:http/types@0.2.4", "[constructor]fields", "$fields", "(result i32)"),
    ("$types", "wasi:http/types@0.2.4", "[constructor]outgoing-response", "$response", "(param i32) (result i32)"),
    ("$streams", "wasi:io/streams@0.2.0", "[resource-drop]output-stream", "$drop-output", "(param i32)"),
    (
        "$streams",
        "wasi:io/streams@0.2.0",
        "[method]output-stream.blocking-write-and-flush",
        "$print",
        "(param i32 i32 i32 i32)",
    ),
    ("$streams", "wasi:io/streams@0.2.0", "[method]input-stream.blocking-read", "$read", "(param i32 i64 i32)"),
    ("$types", "wasi:http/types@0.2.4", "[method]incoming-request.consume", "$consume", "(param i32 i32)"),
    ("$types", "wasi:http/types@0.2.4", "[method]incoming-body.stream", "$upload", "(param i32 i32)"),
    ("$types", "wasi:http/types@0.2.4", "[method]outgoing-response.body", "$body", "(param i32 i32)"),
    ("$types", "wasi:http/types@0.2.4", "[method]outgoing-body.write", "$write", "(param i32 i32)"),
    ("$types", "wasi:http/types@0.2.4", "[static]outgoing-body.finish", "$finish", "(param i32 i32 i32 i32)"),
    (
        "$types",
        "wasi:http/types@0.2.4",
        "[static]response-outparam.set",
        "$set",
        "(param i32 i32 i32 i32 i64 i32 i32 i32 i32)",
    ),
];
/// So many of them, the first, need no memory; the others go through a table, since they are there before it.
const PLAIN: usize = 7;

/// Such a component, in which the guest's function is `body`.
pub(super) fn wrapped(body: &str) -> String {
    let through = &FUNCTIONS[PLAIN..];
    let slots = through.len();
    let (mut imports, mut lowered, mut given) = (String::new(), String::new(), BTreeMap::<_, String>::new());
    let (mut shim, mut fixups, mut fixed) = (String::new(), String::new(), String::new());
    for (index, (instance, interface, name, called, ty)) in FUNCTIONS.iter().enumerate() {
        let function = match *name {
            "[resource-drop]output-stream" => format!("(core func {called} (canon resource.drop $output))"),
            _ if index < PLAIN => format!("(core func {called} (canon lower (func {instance} \"{name}\")))"),
            _ => format!(
                "(core func {called} (canon lower (func {instance} \"{name}\") (memory $memory) (realloc $realloc)))"
            ),
        };
        writeln!(imports, "(import \"{interface}\" \"{name}\" (func {called} {ty}))").expect("a string");
        let given = given.entry(interface).or_default();
        match index.checked_sub(PLAIN) {
            None => {
                lowered += &function;
                write!(given, "(export \"{name}\" (func {called}))").expect("a string");
            }
            Some(slot) => {
                let gets: String = (0..ty.matches("i32").count() + ty.matches("i64").count())
                    .map(|parameter| format!("local.get {parameter} "))
                    .collect();
                write!(shim, "(func (export \"{slot}\") {ty} {gets} i32.const {slot} call_indirect {ty})")
                    .expect("a string");
                write!(given, "(export \"{name}\" (func $shim \"{slot}\"))").expect("a string");
                write!(fixups, "(import \"\" \"{slot}\" (func {ty}))").expect("a string");
                fixed += &function;
            }
        }
    }
    let numbers: String = (0..slots).map(|slot| format!("{slot} ")).collect();
    let with: String =
        given.iter().map(|(interface, functions)| format!("(with \"{interface}\" (instance {functions}))")).collect();
    let exports: String = through
        .iter()
        .enumerate()
        .map(|(slot, function)| format!("(export \"{slot}\" (func {}))", function.3))
        .collect();
    let memory = MEMORY.replace("REALLOC", "cabi_realloc");
    let guest = GUEST.replace("HANDLE", "wasi:http/incoming-handler@0.2.4#handle").replace("BODY", body);
    format!(
        r#"(component {IMPORTS}
        (core module $main-module {imports} {memory} {guest})
        (core module $shim-module (table $table {slots} {slots} funcref) {shim} (export "$imports" (table $table)))
        (core module $fixups-module {fixups} (import "" "$imports" (table {slots} {slots} funcref)) (elem (i32.const 0) func {numbers}))
        (core instance $shim (instantiate $shim-module))
        {lowered}
        (core instance $main (instantiate $main-module {with}))
        (alias core export $main "memory" (core memory $memory))
        (alias core export $shim "$imports" (core table $imports))
        (alias core export $main "cabi_realloc" (core func $realloc))
        {fixed}
        (core instance (instantiate $fixups-module (with "" (instance (export "$imports" (table $imports)) {exports}))))
        (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
          (canon lift (core func $main "wasi:http/incoming-handler@0.2.4#handle")))
        (instance $handler (export "handle" (func $handle)))
        (export "wasi:http/incoming-handler@0.2.4" (instance $handler)))"#
    )
}

/// The same as a component that has a module more, so that it is not called directly.
pub(super) fn unwrapped(wrapped: &str) -> String {
    wrapped.replace("(core instance $shim ", "(core module) (core instance $shim ")
}

/// What comes of a guest that is called directly, once it is seen that the same comes of it as a component.
pub(super) fn request_both_ways(method: &Method, limits: &Limits, wrapped: &str) -> Ended {
    let run = |text: &str, is_direct: bool| {
        let module = load_wat(text).expect("a handler");
        assert_eq!(matches!(module.program(), Program::Direct(_)), is_direct);
        run_watched(engine(), &module, method.clone(), Body::from("upload"), limits, Arc::default())
    };
    let (component, direct) = (run(&unwrapped(wrapped), false), run(wrapped, true));
    let told = |ended: &Ended| {
        let response = ended.response.as_ref();
        let head = response.map(|it| (it.status(), it.headers().clone(), it.body().size_hint().exact()));
        (ended.kind(), ended.printed.clone(), ended.report.bytes_in, head)
    };
    assert_eq!(told(&direct), told(&component), "{:?} and {:?}", direct.report, component.report);
    direct
}

/// How a guest fails with this function, either way.
fn failure(body: &str) -> Option<FailureKind> {
    request_both_ways(&Method::GET, &Limits::default(), &wrapped(body)).kind()
}

/// A guest that says hello.
pub(super) const HELLO: &str = "(call $answer (local.get $out)) (call $say) (call $done)";

#[test]
fn what_a_guest_hands_over_wrongly_traps() {
    let print = |stream: &str, at: u32, length: u32, place: u32| {
        format!("(call $print {stream} (i32.const {at}) (i32.const {length}) (i32.const {place}))")
    };
    let set = |numbers: [i32; 8]| {
        let [case, code, one, two, three, four, five, six] = numbers;
        format!(
            "(call $set (local.get $out) (i32.const {case}) (i32.const {code}) (i32.const {one}) (i64.const {two}) \
                (i32.const {three}) (i32.const {four}) (i32.const {five}) (i32.const {six}))"
        )
    };
    let stdout = "(call $stdout)";
    for (what, body) in [
        ("a list that begins outside of its memory", print(stdout, 65537, 0, 16)),
        ("a list that ends outside of its memory", print(stdout, 65530, 7, 16)),
        ("a list that ends beyond all memory", print(stdout, 64, u32::MAX, 16)),
        ("a place for a result outside of its memory", print(stdout, 64, 13, 65532)),
        ("a place for a result that is not aligned", print(stdout, 64, 13, 18)),
        ("no handle", print("(i32.const 0)", 64, 13, 16)),
        ("a handle that there is not", print("(i32.const 77)", 64, 13, 16)),
        ("a handle to something else", print("(call $fields)", 64, 13, 16)),
        (
            "what it has handed over",
            "(drop (call $response (call $fields))) (drop (call $response (i32.const 3)))".into(),
        ),
        ("a status that is none", "(call $exit (i32.const 2))".into()),
        ("an answer that is none", set([2, 0, 0, 0, 0, 0, 0, 0])),
        ("an error code that is none", set([1, 39, 0, 0, 0, 0, 0, 0])),
        ("an option that is none", set([1, 38, 2, 0, 0, 0, 0, 0])),
        ("text out of its memory", set([1, 38, 1, 65536, 1, 0, 0, 0])),
        (
            "text that is not UTF-8",
            format!("(i32.store8 (i32.const 64) (i32.const 255)) {}", set([1, 38, 1, 64, 1, 0, 0, 0])),
        ),
    ] {
        assert_eq!(failure(&body), Some(FailureKind::Trap), "{what}");
    }
    assert_eq!(
        failure(&print(stdout, 65536, 0, 65524)),
        Some(FailureKind::NoAnswer),
        "nothing, at the end of its memory"
    );
    assert_eq!(failure(&set([1, 38, 1, 64, 5, 0, 0, 0])), Some(FailureKind::GuestError));
    // 32 bits in the place of 64: the upper ones do not count.
    let wide = set([1, 38, 1, 64, 5, 0, 0, 0]).replace("(i64.const 64)", "(i64.const 0x700000040)");
    assert_eq!(failure(&wide), Some(FailureKind::GuestError));
}

#[test]
fn what_a_guest_hands_over_at_once_is_bounded() {
    let most = |hostcall_bytes| {
        let limits = Limits { hostcall_bytes, ..Limits::default() };
        request_both_ways(&Method::GET, &limits, &wrapped(HELLO)).kind()
    };
    assert_eq!(most(13), None);
    assert_eq!(most(12), Some(FailureKind::Trap));
}

#[test]
fn memory_for_a_result_is_the_guests_to_find_and_nothing_else_happens_then() {
    let with = |allocate: &str| {
        let allocator = "(global.get $top) (global.set $top ";
        let text =
            wrapped("(call $take (local.get $request)) (call $answer (local.get $out)) (call $say) (call $done)");
        assert_eq!(text.matches(allocator).count(), 1);
        let text = text.replace(allocator, &format!("{allocate} {allocator}"));
        request_both_ways(&Method::GET, &Limits::default(), &text).kind()
    };
    assert_eq!(with(""), None);
    assert_eq!(with("(return (i32.const 65530))"), None, "what it found is enough for one byte");
    assert_eq!(with("(return (i32.const 65536))"), Some(FailureKind::Trap), "none is left");
    assert_eq!(with("(return (i32.const -1))"), Some(FailureKind::Trap));
    assert_eq!(with("unreachable"), Some(FailureKind::Trap));
    assert_eq!(with("(drop (call $stdout))"), Some(FailureKind::Trap), "it calls the host");
    assert_eq!(with("(call $drop-output (i32.const 1))"), Some(FailureKind::Trap), "also if that needs nothing");
}
