//! Looks up the name that is its query (`/?name=localhost`) with the bare bindings, and says each address, or the code that it got.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::{
    http::types::{IncomingRequest, ResponseOutparam},
    sockets::{
        instance_network::instance_network,
        ip_name_lookup::resolve_addresses,
        network::{ErrorCode, IpAddress},
    },
};

test_guests::export!(ask);

fn ask(request: &IncomingRequest, responder: ResponseOutparam) {
    let name = test_guests::query(request.path_with_query(), "name").unwrap_or_default();
    let text = match addresses(&name) {
        Ok(addresses) => addresses.iter().map(|address| format!("{address:?}\n")).collect(),
        Err(code) => format!("error: {}\n", code.name()),
    };
    test_guests::answer(responder, &text);
}

fn addresses(name: &str) -> Result<Vec<IpAddress>, ErrorCode> {
    let stream = resolve_addresses(&instance_network(), name)?;
    stream.subscribe().block();
    let mut addresses = Vec::new();
    while let Some(address) = stream.resolve_next_address()? {
        addresses.push(address);
    }
    assert!(stream.resolve_next_address()?.is_none(), "the end stays the end");
    Ok(addresses)
}
