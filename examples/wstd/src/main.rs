//! A guest on wstd, the Bytecode Alliance's asynchronous standard library: requests and bodies are those of the crates `http` and `http-body`.

use wstd::{
    http::{Body, Error, Method, Request, Response, StatusCode},
    time::Duration,
};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok(Response::new("Hello World!".into())),
        (&Method::GET, "/slow") => {
            wstd::task::sleep(Duration::from_millis(100)).await;
            Ok(Response::new("100 ms later\n".into()))
        }
        (&Method::POST, "/echo") => Ok(Response::new(request.into_body())),
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body("no such page\n".into())?),
    }
}
