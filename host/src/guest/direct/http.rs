//! `wasi:http/types` and `wasi:http/outgoing-handler`.

use wasmtime::component::Resource;
use wasmtime_wasi_http::{WasiHttpView as _, p2::bindings::http::types};

use super::{
    abi::Borrow,
    functions::{Functions, Interface},
};
use crate::guest::{
    heads::{self, told},
    http::{self, OutgoingBody},
    instance::State,
    outgoing_handler::{self, FutureResponse},
};

pub(super) fn add(functions: &mut Functions) {
    let mut http = functions.interface("wasi:http/types");
    fields(&mut http);
    incoming(&mut http);
    outgoing_request(&mut http);
    request_options(&mut http);
    outgoing_response(&mut http);
    outgoing_body(&mut http);
    future_incoming_response(&mut http);
    http.func("http-error-code", |state, (error,): (Borrow<types::IoError>,)| {
        outgoing_handler::http_error_code(state, &error.0)
    });
    functions
        .interface("wasi:http/outgoing-handler")
        .func("handle", |state, (request, options)| outgoing_handler::handle(state, request, options));
}

type Fields = Borrow<types::Fields>;

fn fields(http: &mut Interface<'_>) {
    use types::HostFields as Host;

    http.scalar("[constructor]fields", |state, (): ()| Host::new(&mut state.http()));
    http.func("[static]fields.from-list", heads::v02::from_list);
    http.func("[method]fields.get", |state, (fields, name): (Fields, String)| {
        Host::get(&mut state.http(), fields.0, name)
    });
    http.scalar("[method]fields.has", |state, (fields, name): (Fields, String)| {
        Host::has(&mut state.http(), fields.0, name)
    });
    http.func("[method]fields.set", |state, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| {
        heads::v02::set(state, (fields.0, name, values))
    });
    http.func("[method]fields.delete", |state, (fields, name): (Fields, String)| {
        told(Host::delete(&mut state.http(), fields.0, name), |error| error.downcast())
    });
    http.func("[method]fields.append", |state, (fields, name, value): (Fields, String, Vec<u8>)| {
        heads::v02::append(state, (fields.0, name, value))
    });
    http.func("[method]fields.entries", |state, (fields,): (Fields,)| Host::entries(&mut state.http(), fields.0));
    http.scalar("[method]fields.clone", |state, (fields,): (Fields,)| heads::v02::clone(state, fields.0));
    http.scalar("[resource-drop]fields", |state, (fields,)| Host::drop(&mut state.http(), fields));
}

type Request = Borrow<types::IncomingRequest>;
type Response = Borrow<types::IncomingResponse>;
type Body = Borrow<types::IncomingBody>;
type Trailers = Borrow<types::FutureTrailers>;

fn incoming(http: &mut Interface<'_>) {
    use types::{HostFutureTrailers, HostIncomingBody, HostIncomingRequest, HostIncomingResponse};

    http.func("[method]incoming-request.method", |state, (request,): (Request,)| {
        HostIncomingRequest::method(&mut state.http(), request.0)
    });
    http.func("[method]incoming-request.path-with-query", |state, (request,): (Request,)| {
        HostIncomingRequest::path_with_query(&mut state.http(), request.0)
    });
    http.func("[method]incoming-request.scheme", |state, (request,): (Request,)| {
        HostIncomingRequest::scheme(&mut state.http(), request.0)
    });
    http.func("[method]incoming-request.authority", |state, (request,): (Request,)| {
        HostIncomingRequest::authority(&mut state.http(), request.0)
    });
    http.scalar("[method]incoming-request.headers", |state, (request,): (Request,)| {
        HostIncomingRequest::headers(&mut state.http(), request.0)
    });
    http.func("[method]incoming-request.consume", |state, (request,): (Request,)| {
        HostIncomingRequest::consume(&mut state.http(), request.0)
    });
    http.scalar("[resource-drop]incoming-request", |state, (request,)| {
        HostIncomingRequest::drop(&mut state.http(), request)
    });

    http.scalar("[method]incoming-response.status", |state, (response,): (Response,)| {
        HostIncomingResponse::status(&mut state.http(), response.0)
    });
    http.scalar("[method]incoming-response.headers", |state, (response,): (Response,)| {
        HostIncomingResponse::headers(&mut state.http(), response.0)
    });
    http.func("[method]incoming-response.consume", |state, (response,): (Response,)| {
        HostIncomingResponse::consume(&mut state.http(), response.0)
    });
    http.scalar("[resource-drop]incoming-response", |state, (response,)| {
        HostIncomingResponse::drop(&mut state.http(), response)
    });

    http.func("[method]incoming-body.stream", |state, (body,): (Body,)| {
        HostIncomingBody::stream(&mut state.http(), body.0)
    });
    http.scalar("[static]incoming-body.finish", |state, (body,)| HostIncomingBody::finish(&mut state.http(), body));
    http.scalar("[resource-drop]incoming-body", |state, (body,)| HostIncomingBody::drop(&mut state.http(), body));

    http.scalar("[method]future-trailers.subscribe", |state, (trailers,): (Trailers,)| {
        HostFutureTrailers::subscribe(&mut state.http(), trailers.0)
    });
    http.func("[method]future-trailers.get", |state, (trailers,): (Trailers,)| {
        HostFutureTrailers::get(&mut state.http(), trailers.0)
    });
    http.scalar("[resource-drop]future-trailers", |state, (trailers,)| {
        HostFutureTrailers::drop(&mut state.http(), trailers)
    });
}

type OutgoingRequest = Borrow<types::OutgoingRequest>;

fn outgoing_request(http: &mut Interface<'_>) {
    use types::HostOutgoingRequest as Host;

    http.scalar("[constructor]outgoing-request", |state, (headers,)| Host::new(&mut state.http(), headers));
    http.func("[method]outgoing-request.body", |state, (request,): (OutgoingRequest,)| {
        http::request_body(state, &request.0)
    });
    http.func("[method]outgoing-request.method", |state, (request,): (OutgoingRequest,)| {
        Host::method(&mut state.http(), request.0)
    });
    http.scalar("[method]outgoing-request.set-method", |state, (request, method): (OutgoingRequest, _)| {
        heads::v02::set_method(state, (request.0, method))
    });
    http.func("[method]outgoing-request.path-with-query", |state, (request,): (OutgoingRequest,)| {
        Host::path_with_query(&mut state.http(), request.0)
    });
    http.scalar("[method]outgoing-request.set-path-with-query", |state, (request, path): (OutgoingRequest, _)| {
        heads::v02::set_path_with_query(state, (request.0, path))
    });
    http.func("[method]outgoing-request.scheme", |state, (request,): (OutgoingRequest,)| {
        Host::scheme(&mut state.http(), request.0)
    });
    http.scalar("[method]outgoing-request.set-scheme", |state, (request, scheme): (OutgoingRequest, _)| {
        Host::set_scheme(&mut state.http(), request.0, scheme)
    });
    http.func("[method]outgoing-request.authority", |state, (request,): (OutgoingRequest,)| {
        Host::authority(&mut state.http(), request.0)
    });
    http.scalar("[method]outgoing-request.set-authority", |state, (request, authority): (OutgoingRequest, _)| {
        heads::v02::set_authority(state, (request.0, authority))
    });
    http.scalar("[method]outgoing-request.headers", |state, (request,): (OutgoingRequest,)| {
        Host::headers(&mut state.http(), request.0)
    });
    http.scalar("[resource-drop]outgoing-request", |state, (request,)| Host::drop(&mut state.http(), request));
}

type Options = Borrow<types::RequestOptions>;

fn request_options(http: &mut Interface<'_>) {
    use types::HostRequestOptions as Host;

    http.scalar("[constructor]request-options", |state, (): ()| Host::new(&mut state.http()));
    http.func("[method]request-options.connect-timeout", |state, (options,): (Options,)| {
        Host::connect_timeout(&mut state.http(), options.0)
    });
    http.scalar("[method]request-options.set-connect-timeout", |state, (options, time): (Options, _)| {
        Host::set_connect_timeout(&mut state.http(), options.0, time)
    });
    http.func("[method]request-options.first-byte-timeout", |state, (options,): (Options,)| {
        Host::first_byte_timeout(&mut state.http(), options.0)
    });
    http.scalar("[method]request-options.set-first-byte-timeout", |state, (options, time): (Options, _)| {
        Host::set_first_byte_timeout(&mut state.http(), options.0, time)
    });
    http.func("[method]request-options.between-bytes-timeout", |state, (options,): (Options,)| {
        Host::between_bytes_timeout(&mut state.http(), options.0)
    });
    http.scalar("[method]request-options.set-between-bytes-timeout", |state, (options, time): (Options, _)| {
        Host::set_between_bytes_timeout(&mut state.http(), options.0, time)
    });
    http.scalar("[resource-drop]request-options", |state, (options,)| Host::drop(&mut state.http(), options));
}

type OutgoingResponse = Borrow<types::OutgoingResponse>;

fn outgoing_response(http: &mut Interface<'_>) {
    use types::HostOutgoingResponse as Host;

    http.scalar("[constructor]outgoing-response", |state, (headers,)| Host::new(&mut state.http(), headers));
    http.scalar("[method]outgoing-response.status-code", |state, (response,): (OutgoingResponse,)| {
        Host::status_code(&mut state.http(), response.0)
    });
    http.scalar("[method]outgoing-response.set-status-code", |state, (response, status): (OutgoingResponse, _)| {
        Host::set_status_code(&mut state.http(), response.0, status)
    });
    http.scalar("[method]outgoing-response.headers", |state, (response,): (OutgoingResponse,)| {
        Host::headers(&mut state.http(), response.0)
    });
    http.func("[method]outgoing-response.body", |state, (response,): (OutgoingResponse,)| {
        http::response_body(state, &response.0)
    });
    http.scalar("[resource-drop]outgoing-response", |state, (response,)| Host::drop(&mut state.http(), response));

    http.scalar("[static]response-outparam.set", |state, (outparam, response)| {
        http::set_response(state, outparam, response)
    });
    http.scalar("[resource-drop]response-outparam", |state, (outparam,)| {
        types::HostResponseOutparam::drop(&mut state.http(), outparam)
    });
}

fn outgoing_body(http: &mut Interface<'_>) {
    http.func("[method]outgoing-body.write", |state, (body,): (Borrow<OutgoingBody>,)| http::write(state, &body.0));
    http.func("[static]outgoing-body.finish", |state, (body, trailers)| http::finish(state, body, trailers));
    http.scalar("[resource-drop]outgoing-body", |state, (body,): (Resource<OutgoingBody>,)| drop_of(state, body));
}

type Future = Borrow<FutureResponse>;

fn future_incoming_response(http: &mut Interface<'_>) {
    http.scalar("[method]future-incoming-response.subscribe", |state, (future,): (Future,)| {
        wasmtime_wasi::p2::subscribe(&mut state.table, future.0)
    });
    http.func("[method]future-incoming-response.get", |state, (future,): (Future,)| {
        outgoing_handler::get(state, &future.0)
    });
    http.scalar("[resource-drop]future-incoming-response", |state, (future,): (Resource<FutureResponse>,)| {
        drop_of(state, future)
    });
}

fn drop_of<T: 'static>(state: &mut State, resource: Resource<T>) -> wasmtime::Result<()> {
    state.table.delete(resource)?;
    Ok(())
}
