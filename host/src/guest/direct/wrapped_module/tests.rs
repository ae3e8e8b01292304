//! What is a wrapped module, and each of the things that make a component something else.

use super::*;

/// What wit-component makes, but that it has fewer functions, and fewer names.
const WRAPPED: &str = r#"(component
    (import "wasi:http/types@0.2.3" (instance $types
        (export "fields" (type $fields (sub resource)))
        (export "headers" (type $headers (eq $fields)))
        (export "incoming-request" (type $request (sub resource)))
        (export "response-outparam" (type $outparam (sub resource)))
        (export "[constructor]fields" (func (result (own $fields))))
        (export "[method]incoming-request.headers" (func (param "self" (borrow $request)) (result (own $headers))))
        (export "[method]incoming-request.path" (func (param "self" (borrow $request)) (result (option string))))
        (export "[method]incoming-request.query" (func (param "self" (borrow $request)) (result (option string))))))
    (import "wasi:cli/environment@0.2.3" (instance $environment
        (export "get-environment" (func (result (list (tuple string string)))))
        (export "poke" (func))))
    (core module $main
        (import "wasi:http/types@0.2.3" "[constructor]fields" (func (result i32)))
        (import "wasi:http/types@0.2.3" "[resource-drop]fields" (func (param i32)))
        (import "wasi:http/types@0.2.3" "[method]incoming-request.headers" (func (param i32) (result i32)))
        (import "wasi:http/types@0.2.3" "[method]incoming-request.path" (func (param i32 i32)))
        (import "wasi:http/types@0.2.3" "[method]incoming-request.query" (func (param i32 i32)))
        (import "wasi:cli/environment@0.2.0" "get-environment" (func (param i32)))
        (import "wasi:cli/environment@0.2.0" "poke" (func $poke))
        (memory (export "memory") 1)
        (memory (export "other-memory") 1)
        (table (export "other-table") 4 4 funcref)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "other_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "wasi:http/incoming-handler@0.2.3#handle") (param i32 i32))
        (func (export "other-handle") (param i32 i32)))
    (core module $shim
        (type $two (func (param i32 i32)))
        (type $one (func (param i32)))
        (type $none (func))
        (table $table 4 4 funcref)
        (func (export "0") (type $two) (call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 0)))
        (func (export "1") (type $two) (call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 1)))
        (func (export "2") (type $one) (call_indirect (type $one) (local.get 0) (i32.const 2)))
        (func (export "3") (type $none) (call_indirect (type $none) (i32.const 3)))
        (export "$imports" (table $table)))
    (core module $fixups
        (import "" "0" (func (param i32 i32)))
        (import "" "1" (func (param i32 i32)))
        (import "" "2" (func (param i32)))
        (import "" "3" (func))
        (import "" "$imports" (table 4 4 funcref))
        (elem (i32.const 0) func 0 1 2 3))
    (core instance $s (instantiate $shim))
    (core func $constructor (canon lower (func $types "[constructor]fields")))
    (alias export $types "fields" (type $fields))
    (core func $drop (canon resource.drop $fields))
    (core func $headers (canon lower (func $types "[method]incoming-request.headers")))
    (core instance $for-types
        (export "[constructor]fields" (func $constructor))
        (export "[resource-drop]fields" (func $drop))
        (export "[method]incoming-request.headers" (func $headers))
        (export "[method]incoming-request.path" (func $s "0"))
        (export "[method]incoming-request.query" (func $s "1")))
    (core instance $for-environment (export "get-environment" (func $s "2")) (export "poke" (func $s "3")))
    (core instance $m (instantiate $main
        (with "wasi:http/types@0.2.3" (instance $for-types))
        (with "wasi:cli/environment@0.2.0" (instance $for-environment))))
    (alias core export $m "memory" (core memory $memory))
    (alias core export $m "cabi_realloc" (core func $realloc))
    (alias export $types "[method]incoming-request.path" (func $path))
    (core func $lowered-path (canon lower (func $path) (memory $memory) (realloc $realloc) string-encoding=utf8))
    (alias export $types "[method]incoming-request.query" (func $query))
    (core func $lowered-query (canon lower (func $query) (memory $memory) (realloc $realloc) string-encoding=utf8))
    (core func $get-environment (canon lower (func $environment "get-environment") (memory $memory) (realloc $realloc)))
    (core func $poke (canon lower (func $environment "poke")))
    (core instance $for-fixups
        (export "$imports" (table $s "$imports"))
        (export "0" (func $lowered-path))
        (export "1" (func $lowered-query))
        (export "2" (func $get-environment))
        (export "3" (func $poke)))
    (core instance $f (instantiate $fixups (with "" (instance $for-fixups))))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "response-outparam" (type $outparam))
    (type $handle (func (param "request" (own $request)) (param "response-out" (own $outparam))))
    (alias core export $m "wasi:http/incoming-handler@0.2.3#handle" (core func $core-handle))
    (func $lifted (type $handle) (canon lift (core func $core-handle)))
    (component $renaming
        (import "request" (type $request (sub resource)))
        (import "outparam" (type $outparam (sub resource)))
        (type $given (func (param "request" (own $request)) (param "response-out" (own $outparam))))
        (import "given" (func $given (type $given)))
        (export "incoming-request" (type $request))
        (export $exported "handle" (func $given)))
    (instance $handler (instantiate $renaming
        (with "request" (type $request)) (with "outparam" (type $outparam)) (with "given" (func $lifted))))
    (export "wasi:http/incoming-handler@0.2.3" (instance $handler)))"#;

/// Places of it: what follows the modules, and what is last.
const AFTER_MODULES: &str = "(core instance $s ";
const EXPORT: &str = r#"(export "wasi:http/incoming-handler@0.2.3" (instance $handler))"#;

/// The text with something else in some places.
fn with(places: &[(&str, &str)]) -> Vec<u8> {
    let mut text = WRAPPED.to_owned();
    for (old, new) in places {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text = text.replace(old, new);
    }
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn is_wrapped(file: &[u8]) -> bool {
    wrapped_module(file).expect("well-formed").is_some()
}

fn yes(what: &str, places: &[(&str, &str)]) {
    assert!(is_wrapped(&with(places)), "{what}");
}

/// No, though it is a valid component.
fn no(what: &str, places: &[(&str, &str)]) {
    let file = with(places);
    if let Err(error) = wasmparser::validate(&file) {
        panic!("{what}: {error}");
    }
    assert!(!is_wrapped(&file), "{what}");
}

/// No, with something put before a place.
fn no_before(place: &str, what: &str, more: &str) {
    no(what, &[(place, &format!("{more} {place}"))]);
}

#[test]
fn a_wrapped_module_is_found_with_what_it_imports() {
    let file = with(&[]);
    let found = wrapped_module(&file).expect("well-formed").expect("wrapped");
    wasmparser::validate(found.module).expect("a module");
    let as_text =
        |it: &Import<'_>| format!("{} {} {}->{}", it.interface, it.name, it.ty.params().len(), it.ty.results().len());
    assert_eq!(
        found.imports.iter().map(as_text).collect::<Vec<_>>(),
        [
            "wasi:http/types@0.2.3 [constructor]fields 0->1",
            "wasi:http/types@0.2.3 [resource-drop]fields 1->0",
            "wasi:http/types@0.2.3 [method]incoming-request.headers 1->1",
            "wasi:http/types@0.2.3 [method]incoming-request.path 2->0",
            "wasi:http/types@0.2.3 [method]incoming-request.query 2->0",
            "wasi:cli/environment@0.2.0 get-environment 1->0",
            "wasi:cli/environment@0.2.0 poke 0->0",
        ]
    );
}

#[test]
fn what_nobody_can_tell_may_differ() {
    yes("custom sections", &[(AFTER_MODULES, r#"(@custom "name" "") (core instance $s "#)]);
    yes(
        "other names for the shim's functions",
        &[
            (r#"(func (export "0")"#, r#"(func (export "a")"#),
            (r#"(import "" "0""#, r#"(import "" "a""#),
            (r#"(export "0" (func $lowered-path))"#, r#"(export "a" (func $lowered-path))"#),
            (r#"(func $s "0")"#, r#"(func $s "a")"#),
        ],
    );
    yes(
        "the handler's instance made without a component",
        &[
            ("(instance $handler (instantiate $renaming", r#"(instance $handler (export "handle" (func $lifted)))"#),
            (
                r#"(with "request" (type $request)) (with "outparam" (type $outparam)) (with "given" (func $lifted))))"#,
                "",
            ),
        ],
    );
    yes(
        "a program beside the handler",
        &[
            (
                EXPORT,
                r#"(func $run (result u32) (canon lift (core func $m "run")))
        (instance $program (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $program))
        (export "wasi:http/incoming-handler@0.2.3" (instance $handler))"#,
            ),
            (
                r#"(func (export "other-handle")"#,
                r#"(func (export "run") (result i32) (i32.const 0)) (func (export "other-handle")"#,
            ),
        ],
    );
}

#[test]
fn a_module_that_needs_no_shim_is_one_too_with_a_memory() {
    let text = r#"(component
        (import "wasi:http/types@0.2.3" (instance $types
            (export "incoming-request" (type (sub resource))) (export "response-outparam" (type (sub resource)))))
        (core module $main
            (import "wasi:http/types@0.2.3" "[resource-drop]incoming-request" (func (param i32)))
            (memory (export "memory") 1)
            (func (export "wasi:http/incoming-handler@0.2.3#handle") (param i32 i32)))
        (alias export $types "incoming-request" (type $request))
        (alias export $types "response-outparam" (type $outparam))
        (core func $drop-request (canon resource.drop $request))
        (core instance $for-types (export "[resource-drop]incoming-request" (func $drop-request)))
        (core instance $m (instantiate $main (with "wasi:http/types@0.2.3" (instance $for-types))))
        (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
            (canon lift (core func $m "wasi:http/incoming-handler@0.2.3#handle")))
        (instance $handler (export "handle" (func $handle)))
        (export "wasi:http/incoming-handler@0.2.3" (instance $handler)))"#;
    assert!(is_wrapped(&wat::parse_str(text).expect("valid text")));
    let memory = r#"(memory (export "memory") 1)"#;
    for other in [r#"(memory (export "memory") 1 1 shared)"#, r#"(memory (export "memory") i64 1)"#, ""] {
        let file = wat::parse_str(text.replace(memory, other)).expect("valid text");
        wasmparser::validate(&file).expect("valid");
        assert!(!is_wrapped(&file), "{other}");
    }
}

#[test]
fn the_module_gets_each_function_as_it_calls_it() {
    no(
        "two of one type are swapped",
        &[
            (r#"path" (func $s "0")"#, r#"path" (func $s "9")"#),
            (r#"query" (func $s "1")"#, r#"query" (func $s "0")"#),
            (r#"path" (func $s "9")"#, r#"path" (func $s "1")"#),
        ],
    );
    no(
        "they are swapped for the fix-ups",
        &[
            (r#""0" (func $lowered-path)"#, r#""0" (func $lowered-query)"#),
            (r#""1" (func $lowered-query)"#, r#""1" (func $lowered-path)"#),
        ],
    );
    no(
        "another is lowered",
        &[(r#""[method]incoming-request.path" (func $path)"#, r#""[method]incoming-request.query" (func $path)"#)],
    );
    no("it is of another interface", &[(r#""wasi:cli/environment@0.2.3""#, r#""wasi:cli/surroundings@0.2.3""#)]);
    no(
        "another resource is dropped",
        &[
            ("(canon resource.drop $fields)", "(canon resource.drop $other)"),
            ("(core func $drop ", r#"(alias export $types "incoming-request" (type $other)) (core func $drop "#),
        ],
    );
    no(
        "the shim itself",
        &[
            (
                r#"(import "wasi:cli/environment@0.2.0" "get-environment""#,
                r#"(import "wasi:cli/environment@0.2.0" "2""#,
            ),
            (r#"(import "wasi:cli/environment@0.2.0" "poke""#, r#"(import "wasi:cli/environment@0.2.0" "3""#),
            ("(instance $for-environment)", "(instance $s)"),
        ],
    );
    no("a function of the module", &[(r#""0" (func $lowered-path)"#, r#""0" (func $m "other-handle")"#)]);
    no("the shim again", &[(r#""0" (func $lowered-path)"#, r#""0" (func $s "0")"#)]);
    no("with another memory", &[("(func $path) (memory $memory)", r#"(func $path) (memory $m "other-memory")"#)]);
    no(
        "with another allocator",
        &[(
            "(func $path) (memory $memory) (realloc $realloc)",
            r#"(func $path) (memory $memory) (realloc (func $m "other_realloc"))"#,
        )],
    );
    no(
        "with strings of UTF-16",
        &[(
            "(func $path) (memory $memory) (realloc $realloc) string-encoding=utf8",
            "(func $path) (memory $memory) (realloc $realloc) string-encoding=utf16",
        )],
    );
    no(
        "and the shim's table",
        &[
            (
                r#""poke" (func $poke))"#,
                r#""poke" (func $poke)) (import "wasi:cli/environment@0.2.0" "table" (table 4 4 funcref))"#,
            ),
            (
                "(core instance $for-environment ",
                r#"(core instance $for-environment (export "table" (table $s "$imports")) "#,
            ),
        ],
    );
    no(
        "and a memory",
        &[
            (r#""poke" (func $poke))"#, r#""poke" (memory 1))"#),
            (r#"(export "poke" (func $s "3"))"#, r#"(export "poke" (memory $o "m"))"#),
            (
                AFTER_MODULES,
                r#"(core module $other (memory (export "m") 1)) (core instance $o (instantiate $other)) (core instance $s "#,
            ),
        ],
    );
}

#[test]
fn the_module_is_alone_and_as_the_host_takes_it() {
    no_before(
        "(core instance $f ",
        "it is instantiated twice",
        r#"(core instance (instantiate $main
        (with "wasi:http/types@0.2.3" (instance $for-types)) (with "wasi:cli/environment@0.2.0" (instance $for-environment))))"#,
    );
    no_before(AFTER_MODULES, "there is another module", "(core module)");
    no_before(AFTER_MODULES, "another is instantiated", "(core module $o) (core instance (instantiate $o))");
    no_before(r#"(func (export "other-handle")"#, "it starts before the fix-ups", "(start $poke)");
    no_before(r#"(func (export "other-handle")"#, "it is a program", r#"(func (export "_start"))"#);
    no(
        "it has no memory of that name",
        &[
            (r#"(memory (export "memory") 1)"#, r#"(memory (export "the-memory") 1)"#),
            (r#"$m "memory""#, r#"$m "the-memory""#),
        ],
    );
    no(
        "it has no allocator of that name",
        &[
            (r#"(func (export "cabi_realloc")"#, r#"(func (export "realloc")"#),
            (r#"$m "cabi_realloc""#, r#"$m "realloc""#),
        ],
    );
}

#[test]
fn the_shim_only_passes_calls_on() {
    let call = "(call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 0))";
    for (what, other) in [
        ("to another slot", "(call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 1))"),
        ("with parameters swapped", "(call_indirect (type $two) (local.get 1) (local.get 0) (i32.const 0))"),
        ("with another parameter", "(call_indirect (type $two) (local.get 0) (i32.const 7) (i32.const 0))"),
        ("with fewer parameters", "(call_indirect (type $one) (local.get 0) (i32.const 0))"),
        ("after something else", "nop (call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 0))"),
        ("before something else", "(call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 0)) nop"),
        ("with its own frame gone", "(return_call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 0))"),
        (
            "with a local of its own",
            "(local i32) (call_indirect (type $two) (local.get 0) (local.get 1) (i32.const 0))",
        ),
        ("not at all", ""),
    ] {
        no(what, &[(call, other)]);
    }
    no(
        "to what has another type of the same parameters",
        &[
            (call, "(call_indirect (type $other) (local.get 0) (local.get 1) (i32.const 0))"),
            ("(type $none (func))", "(type $none (func)) (rec (type $other (func (param i32 i32))) (type (func)))"),
        ],
    );
    no(
        "and is of such a type",
        &[
            (
                r#"(func (export "0") (type $two) (call_indirect (type $two)"#,
                r#"(func (export "0") (type $other) (call_indirect (type $other)"#,
            ),
            ("(type $none (func))", "(type $none (func)) (rec (type $other (func (param i32 i32))) (type (func)))"),
            (r#"path" (func (param i32 i32))"#, r#"path" (func (type $other))"#),
            ("(core module $main", "(core module $main (rec (type $other (func (param i32 i32))) (type (func)))"),
        ],
    );
    no_before(AFTER_MODULES, "and is there twice", "(core instance (instantiate $shim))");
    no(
        "and has a longer table",
        &[
            ("(table $table 4 4 funcref)", "(table $table 5 5 funcref)"),
            (r#"(import "" "$imports" (table 4 4 funcref))"#, r#"(import "" "$imports" (table 5 5 funcref))"#),
        ],
    );
    no(
        "and has functions in another order",
        &[
            (r#"(func (export "0") (type $two)"#, r#"(export "0" (func 1)) (func (type $two)"#),
            (r#"(func (export "1") (type $two)"#, r#"(export "1" (func 0)) (func (type $two)"#),
        ],
    );
    for (what, more) in [
        ("and has something in its table", "(elem (i32.const 0) func 2)"),
        ("and has a memory", "(memory 1)"),
        ("and has a global", "(global i32 (i32.const 0))"),
        ("and has another table", "(table 4 4 funcref)"),
        ("and has another function", "(func)"),
        ("and has one by a second name", r#"(export "again" (func 0))"#),
        ("and starts", "(start 3)"),
    ] {
        no_before(r#"(export "$imports" (table $table))"#, what, more);
    }
}

#[test]
fn the_fix_ups_only_fill_its_table() {
    let segment = "(elem (i32.const 0) func 0 1 2 3)";
    for (what, other) in [
        ("in another order", "(elem (i32.const 0) func 1 0 2 3)"),
        ("but for one", "(elem (i32.const 0) func 0 1 2)"),
        ("from elsewhere on", "(elem (i32.const 1) func 0 1 2 3)"),
        ("later", "(elem func 0 1 2 3)"),
        ("and then something else", "(elem (i32.const 0) func 0 1 2 3) (elem (i32.const 0) func 1)"),
        ("and start", "(elem (i32.const 0) func 0 1 2 3) (start 3)"),
        ("and have a function", "(elem (i32.const 0) func 0 1 2 3) (func)"),
        ("and have a table", "(elem (i32.const 0) func 0 1 2 3) (table 1 funcref)"),
        ("and have a memory", "(elem (i32.const 0) func 0 1 2 3) (memory 1)"),
        ("and have data", r#"(elem (i32.const 0) func 0 1 2 3) (data "")"#),
        ("and give it on", r#"(elem (i32.const 0) func 0 1 2 3) (export "$imports" (table 0))"#),
    ] {
        no(what, &[(segment, other)]);
    }
    no(
        "and the module's memory",
        &[
            (segment, r#"(elem (i32.const 0) func 0 1 2 3) (import "" "memory" (memory 1))"#),
            (r#"(export "3" (func $poke))"#, r#"(export "3" (func $poke)) (export "memory" (memory $memory))"#),
        ],
    );
    let other = r#"(core instance $other (export "2" (func $drop)) (export "$imports" (table $m "other-table"))) (core instance $f "#;
    let given = r#"(with "" (instance $for-fixups)) (with "other" (instance $other))"#;
    no(
        "with a function that is not the one of that name",
        &[
            (r#"(import "" "2" "#, r#"(import "other" "2" "#),
            ("(core instance $f ", other),
            (r#"(with "" (instance $for-fixups))"#, given),
        ],
    );
    no(
        "which is not the one of that name",
        &[
            (r#"(import "" "$imports" "#, r#"(import "other" "$imports" "#),
            ("(core instance $f ", other),
            (r#"(with "" (instance $for-fixups))"#, given),
        ],
    );
    no("which is not the shim's", &[(r#"(table $s "$imports")"#, r#"(table $m "other-table")"#)]);
}

#[test]
fn the_handler_is_the_modules_function() {
    let lift = "(canon lift (core func $core-handle))";
    no(
        "with something to do after it",
        &[
            (lift, r#"(canon lift (core func $core-handle) (post-return (func $m "after")))"#),
            (r#"(func (export "other-handle")"#, r#"(func (export "after")) (func (export "other-handle")"#),
        ],
    );
    no("with another memory", &[(lift, r#"(canon lift (core func $core-handle) (memory $m "other-memory"))"#)]);
    no("of another name", &[(r#"$m "wasi:http/incoming-handler@0.2.3#handle""#, r#"$m "other-handle""#)]);
    no(
        "of the shim",
        &[
            (r#"$m "wasi:http/incoming-handler@0.2.3#handle""#, r#"$s "wasi:http/incoming-handler@0.2.3#handle""#),
            (r#"(func (export "0")"#, r#"(func (export "wasi:http/incoming-handler@0.2.3#handle")"#),
            (r#"(import "" "0""#, r#"(import "" "wasi:http/incoming-handler@0.2.3#handle""#),
            (
                r#"(export "0" (func $lowered-path))"#,
                r#"(export "wasi:http/incoming-handler@0.2.3#handle" (func $lowered-path))"#,
            ),
            (r#"(func $s "0")"#, r#"(func $s "wasi:http/incoming-handler@0.2.3#handle")"#),
        ],
    );
    no_before(
        r#"(func (export "wasi:http/incoming-handler@0.2.3#handle")"#,
        "and there is another, of another version",
        r#"(func (export "wasi:http/incoming-handler@0.2.0#handle") (param i32 i32) unreachable)"#,
    );
    no_before(
        r#"(func (export "wasi:http/incoming-handler@0.2.3#handle")"#,
        "and there is something else by such a name",
        r#"(global (export "wasi:http/incoming-handler@0.2.0#handle") i32 (i32.const 0))"#,
    );
    no("of the host", &[(lift, "(canon lift (core func $lowered-path))")]);
    no("of another version", &[(EXPORT, r#"(export "wasi:http/incoming-handler@0.2.4" (instance $handler))"#)]);
    no(
        "of a draft",
        &[
            (EXPORT, r#"(export "wasi:http/incoming-handler@0.2.3-draft" (instance $handler))"#),
            (
                r#"(func (export "wasi:http/incoming-handler@0.2.3#handle")"#,
                r#"(func (export "wasi:http/incoming-handler@0.2.3-draft#handle")"#,
            ),
            (
                r#"$m "wasi:http/incoming-handler@0.2.3#handle""#,
                r#"$m "wasi:http/incoming-handler@0.2.3-draft#handle""#,
            ),
        ],
    );
    no("of an imported interface", &[(EXPORT, r#"(export "wasi:http/incoming-handler@0.2.3" (instance $types))"#)]);
    no(
        "or another one that goes into its instance",
        &[
            (r#"(with "given" (func $lifted))"#, r#"(with "given" (func $lifted)) (with "other" (func $other))"#),
            (
                r#"(export $exported "handle" (func $given))"#,
                r#"(import "other" (func $other (type $given))) (export "handle" (func $other))"#,
            ),
            (
                "(component $renaming",
                r#"(func $other (type $handle) (canon lift (core func $m "other-handle"))) (component $renaming"#,
            ),
        ],
    );
    no(
        "in an instance that goes in",
        &[
            (r#"(with "given" (func $lifted))"#, r#"(with "given" (instance $given))"#),
            (
                r#"(import "given" (func $given (type $given)))"#,
                r#"(import "given" (instance $i (export "handle" (func (type $given))))) (alias export $i "handle" (func $given))"#,
            ),
            ("(instance $handler ", r#"(instance $given (export "handle" (func $lifted))) (instance $handler "#),
        ],
    );
    for (what, more) in [
        ("with a module in its component", "(core module)"),
        ("with a component in it", "(component)"),
        ("with a resource in it", "(type (resource (rep i32)))"),
        ("with something from around it", "(alias outer 1 $fixups (core module))"),
    ] {
        no_before(r#"(export $exported "handle""#, what, more);
    }
}

#[test]
fn the_component_has_nothing_else() {
    for (what, more) in [
        ("a function is imported by itself", r#"(import "f" (func))"#),
        ("a type is imported by itself", r#"(import "t" (type (sub resource)))"#),
        ("a resource is defined", "(type (resource (rep i32)))"),
        ("a core type is defined", "(core type (func))"),
        ("there is a built-in function", "(core func (canon backpressure.inc))"),
    ] {
        no_before(AFTER_MODULES, what, more);
    }
    for (what, more) in [
        ("another interface is exported", r#"(export "other:interface/exported@0.2.3" (instance $handler))"#),
        ("a function is exported", r#"(export "f" (func $lifted))"#),
        ("something is taken from an instance that is made", r#"(alias export $handler "handle" (func))"#),
    ] {
        no_before(EXPORT, what, more);
    }
    no("the handler is exported twice", &[(EXPORT, &format!("{EXPORT} {}", EXPORT.replace("0.2.3", "0.2.4")))]);
}

#[test]
fn what_is_no_component_is_none_and_what_is_malformed_an_error() {
    assert!(!is_wrapped(&wat::parse_str("(module)").expect("valid text")));
    assert!(!is_wrapped(&wat::parse_str("(component)").expect("valid text")));
    assert!(
        !is_wrapped(&with(&[("(canon lower (func $path) (memory $memory)", "(canon lower (func $path)")])),
        "invalid"
    );
    let file = with(&[]);
    assert!(wrapped_module(&file[..file.len() - 3]).is_err());
    assert!(wrapped_module(b"hello").is_err());
}

#[test]
fn what_would_take_long_to_validate_is_not_validated() {
    let interfaces: String = (0..MOST_INSTANCES).map(|n| format!("(import \"a:b/c{n}\" (instance))")).collect();
    no_before(AFTER_MODULES, "interfaces without end", &interfaces);
    let made = "(instance (export \"fields\" (type $fields)))".repeat(MOST_EXPORTS);
    no_before(EXPORT, "instances without end", &made);
    for (what, more) in [
        ("instances in an instance", "(type (instance (type $i (instance)) (export \"i\" (instance (type $i)))))"),
        ("types of components", "(type (component))"),
    ] {
        no_before(AFTER_MODULES, what, more);
    }
    // What makes it slow is of no use to it: instances of what imports instances.
    let renaming =
        r#"(component $c (import "i" (instance))) (instance $i (instantiate $c (with "i" (instance $types))))"#;
    no_before(AFTER_MODULES, "instances that go into instances", renaming);
}
