//! What the host's error codes (WASI 0.2 `wasi:http/types`, `error-code`) mean to the author of a guest.

use wasip2::http::types::{DnsErrorPayload, ErrorCode as Code, TlsAlertReceivedPayload};

use crate::{FetchError, WaitedFor};

/// `while_waiting_for`: the host says only that it was for bytes.
pub(super) fn failure(code: Code, while_waiting_for: WaitedFor) -> FetchError {
    match code {
        Code::HttpRequestDenied | Code::DestinationIpProhibited => FetchError::Denied,

        Code::DnsTimeout => FetchError::TimedOut(WaitedFor::Lookup),
        Code::ConnectionTimeout => FetchError::TimedOut(WaitedFor::Connection),
        Code::ConnectionWriteTimeout => FetchError::TimedOut(WaitedFor::Sending),
        Code::ConnectionReadTimeout | Code::HttpResponseTimeout => FetchError::TimedOut(match while_waiting_for {
            WaitedFor::NextBytes => WaitedFor::NextBytes,
            _ => WaitedFor::FirstByte,
        }),

        Code::DnsError(DnsErrorPayload { rcode, .. }) => {
            FetchError::Dns(rcode.unwrap_or_else(|| "no such name".into()))
        }
        Code::ConnectionRefused => FetchError::Refused,
        Code::DestinationNotFound | Code::DestinationUnavailable | Code::DestinationIpUnroutable => {
            FetchError::Unreachable
        }
        Code::ConnectionTerminated | Code::HttpResponseIncomplete => FetchError::Incomplete,

        Code::TlsProtocolError => FetchError::Tls("the handshake failed".into()),
        Code::TlsCertificateError => FetchError::Tls("its certificate is not trusted".into()),
        Code::TlsAlertReceived(TlsAlertReceivedPayload { alert_id, alert_message }) => {
            FetchError::Tls(alert_message.unwrap_or_else(|| format!("alert {}", alert_id.unwrap_or_default())))
        }

        Code::ConnectionLimitReached => FetchError::Limit(FetchError::CONNECTIONS),
        Code::HttpRequestUriTooLong => FetchError::Limit("the request's URI"),
        Code::HttpRequestHeaderSectionSize(_) | Code::HttpRequestHeaderSize(_) => {
            FetchError::Limit("the request's headers")
        }
        Code::HttpRequestTrailerSectionSize(_) | Code::HttpRequestTrailerSize(_) => {
            FetchError::Limit("the request's trailers")
        }
        Code::HttpResponseHeaderSectionSize(_) | Code::HttpResponseHeaderSize(_) => {
            FetchError::Limit("the response's headers")
        }
        Code::HttpResponseTrailerSectionSize(_) | Code::HttpResponseTrailerSize(_) => {
            FetchError::Limit("the response's trailers")
        }
        Code::HttpResponseBodySize(_) => FetchError::Limit("the response's body"),

        Code::HttpRequestBodySize(_) | Code::HttpRequestLengthRequired => FetchError::Invalid("content-length"),
        Code::HttpRequestMethodInvalid => FetchError::Invalid("method"),
        Code::HttpRequestUriInvalid => FetchError::Invalid("URI"),

        Code::HttpProtocolError => FetchError::Protocol("its response is not valid"),
        Code::HttpResponseTransferCoding(_) => FetchError::Protocol("unknown transfer coding"),
        Code::HttpResponseContentCoding(_) => FetchError::Protocol("unknown content coding"),
        Code::HttpUpgradeFailed => FetchError::Protocol("the upgrade failed"),

        Code::LoopDetected => FetchError::Failed("it would go in a circle".into()),
        Code::ConfigurationError => FetchError::Failed("the host's configuration is wrong".into()),
        Code::InternalError(text) => FetchError::Failed(text.unwrap_or_else(|| "the host does not say why".into())),
    }
}
