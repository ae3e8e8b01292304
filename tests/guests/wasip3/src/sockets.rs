//! `wasi:sockets`: talks to the address that is the query, looks a name up, and tries what nobody may.

use std::net::SocketAddr;

use wasip3::{
    sockets::{
        ip_name_lookup,
        types::{
            ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket, UdpSocket,
        },
    },
    wit_stream,
};

pub(crate) async fn report(what: &str, query: &str) -> String {
    if what == "looks-up" {
        return format!("{:?}", ip_name_lookup::resolve_addresses(query.to_owned()).await);
    }
    let address = query.parse().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let done = match what {
        "talks" => talk(address).await,
        "binds" => bound(address).map(|_| "bound".to_owned()),
        "listens" => listen(query, address),
        "hoards" => Ok(hoard()),
        _ => udp(address),
    };
    done.unwrap_or_else(|code| format!("{code:?}"))
}

fn family(address: SocketAddr) -> IpAddressFamily {
    if address.is_ipv4() { IpAddressFamily::Ipv4 } else { IpAddressFamily::Ipv6 }
}

fn wasi(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port: v4.port(), address: (a, b, c, d) })
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            let address = (a, b, c, d, e, f, g, h);
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port: v6.port(), flow_info: 0, address, scope_id: 0 })
        }
    }
}

/// Says "ping", and tells what comes back.
async fn talk(address: SocketAddr) -> Result<String, ErrorCode> {
    let socket = TcpSocket::create(family(address))?;
    socket.connect(wasi(address)).await?;
    let (mut writer, reader) = wit_stream::new();
    let sent = socket.send(reader);
    writer.write_all(b"ping\n".to_vec()).await;
    drop(writer);
    sent.await?;
    let (came, ended) = socket.receive();
    let came = came.collect().await;
    ended.await?;
    Ok(String::from_utf8_lossy(&came).into_owned())
}

fn bound(address: SocketAddr) -> Result<TcpSocket, ErrorCode> {
    let socket = TcpSocket::create(family(address))?;
    socket.bind(wasi(address))?;
    Ok(socket)
}

/// Binds first if there is an address.
fn listen(query: &str, address: SocketAddr) -> Result<String, ErrorCode> {
    let socket = if query.is_empty() { TcpSocket::create(family(address))? } else { bound(address)? };
    socket.listen().map(|_| "listens".to_owned())
}

/// How many sockets it can have, and why not more.
fn hoard() -> String {
    let mut all = Vec::new();
    loop {
        match TcpSocket::create(IpAddressFamily::Ipv4) {
            Ok(socket) => all.push(socket),
            Err(code) => return format!("{}, then {code:?}", all.len()),
        }
    }
}

fn udp(address: SocketAddr) -> Result<String, ErrorCode> {
    UdpSocket::create(family(address))?.bind(wasi(address)).map(|()| "bound".to_owned())
}
