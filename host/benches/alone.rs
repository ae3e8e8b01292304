//! What a fresh guest costs without a server: `cargo bench -p astra-host --bench alone -- MODULE.wasm [SECONDS] [copy|scan]`.
//!
//! One thread runs requests through [`guest::run`] one after the other, each in an instance of its own, and takes their bodies. Prints the
//! time of one in microseconds: the median of as many rounds as there are seconds, and the fastest.
#![allow(clippy::print_stdout, reason = "it is a command")]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use astra_host::failure::Outcome;
use astra_host::guest::{
    self, CacheMode, Engine, EngineOptions, Exchange, Gateway, Granted, Grants, GuestBody, GuestOutput, Limits,
    LoadedModule, Reset, Stream, Watch,
};
use astra_server::{Body, Executor};
use http::{Request, Response, uri::Scheme};
use http_body_util::BodyExt as _;

/// The binary's, but for its settings.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Guests print into the void.
struct Nowhere;

impl GuestOutput for Nowhere {
    fn line(&self, _stream: Stream, _line: &str) {}

    fn dropped(&self, _lines: u64, _bytes: u64) {}
}

fn main() {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let module = arguments.next().map(PathBuf::from).expect("usage: alone MODULE.wasm [SECONDS] [copy|scan]");
    let seconds: u32 = arguments.next().map_or(5, |seconds| seconds.parse().expect("SECONDS is a number"));
    let reset = arguments.next().map(|how| if how == "copy" { Reset::Copy } else { Reset::Scan });
    let options = EngineOptions { reset, cache: CacheMode::Off, ..EngineOptions::default() };
    let engine = Engine::new(&options).expect("an engine");
    let module = LoadedModule::open(&engine, &module).expect("a module that can be served");
    let granted = Arc::new(Granted::new(&"alone".into(), Grants::default(), &Executor::default()));
    let (limits, output) = (Limits::default(), Arc::new(Nowhere));
    let _entered = engine.runtime().enter();
    let mut rounds: Vec<f64> = (0..seconds)
        .map(|_| {
            let (began, mut requests) = (Instant::now(), 0_u32);
            while began.elapsed() < Duration::from_secs(1) {
                for _ in 0..100 {
                    request(&module, &granted, &limits, &output);
                }
                requests += 100;
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(requests)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{:.2} µs a request, the fastest {:.2}", rounds[rounds.len() / 2], rounds[0]);
}

fn request(module: &LoadedModule, granted: &Arc<Granted>, limits: &Limits, output: &Arc<Nowhere>) {
    let request = Request::get("/").header("host", "localhost").body(Body::empty()).expect("a request");
    let exchange = Exchange {
        request,
        scheme: Scheme::HTTP,
        gateway: Gateway::default(),
        client: None,
        output: Arc::<Nowhere>::clone(output),
        watch: Arc::<Watch>::default(),
    };
    let report = guest::run(module, granted, limits, exchange, drain);
    assert!(matches!(report.outcome, Outcome::Ok), "{:?}", report.outcome);
}

/// Takes a body that is there as a whole, as a server would.
fn drain(response: Response<GuestBody>) {
    let mut body = response.into_body();
    while let Ok(Some(frame)) = astra_server::wait(body.frame(), None) {
        frame.expect("a body that is whole");
    }
}
