//! WASI's own types, as the canonical ABI has them: cases and fields in the order of their declarations (WIT).

use wasmtime::{Result, component::Resource};
use wasmtime_wasi::p2::bindings::{
    clocks::wall_clock::Datetime, io::error::Error as DynError, sync::io::streams::StreamError,
};
use wasmtime_wasi_http::p2::bindings::http::types::{
    DnsErrorPayload, ErrorCode, FieldSizePayload, HeaderError, Method, Scheme, TlsAlertReceivedPayload,
};

use super::abi::{Core, Lift, Lower, Numbers, Source, Target, Value, alike, join, max, no_case, record, variant};
use crate::guest::config_store::ConfigError;

variant! {
    Method => {
        0 Get;
        1 Head;
        2 Post;
        3 Put;
        4 Delete;
        5 Connect;
        6 Options;
        7 Trace;
        8 Patch;
        9 Other(method: String);
    }
}

variant! {
    Scheme => {
        0 Http;
        1 Https;
        2 Other(scheme: String);
    }
}

variant! {
    HeaderError => {
        0 InvalidSyntax;
        1 Forbidden;
        2 Immutable;
    }
}

variant! {
    ErrorCode => {
        0 DnsTimeout;
        1 DnsError(payload: DnsErrorPayload);
        2 DestinationNotFound;
        3 DestinationUnavailable;
        4 DestinationIpProhibited;
        5 DestinationIpUnroutable;
        6 ConnectionRefused;
        7 ConnectionTerminated;
        8 ConnectionTimeout;
        9 ConnectionReadTimeout;
        10 ConnectionWriteTimeout;
        11 ConnectionLimitReached;
        12 TlsProtocolError;
        13 TlsCertificateError;
        14 TlsAlertReceived(payload: TlsAlertReceivedPayload);
        15 HttpRequestDenied;
        16 HttpRequestLengthRequired;
        17 HttpRequestBodySize(size: Option<u64>);
        18 HttpRequestMethodInvalid;
        19 HttpRequestUriInvalid;
        20 HttpRequestUriTooLong;
        21 HttpRequestHeaderSectionSize(size: Option<u32>);
        22 HttpRequestHeaderSize(payload: Option<FieldSizePayload>);
        23 HttpRequestTrailerSectionSize(size: Option<u32>);
        24 HttpRequestTrailerSize(payload: FieldSizePayload);
        25 HttpResponseIncomplete;
        26 HttpResponseHeaderSectionSize(size: Option<u32>);
        27 HttpResponseHeaderSize(payload: FieldSizePayload);
        28 HttpResponseBodySize(size: Option<u64>);
        29 HttpResponseTrailerSectionSize(size: Option<u32>);
        30 HttpResponseTrailerSize(payload: FieldSizePayload);
        31 HttpResponseTransferCoding(coding: Option<String>);
        32 HttpResponseContentCoding(coding: Option<String>);
        33 HttpResponseTimeout;
        34 HttpUpgradeFailed;
        35 HttpProtocolError;
        36 LoopDetected;
        37 ConfigurationError;
        38 InternalError(why: Option<String>);
    }
}

variant! {
    StreamError => {
        0 LastOperationFailed(error: Resource<DynError>);
        1 Closed;
    }
}

variant! {
    ConfigError => {
        0 Upstream(why: String);
        1 Io(why: String);
    }
}

record!(DnsErrorPayload { rcode: Option<String>, info_code: Option<u16> });
record!(TlsAlertReceivedPayload { alert_id: Option<u8>, alert_message: Option<String> });
record!(FieldSizePayload { field_name: Option<String>, field_size: Option<u32> });
record!(Datetime { seconds: u64, nanoseconds: u32 });
