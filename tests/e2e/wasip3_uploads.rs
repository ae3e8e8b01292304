//! What guests of WASI 0.3 send to others: it arrives whole, or never looks so.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::mpsc,
};

use http::header;

use crate::harness::{
    BOTH, Host, Http, PATIENCE,
    origin::{Origin, echoing, head, raw, text},
};

const GUEST: &str = "wasip3_guest";
const MEGABYTE: usize = 1 << 20;

/// A host whose guests may ask any server of ours.
fn host() -> Host {
    Host::with(GUEST).flag("--outbound", "http://127.0.0.1:*").start()
}

/// What the guest answers with that asks `address`.
fn asked(host: &Host, version: Http, how: &str, address: SocketAddr) -> String {
    host.get(version, &format!("/outgoing/{how}?http://{address}/")).text().to_owned()
}

/// A server that tells all that it is sent, up to the end of the request or of the connection, and answers.
fn listening(answer: &'static [u8]) -> (SocketAddr, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let address = raw(move |mut stream| {
        let (mut all, mut byte) = (Vec::new(), [0]);
        while !is_request(&all) && matches!(stream.read(&mut byte), Ok(1)) {
            all.push(byte[0]);
        }
        let answered = stream.write_all(answer);
        tell.send(String::from_utf8_lossy(&all).into_owned()).expect("is waited for");
        answered
    });
    (address, told)
}

/// Whether it is all of a request without a body, or of one in chunks.
fn is_request(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let has_ended = body.contains("0\r\n") && body.ends_with("\r\n\r\n");
    !head.contains("transfer-encoding: chunked") || has_ended
}

#[test]
fn uploads_arrive_whole_however_they_are_made() {
    let origin = Origin::http(|request| {
        let length = request.headers().get(header::CONTENT_LENGTH).map(|length| length.to_str().expect("digits"));
        text(format!("{} {length:?}", request.body().len()))
    });
    let host = host();
    let body = vec![b'p'; 3 * MEGABYTE];
    for version in BOTH {
        for (how, told) in
            [("posts", "1048576 None"), ("puts", "1048576 Some(\"1048576\")"), ("posts-nothing", "0 None")]
        {
            let answer = asked(&host, version, how, origin.address);
            assert_eq!(answer, format!("200 {told}, no trailers; sent: Ok(())"), "{how}");
        }
        for how in ["proxies", "copies"] {
            let answer = host.post(version, &format!("/outgoing/{how}?http://{}/", origin.address), &body);
            assert_eq!(answer.text(), "3145728 None", "{how}");
        }
    }
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let origin = echoing();
    let host = host();
    for how in ["proxies", "copies"] {
        let mut client = host.connect();
        client.send(format!(
            "POST /outgoing/{how}?http://{origin}/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\none,\r\n"
        ));
        assert_eq!(client.head().status, 200, "the answer begins before the request has ended");
        let mut seen = String::new();
        for next in ["two,", "last"] {
            while !seen.ends_with(",\r\n") {
                seen += &String::from_utf8(client.chunk().expect("it streams").expect("not the end")).expect("text");
            }
            client.send(format!("4\r\n{next}\r\n"));
            seen.push('|');
        }
        client.send("0\r\n\r\n");
        while let Some(chunk) = client.chunk().expect("a whole answer") {
            seen += &String::from_utf8(chunk).expect("text");
        }
        assert_eq!(seen, "4\r\none,\r\n|4\r\ntwo,\r\n|4\r\nlast\r\n0\r\n\r\n", "{how}");
    }
}

#[test]
fn an_upload_that_breaks_off_never_looks_whole() {
    let (tell, told) = mpsc::channel();
    let origin = raw(move |mut stream| {
        head(&mut stream)?;
        let mut half = [0; 9];
        stream.read_exact(&mut half)?;
        tell.send(half.to_vec()).expect("is waited for");
        // For the guest that fails when it has seen this.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        tell.send(rest).expect("is waited for");
        Ok(())
    });
    let next = || told.recv_timeout(PATIENCE).expect("it streams, and ends");
    let host = host();
    for how in ["proxies", "copies"] {
        let mut client = host.connect();
        client.send(format!(
            "POST /outgoing/{how}?http://{origin}/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        ));
        assert_eq!(next(), b"4\r\nhalf\r\n");
        client.reset();
        assert_eq!(next(), b"", "no last chunk: {how}");
    }
    for version in BOTH {
        let answer = host.get(version, &format!("/outgoing/traps?http://{origin}/"));
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (500, &"trap".into()));
        assert_eq!((next(), next()), (b"4\r\nhalf\r\n".to_vec(), Vec::new()), "no last chunk");
    }
}

#[test]
fn an_upload_that_its_guest_has_written_goes_on_without_it() {
    let (tell, told) = mpsc::channel();
    let origin = raw(move |mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        let mut all = [0; 19];
        let read = stream.read_exact(&mut all);
        tell.send(read.map(|()| all).ok()).expect("is waited for");
        Ok(())
    });
    let host = host();
    for version in BOTH {
        assert_eq!(asked(&host, version, "leaves", origin), "200");
        let all = told.recv_timeout(PATIENCE).expect("it has answered").expect("it is whole");
        assert_eq!(String::from_utf8_lossy(&all), "9\r\nall of it\r\n0\r\n\r\n");
    }
}

#[test]
fn an_upload_that_the_guest_breaks_off_never_looks_whole() {
    let (origin, told) = listening(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let host = host();
    for version in BOTH {
        let answer = asked(&host, version, "breaks-off", origin);
        assert_eq!(answer, r#"ErrorCode::InternalError(Some("no more"))"#);
        let all = told.recv_timeout(PATIENCE).expect("it has ended");
        assert!(!all.ends_with("0\r\n\r\n"), "{all}");
    }
}

#[test]
fn an_upload_that_is_not_as_long_as_it_says_is_not_finished() {
    let origin = Origin::http(|request| text(String::from_utf8_lossy(request.body()).into_owned()));
    let host = host();
    let expected = "\
11 bytes: Ok(()), answered true
3 bytes: Err(ErrorCode::HttpRequestBodySize(Some(3))), answered false
18 bytes: Err(ErrorCode::HttpRequestBodySize(Some(18))), answered false
";
    for version in BOTH {
        assert_eq!(asked(&host, version, "lies", origin.address), expected);
    }
}

#[test]
fn trailers_go_both_ways() {
    let (origin, told) = listening(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nab\r\n0\r\nx-sum: 3\r\n\r\n",
    );
    let host = host();
    for version in BOTH {
        let answer = asked(&host, version, "sends-trailers", origin);
        assert_eq!(answer, r#"200 ab, [("x-sum", "3")]; sent: Ok(())"#);
        let all = told.recv_timeout(PATIENCE).expect("a request has come");
        assert!(all.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n"), "{all}");
        // Also where there is nothing before them.
        let answer = asked(&host, version, "deletes-with-trailers", origin);
        assert_eq!(answer, r#"200 ab, [("x-sum", "3")]; sent: Ok(())"#);
        let all = told.recv_timeout(PATIENCE).expect("a request has come");
        assert!(all.ends_with("\r\n\r\n0\r\nx-sum: 3\r\n\r\n"), "{all}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_upload_is_never_held_whole() {
    const SIZE: usize = 128 << 20;
    let origin = Origin::http(|request| text(request.body().len().to_string()));
    for how in ["proxies", "copies"] {
        let rule = format!("http://{}", origin.address);
        let host = Host::with(GUEST).flag("--outbound", &rule).flag("--max-body", "1GiB").start();
        host.post(Http::One, "/collects", b"warm");
        let before = host.memory("VmRSS");
        let body = vec![b'x'; SIZE];
        assert_eq!(host.post(Http::One, &format!("/outgoing/{how}?{rule}/"), &body).text(), SIZE.to_string());
        let grown = host.memory("VmHWM").saturating_sub(before);
        assert!(grown < 64 << 20, "the host grew by {} MiB", grown >> 20);
    }
}
