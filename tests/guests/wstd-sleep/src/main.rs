//! Sleeps 100 ms with wstd's own clock and reactor, then echoes its request's body.

use wstd::{
    http::{Body, Error, Request, Response},
    time::Duration,
};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    wstd::task::sleep(Duration::from_millis(100)).await;
    Ok(Response::new(request.into_body()))
}
