//! An axum router as a guest, on wstd. Extractors, responses and middleware are axum's own; what needs Tokio is not there.

use axum::{
    Json, Router,
    body::Body,
    extract::Path,
    routing::{get, post},
};
use serde::Serialize;

#[derive(Serialize)]
struct Greeting {
    hello: String,
}

#[wstd_axum::http_server]
fn main() -> Router {
    Router::new()
        .route("/", get(|| async { "Hello World!" }))
        .route("/hello/{name}", get(hello))
        .route("/echo", post(|body: Body| async { body }))
}

async fn hello(Path(name): Path<String>) -> Json<Greeting> {
    Json(Greeting { hello: name })
}
