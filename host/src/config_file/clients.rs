//! The keys of `[server]` that bound what clients may do: read, printed, compared.

use super::{count, duration, print::Section, size, table::Table};
use crate::config::{self, ClientLimits};

pub(super) fn read(table: &mut Table<'_>) -> ClientLimits {
    let default = ClientLimits::default();
    let mut time = |key, default| table.value(key, duration(config::LIMIT)).unwrap_or(default);
    let header_timeout = time("header_timeout", default.header_timeout);
    let tls_handshake_timeout = time("tls_handshake_timeout", default.tls_handshake_timeout);
    let idle_timeout = time("idle_timeout", default.idle_timeout);
    let write_timeout = time("write_timeout", default.write_timeout);
    let mut bytes = |key, range, default| table.value(key, size(range)).unwrap_or(default);
    let body_rate = bytes("body_rate", ClientLimits::BODY_RATE, default.body_rate);
    let max_header_size = bytes("max_header_size", ClientLimits::HEADER_SIZE, default.max_header_size);
    let max_headers = table.value("max_headers", count(ClientLimits::HEADERS)).unwrap_or(default.max_headers);
    let mut most = |key| table.value(key, count(ClientLimits::COUNT));
    ClientLimits {
        header_timeout,
        tls_handshake_timeout,
        idle_timeout,
        write_timeout,
        body_rate,
        max_header_size,
        max_headers,
        max_connections: most("max_connections"),
        max_connections_per_peer: most("max_connections_per_peer"),
        max_requests_per_connection: most("max_requests_per_connection"),
        http2_max_streams: most("http2_max_streams").unwrap_or(default.http2_max_streams),
        http2_max_control_frames: most("http2_max_control_frames").unwrap_or(default.http2_max_control_frames),
        max_connection_age: table.value("max_connection_age", duration(config::LIMIT)),
    }
}

pub(super) fn print(clients: &ClientLimits, out: &mut Section<'_>) {
    out.duration("header_timeout", clients.header_timeout);
    out.duration("tls_handshake_timeout", clients.tls_handshake_timeout);
    out.duration("idle_timeout", clients.idle_timeout);
    out.duration("write_timeout", clients.write_timeout);
    out.size("body_rate", clients.body_rate);
    out.size("max_header_size", clients.max_header_size);
    out.raw("max_headers", clients.max_headers);
    match clients.max_connections {
        Some(most) => out.raw("max_connections", most),
        None => out.comment("max_connections: three quarters of the open files, at most 65536"),
    }
    let most = [
        ("max_connections_per_peer", clients.max_connections_per_peer),
        ("max_requests_per_connection", clients.max_requests_per_connection),
    ];
    for (key, most) in most {
        match most {
            Some(most) => out.raw(key, most),
            None => out.comment(&format!("{key}: none")),
        }
    }
    match clients.max_connection_age {
        Some(age) => out.duration("max_connection_age", age),
        None => out.comment("max_connection_age: none"),
    }
    out.raw("http2_max_streams", clients.http2_max_streams);
    out.raw("http2_max_control_frames", clients.http2_max_control_frames);
}

/// Each key, and whether its values differ.
pub(super) fn differ(old: &ClientLimits, new: &ClientLimits) -> [(&'static str, bool); 13] {
    // Taken apart, so that a new field cannot be forgotten.
    let ClientLimits {
        header_timeout,
        tls_handshake_timeout,
        idle_timeout,
        write_timeout,
        body_rate,
        max_header_size,
        max_headers,
        max_connections,
        max_connections_per_peer,
        max_requests_per_connection,
        max_connection_age,
        http2_max_streams,
        http2_max_control_frames,
    } = old;
    [
        ("header_timeout", *header_timeout != new.header_timeout),
        ("tls_handshake_timeout", *tls_handshake_timeout != new.tls_handshake_timeout),
        ("idle_timeout", *idle_timeout != new.idle_timeout),
        ("write_timeout", *write_timeout != new.write_timeout),
        ("body_rate", *body_rate != new.body_rate),
        ("max_header_size", *max_header_size != new.max_header_size),
        ("max_headers", *max_headers != new.max_headers),
        ("max_connections", *max_connections != new.max_connections),
        ("max_connections_per_peer", *max_connections_per_peer != new.max_connections_per_peer),
        ("max_requests_per_connection", *max_requests_per_connection != new.max_requests_per_connection),
        ("max_connection_age", *max_connection_age != new.max_connection_age),
        ("http2_max_streams", *http2_max_streams != new.http2_max_streams),
        ("http2_max_control_frames", *http2_max_control_frames != new.http2_max_control_frames),
    ]
}
