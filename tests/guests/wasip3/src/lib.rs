//! Answers as the path says, with what its query names: one file for each of the interfaces that a guest of WASI 0.3 stands on.
#![cfg(target_family = "wasm")]
#![allow(missing_docs, reason = "what `export!` makes")]

mod answers;
mod fields;
mod files;
mod outgoing;
mod sockets;
mod system;

use wasip3::http::types::{ErrorCode, Request, Response};

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (interface, what) = path[1..].split_once('/').unwrap_or(("", &path[1..]));
        match interface {
            "fields" => Ok(answers::say(fields::report(what, &request).await)),
            "files" => files::answer(what, query).await,
            "outgoing" => outgoing::answer(what, query, request).await,
            "sockets" => Ok(answers::say(sockets::report(what, query).await)),
            "system" => Ok(answers::say(system::report(what, query).await)),
            _ => answers::answer(what, query, request).await,
        }
    }
}
