//! What must not go wrong, going wrong: a host call that panics, many guests at once, memory that was another guest's.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use astra_server::{Body, Executor};
use http::{Method, Request, uri::Scheme};
use wasmtime::Store;

use super::{
    Ended, component, load_into, read, run_in, run_watched,
    wrapped::{HELLO, wrapped},
};
use crate::{
    failure::Outcome,
    guest::{
        CacheMode, Engine, EngineOptions, Exchange, Gateway, Granted, Grants, GuestOutput, Limits, LoadedModule,
        Stream,
        instance::{State, store},
        run,
    },
};

fn engine(memory_budget: Option<u64>) -> Engine {
    let options = EngineOptions { memory_budget, cache: CacheMode::Off, ..EngineOptions::default() };
    Engine::new(&options).expect("an engine")
}

fn hello(engine: &Engine) -> LoadedModule {
    load_into(engine, &wrapped(HELLO)).expect("a handler")
}

fn granted() -> Arc<Granted> {
    Arc::new(Granted::new(&"test".into(), Grants::default(), &Executor::default()))
}

fn expect_hello(engine: &Engine, hello: &LoadedModule) {
    let ended = run_in(engine, hello, Method::GET, &Limits::default());
    assert!(matches!(ended.report.outcome, Outcome::Ok), "{:?}", ended.report);
    assert_eq!(read(ended.response.expect("answered")), ("Hello World!\n".to_owned(), true));
}

/// Called by a guest that prints.
struct Panics;

impl GuestOutput for Panics {
    fn line(&self, _stream: Stream, _line: &str) {
        panic!("in a host call");
    }

    fn dropped(&self, _lines: u64, _bytes: u64) {}
}

#[test]
fn a_panic_in_a_host_call_costs_its_own_request_and_nothing_else() {
    let engine = engine(Some(1 << 20));
    let prints = "(call $print (call $stdout) (i32.const 64) (i32.const 13) (i32.const 16))";
    let both = [component(prints), wrapped(prints)].map(|text| load_into(&engine, &text).expect("a handler"));
    let hello = hello(&engine);
    let _runtime = engine.runtime().enter();
    // More memory than there is for all.
    for prints in both.iter().cycle().take(136) {
        let exchange = Exchange {
            request: Request::get("http://localhost/").body(Body::empty()).expect("valid"),
            scheme: Scheme::HTTP,
            gateway: Gateway::default(),
            client: None,
            output: Arc::new(Panics),
            watch: Arc::default(),
        };
        let request = || run(prints, &granted(), &Limits::default(), exchange, |_| panic!("nothing is answered"));
        let panic = catch_unwind(AssertUnwindSafe(request)).expect_err("the server catches it (astra-server)");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"in a host call"));
    }
    expect_hello(&engine, &hello);
}

/// A guest that is there and does nothing.
fn idle(module: &LoadedModule) -> Store<State> {
    let (limits, output) = (Limits::default(), Arc::new(Panics));
    let respond = Box::new(|_| panic!("nothing is answered"));
    let state = State::new(module.memory(), &granted(), &limits, output, Arc::default(), false, respond);
    let mut store = store(module.engine(), state);
    module.instantiating(|| module.program().try_once(&mut store)).expect("there is memory");
    store
}

#[test]
fn a_thousand_guests_are_there_at_once() {
    let engine = engine(None);
    let hello = hello(&engine);
    let idle: Vec<_> = (0..1000).map(|_| idle(&hello)).collect();
    expect_hello(&engine, &hello);
    drop(idle);
    expect_hello(&engine, &hello);
}

/// Sends the letter to `looks-for-secrets.wat`.
fn look(engine: &Engine, module: &LoadedModule, letter: &'static str) -> String {
    let limits = Limits::default();
    let ended: Ended = run_watched(engine, module, Method::POST, Body::new(letter), &limits, Arc::default());
    assert!(matches!(ended.report.outcome, Outcome::Ok), "{:?}", ended.report);
    read(ended.response.expect("answered")).0
}

#[test]
fn modules_have_images_of_their_own() {
    let engine = engine(None);
    let text = include_str!("../../../../tests/guests/looks-for-secrets.wat");
    let modules: Vec<_> = (0..20)
        .map(|n| {
            let image = format!("image{n:03}");
            let number = u64::from_le_bytes(*image.as_bytes().first_chunk().expect("eight letters"));
            let text = text.replace("an image", &image).replace("0x6567616d69206e61", &format!("{number:#x}"));
            load_into(&engine, &text).expect("a program")
        })
        .collect();
    for letter in ["r", "R", "r"] {
        for module in &modules {
            assert_eq!(look(&engine, module, letter).trim_end(), "clean");
        }
    }
}
