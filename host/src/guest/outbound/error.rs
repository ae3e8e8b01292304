//! What went wrong with an outgoing request, as `wasi:http` calls it (its codes are those of RFC 9209 §2.3). Pure.
//!
//! hyper and rustls tell by types that are hidden in each other; those are looked for, never their texts.

use std::{error::Error as StdError, io, iter::successors};

use hyper_util::client::legacy;
use rustix::io::Errno;
use wasmtime_wasi_http::{
    Error,
    p2::bindings::http::types::{DnsErrorPayload, ErrorCode, TlsAlertReceivedPayload},
};

use super::stream::NoRoom;
use crate::guest::resolver::ResolveError;

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAddress {
    #[error("the name cannot be resolved")]
    Unresolved(ResolveError),
    #[error("resolving the name took too long")]
    TimedOut,
    #[error("no address of the name may be connected to")]
    Prohibited,
}

/// A request that has no response; `trouble` is what its connection had, if it was on one.
pub(super) fn of_request(error: &legacy::Error, trouble: Option<&io::Error>) -> Error {
    if let Some(no_address) = cause::<NoAddress>(error) {
        return match no_address {
            NoAddress::Prohibited => Error::DestinationIpProhibited,
            NoAddress::TimedOut => Error::DnsTimeout,
            NoAddress::Unresolved(why) => {
                let rcode = match why {
                    ResolveError::NotFound => Some("NXDOMAIN".to_owned()),
                    ResolveError::Temporary => Some("SERVFAIL".to_owned()),
                    ResolveError::Permanent => None,
                };
                Error::DnsError { rcode, info_code: None }
            }
        };
    }
    if cause::<NoRoom>(error).is_some() {
        return Error::ConnectionLimitReached;
    }
    if let Some(tls) = cause::<rustls::Error>(error).or_else(|| cause(trouble?)) {
        return of_tls(tls);
    }
    let io = cause::<io::Error>(error).or(trouble);
    if error.is_connect() {
        return io.map_or(Error::DestinationUnavailable, of_connecting);
    }
    match cause::<hyper::Error>(error) {
        Some(hyper) if hyper.is_parse_too_large() => Error::HttpResponseHeaderSectionSize(None),
        Some(hyper) if hyper.is_parse() => Error::HttpProtocolError,
        Some(hyper) if hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed() => {
            Error::ConnectionTerminated
        }
        // Nothing of the response has come.
        _ if io.is_some() => Error::ConnectionTerminated,
        _ => Error::HttpProtocolError,
    }
}

fn of_connecting(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Error::DestinationIpUnroutable,
        // In the middle of the handshake of TLS.
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Error::ConnectionTerminated,
        _ => match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => Error::ConnectionLimitReached,
            _ => Error::DestinationUnavailable,
        },
    }
}

fn of_tls(error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Error::TlsCertificateError,
        rustls::Error::AlertReceived(alert) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::TlsProtocolError,
    }
}

/// A response whose head has come, and not all of its body; `trouble` is what its connection had.
pub(super) fn of_body(error: &hyper::Error, trouble: Option<&io::Error>) -> Error {
    if let Some(tls) = trouble.and_then(|trouble| cause::<rustls::Error>(trouble)) {
        return of_tls(tls);
    }
    match cause::<io::Error>(error).map(io::Error::kind) {
        // hyper's, for chunks that are none.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Error::HttpResponseTransferCoding(Some("chunked".to_owned()))
        }
        _ => Error::HttpResponseIncomplete,
    }
}

/// The first cause of that type, the error itself included.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    successors(Some(error), |error| next_cause(*error)).find_map(|error| error.downcast_ref())
}

/// `source`, but for I/O errors, whose own passes over what they were made of.
fn next_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The same for guests of WASI 0.2: those that we make, here and for bodies of clients.
pub(crate) fn code(error: &Error) -> ErrorCode {
    match error {
        Error::DnsTimeout => ErrorCode::DnsTimeout,
        Error::DnsError { rcode, info_code } => {
            ErrorCode::DnsError(DnsErrorPayload { rcode: rcode.clone(), info_code: *info_code })
        }
        Error::DestinationUnavailable => ErrorCode::DestinationUnavailable,
        Error::DestinationIpProhibited => ErrorCode::DestinationIpProhibited,
        Error::DestinationIpUnroutable => ErrorCode::DestinationIpUnroutable,
        Error::ConnectionRefused => ErrorCode::ConnectionRefused,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::ConnectionTimeout => ErrorCode::ConnectionTimeout,
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::ConnectionLimitReached => ErrorCode::ConnectionLimitReached,
        Error::TlsProtocolError => ErrorCode::TlsProtocolError,
        Error::TlsCertificateError => ErrorCode::TlsCertificateError,
        Error::TlsAlertReceived { alert_id, alert_message } => ErrorCode::TlsAlertReceived(TlsAlertReceivedPayload {
            alert_id: *alert_id,
            alert_message: alert_message.clone(),
        }),
        Error::HttpRequestDenied => ErrorCode::HttpRequestDenied,
        Error::HttpRequestMethodInvalid => ErrorCode::HttpRequestMethodInvalid,
        Error::HttpRequestUriInvalid => ErrorCode::HttpRequestUriInvalid,
        Error::HttpRequestBodySize(size) => ErrorCode::HttpRequestBodySize(*size),
        Error::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        Error::HttpResponseHeaderSectionSize(size) => ErrorCode::HttpResponseHeaderSectionSize(*size),
        Error::HttpResponseTransferCoding(coding) => ErrorCode::HttpResponseTransferCoding(coding.clone()),
        Error::HttpUpgradeFailed => ErrorCode::HttpUpgradeFailed,
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        Error::ConfigurationError => ErrorCode::ConfigurationError,
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_however_deep_it_is_hidden() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadCertificate);
        let error = io::Error::other(io::Error::other(alert));
        assert!(matches!(
            cause::<rustls::Error>(&error).map(of_tls),
            Some(Error::TlsAlertReceived { alert_id: Some(42), .. })
        ));
        assert!(cause::<NoAddress>(&error).is_none());
        assert!(cause::<io::Error>(&NoAddress::Prohibited).is_none());
    }

    #[test]
    fn what_keeps_a_connection_from_being_made_has_its_code() {
        for (error, expected) in [
            (Errno::CONNREFUSED, "ConnectionRefused"),
            (Errno::TIMEDOUT, "ConnectionTimeout"),
            (Errno::NETUNREACH, "DestinationIpUnroutable"),
            (Errno::HOSTUNREACH, "DestinationIpUnroutable"),
            (Errno::CONNRESET, "ConnectionTerminated"),
            (Errno::MFILE, "ConnectionLimitReached"),
            (Errno::ADDRNOTAVAIL, "DestinationUnavailable"),
        ] {
            let error = of_connecting(&error.into());
            assert_eq!(format!("{error:?}"), expected);
            assert!(format!("{:?}", code(&error)).contains(expected));
        }
    }
}
