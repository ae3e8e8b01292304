//! Routes by path with the `matchit` crate; parameters travel in the request's extensions.

use std::collections::HashMap;

use astra_server::{Body, Request, Response, ResponseBuilder, Server};
use matchit::Match;

type Router = matchit::Router<fn(&Request) -> Response>;
type Params = HashMap<String, String>;

fn main() {
    let router = routes().expect("the routes do not contradict each other");

    Server::bind("127.0.0.1:3000").serve(move |req, _info| route(&router, req)).expect("serve failed");
}

fn routes() -> Result<Router, matchit::InsertError> {
    let mut router = Router::new();
    router.insert("/", home as fn(&Request) -> Response)?;
    router.insert("/user/{id}", user)?;
    Ok(router)
}

/// `GET /`
fn home(_req: &Request) -> Response {
    Response::new(Body::new("Welcome!"))
}

/// `GET /user/{id}`
fn user(req: &Request) -> Response {
    let id = req.extensions().get::<Params>().and_then(|params| params.get("id"));
    match id {
        Some(id) => Response::new(Body::new(format!("User #{id}"))),
        None => status(400),
    }
}

fn route(router: &Router, mut req: Request) -> Response {
    let path = req.uri().path().to_owned();
    match router.at(&path) {
        Ok(Match { value: handler, params }) => {
            let params: Params = params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            req.extensions_mut().insert(params);
            handler(&req)
        }
        Err(_) => status(404),
    }
}

fn status(code: u16) -> Response {
    ResponseBuilder::new().status(code).body(Body::empty()).expect("a status and no headers make a response")
}
