//! How each value is read from what a person typed: text in, a checked value out, or an error with the name to blame, the value and
//! what is allowed. Pure, but for files that values are read from.

use std::{
    fmt::Display,
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{HTTPS, Share, Text, UNIX};
use crate::{
    forwarded::Network,
    guest::{DirGrant, HostPattern, OutboundRule, TcpRule},
    unix_socket,
};

/// What limits on time may be.
pub(crate) const LIMIT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;

/// What draining may take.
pub(crate) const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=DAY;

/// What a guest's memory may be, in bytes.
pub(crate) const MEMORY: RangeInclusive<u64> = 1 << 20..=4 << 30;

/// What the largest request body may be, in bytes.
pub(crate) const BODY: RangeInclusive<u64> = 0..=1 << 40;

/// How many requests may be in guests at once.
pub(crate) const WORKERS: RangeInclusive<u32> = 1..=10_000;

/// How many requests of a handler may wait for that.
pub(crate) const QUEUE: RangeInclusive<u32> = 0..=10_000;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A value that a person wrote and that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value is not of the right form, or out of range.
    #[error("`{name}` must be {allowed}, found `{found}`")]
    NotAllowed {
        /// The flag or key.
        name: String,
        /// What would have been accepted.
        allowed: String,
        /// What was there.
        found: String,
    },
    /// A variable was to be taken from the host's own environment, which does not have it.
    #[error(
        "`{name}` takes `{variable}` from the environment of the host, where it is not set; write `{variable}=VALUE`"
    )]
    NoSuchVariable {
        /// The flag, or file and line.
        name: String,
        /// The variable.
        variable: String,
    },
    /// A table that was given as a flag is wrong.
    #[error("{}", problems.join("; "))]
    Table {
        /// All that is wrong with it.
        problems: Vec<String>,
    },
    /// A file that a value names cannot be read.
    #[error("`{name}`: cannot read `{}`", path.display())]
    Unreadable {
        /// The flag or key.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

pub(crate) fn not_allowed(name: &str, allowed: impl Display, found: &str) -> ValueError {
    ValueError::NotAllowed { name: name.to_owned(), allowed: allowed.to_string(), found: found.to_owned() }
}

/// Reads a duration such as `30s`, `500ms` or `2m`, and checks that it is in `range`.
///
/// # Errors
/// When it is no duration or out of range.
pub fn duration(name: &str, text: &str, range: RangeInclusive<Duration>) -> Result<Duration, ValueError> {
    humantime::parse_duration(text).ok().filter(|duration| range.contains(duration)).ok_or_else(|| {
        let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        not_allowed(name, format_args!("a duration between {least} and {most}, such as `30s`, `500ms` or `2m`"), text)
    })
}

/// Reads a number of bytes such as `128MiB`, `1GiB` or `65536`, and checks that it is in `range`.
///
/// # Errors
/// When it is no size or out of range.
pub fn size(name: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, ValueError> {
    parse_size(text).filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (least, most) = (format_size(*range.start()), format_size(*range.end()));
        // Not larger than what makes sense there.
        let examples = match (range.end(), range.contains(&500)) {
            (0..=0x4000_0000, true) => "`500B` or `64KiB`",
            (0..=0x4000_0000, false) => "`64KiB` or `256KiB`",
            _ => "`128MiB` or `1GiB`",
        };
        // The unit only: what a reference stands for is not to be seen in an error.
        let hint = meant_unit(text).map_or_else(String::new, |unit| format!(" (did you mean the unit `{unit}`?)"));
        not_allowed(name, format_args!("a size between {least} and {most}, such as {examples}{hint}"), text)
    })
}

/// What a unit that is no binary one may stand for.
fn meant_unit(text: &str) -> Option<&'static str> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let units = [("k", "KiB"), ("m", "MiB"), ("g", "GiB"), ("t", "TiB")];
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    units.into_iter().find(|(short, _)| !digits.is_empty() && unit == *short).map(|(_, meant)| meant)
}

fn parse_size(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let bytes: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

/// Writes a number of bytes for a person: exactly where it is a round number, with one decimal otherwise.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        None => format!("{bytes}B"),
        Some((shift, unit)) if bytes & ((1 << shift) - 1) == 0 => format!("{}{unit}", bytes >> shift),
        Some((shift, unit)) => format!("{:.1}{unit}", bytes as f64 / (1_u64 << shift) as f64),
    }
}

/// Reads a whole number and checks that it is in `range`.
///
/// # Errors
/// When it is no number or out of range.
pub fn count(name: &str, text: &str, range: RangeInclusive<u32>) -> Result<u32, ValueError> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        not_allowed(name, format_args!("a whole number between {} and {}", range.start(), range.end()), text)
    })
}

/// Reads a share such as `10%`, `0.5%` or `0.05`, and checks that it is more than nothing and at most all.
///
/// # Errors
/// When it is none.
pub fn share(name: &str, text: &str) -> Result<Share, ValueError> {
    let parts = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent * 100.0),
        None => text.parse::<f64>().map(|share| share * 10_000.0),
    };
    parts
        .ok()
        .map(f64::round)
        .filter(|parts| (1.0..=10_000.0).contains(parts))
        .map(|parts| Share(parts as u32))
        .ok_or_else(|| not_allowed(name, "a share of more than 0 and at most all, such as `10%` or `0.5%`", text))
}

/// Checks an address to listen on: `HOST:PORT`, `1.2.3.4:80`, `[::1]:80`, `localhost:0`.
///
/// # Errors
/// When host or port is missing or the port is no number. Whether the name exists is found out at start.
pub fn address(name: &str, text: &str) -> Result<String, ValueError> {
    let fits = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !bare_ipv6 && port.parse::<u16>().is_ok()
    });
    if fits {
        Ok(text.to_owned())
    } else {
        Err(not_allowed(name, "an address and a port, such as `127.0.0.1:8080`, `[::1]:8080` or `localhost:0`", text))
    }
}

/// Checks what to listen on: an [`address`], with `https://` before it where TLS is to be spoken (`http://` may be left out, and is here), or
/// `unix:` and the path of a Unix socket, which is made absolute: it is relative to `base`.
///
/// # Errors
/// As for an address; or the path is longer than a socket's may be.
pub fn listen(name: &str, text: &str, base: &Path) -> Result<String, ValueError> {
    if let Some(path) = text.strip_prefix(UNIX) {
        let whole =
            std::path::absolute(base.join(path)).ok().filter(|whole| !path.is_empty() && unix_socket::fits(whole));
        let allowed =
            "`unix:` and a path that is, from the root on, no longer than 107 bytes, such as `unix:/run/app.sock`";
        return whole.map(|whole| format!("{UNIX}{}", whole.display())).ok_or_else(|| not_allowed(name, allowed, text));
    }
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => ("", rest),
        Some(("https", rest)) => (HTTPS, rest),
        _ => ("", text),
    };
    if scheme == HTTPS && rest.starts_with(UNIX) {
        return Err(not_allowed(name, "an address where TLS is to be spoken: on a Unix socket it is not", text));
    }
    match address(name, rest.strip_suffix('/').filter(|_| rest.len() < text.len()).unwrap_or(rest)) {
        Ok(address) => Ok(format!("{scheme}{address}")),
        Err(_) => Err(not_allowed(
            name,
            "an address and a port, such as `127.0.0.1:8080`, `[::1]:8080`, `localhost:0`, or `https://0.0.0.0:443` for TLS, or \
             `unix:/run/app.sock`",
            text,
        )),
    }
}

/// Reads who is trusted as a proxy: a [`network`], or `unix:` for whoever comes over a Unix socket.
///
/// # Errors
/// When it is neither.
pub fn proxy(name: &str, text: &str) -> Result<Network, ValueError> {
    if text == UNIX {
        return Ok(Network::Unix);
    }
    let allowed = "an IP address or a range of them, such as `10.0.0.1` or `10.0.0.0/8`, or `unix:` for Unix sockets";
    text.parse().map_err(|()| not_allowed(name, allowed, text))
}

/// Reads an address, or range of addresses.
///
/// # Errors
/// When it is neither.
pub fn network(name: &str, text: &str) -> Result<Network, ValueError> {
    text.parse()
        .map_err(|()| not_allowed(name, "an IP address or a range of them, such as `10.0.0.1` or `10.0.0.0/8`", text))
}

/// Reads a directory grant, `HOST[::GUEST][:rw]`: the guest sees the directory under the same path unless `GUEST` says
/// another one, and cannot write unless `:rw` says so. (A directory whose name ends in `:rw` needs the `::GUEST` part.)
///
/// # Errors
/// When one of the paths is empty. Whether the directory exists is found out at start.
pub fn dir(name: &str, text: &str) -> Result<DirGrant, ValueError> {
    let (paths, writable) = match text.strip_suffix(":rw") {
        Some(paths) => (paths, true),
        None => (text, false),
    };
    let (host, guest) = paths.split_once("::").unwrap_or((paths, paths));
    if host.is_empty() || guest.is_empty() || guest.contains(':') {
        return Err(not_allowed(name, "`HOST[::GUEST][:rw]`, such as `data`, `./site::/` or `data::/data:rw`", text));
    }
    Ok(DirGrant { host: PathBuf::from(host), guest: guest.to_owned(), writable })
}

/// Reads where outgoing HTTP requests may go: scheme, host pattern and port.
///
/// # Errors
/// When it has another scheme, a path, or no host.
pub fn outbound(name: &str, text: &str) -> Result<OutboundRule, ValueError> {
    let allowed = "a URL without a path, such as `https://api.example.com`, `https://*.internal.example:8443` or `http://127.0.0.1:9000`";
    OutboundRule::parse(text).ok_or_else(|| not_allowed(name, allowed, text))
}

/// Reads where raw TCP may connect to: host pattern and port.
///
/// # Errors
/// When one of them is missing or none.
pub fn tcp(name: &str, text: &str) -> Result<TcpRule, ValueError> {
    let allowed = "a host and a port, such as `db.internal:5432`, `10.0.0.0/8:*` or `[::1]:80` (IPv6 in brackets)";
    TcpRule::parse(text).ok_or_else(|| not_allowed(name, allowed, text))
}

/// Reads which names may be looked up.
///
/// # Errors
/// When it is no name; an address is none.
pub fn dns(name: &str, text: &str) -> Result<HostPattern, ValueError> {
    HostPattern::parse(text)
        .filter(|pattern| !matches!(pattern, HostPattern::Network(_)))
        .ok_or_else(|| not_allowed(name, "a name, such as `db.internal`, `*.example.com` or `*`", text))
}

/// Reads an argument of a CGI program.
///
/// # Errors
/// When it has a NUL.
pub fn argument(name: &str, text: &str) -> Result<String, ValueError> {
    if text.contains('\0') { Err(not_allowed(name, "a text without zero bytes", text)) } else { Ok(text.to_owned()) }
}

/// Reads a variable: `K=V`, or `K` alone for the value it has in the environment of the host.
///
/// # Errors
/// When the name is empty or has white space, either part has a NUL, or the host has no such variable (or one that is not Unicode).
pub fn variable(
    name: &str,
    text: &str,
    environment: impl FnOnce(&str) -> Option<String>,
) -> Result<(String, Text), ValueError> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() || key.contains(char::is_whitespace) || text.contains('\0') {
        return Err(not_allowed(name, "`K=V`, or `K` alone to take the value from the environment of the host", text));
    }
    let value = value
        .map(Text::from)
        .or_else(|| environment(key).map(|value| Text::secret(value, format!("${{env:{key}}}"))))
        .ok_or_else(|| ValueError::NoSuchVariable { name: name.to_owned(), variable: key.to_owned() })?;
    Ok((key.to_owned(), value))
}

/// Reads variables from a file: one a line as in [`variable`], `#` starts a comment line, quotes have no meaning.
///
/// # Errors
/// When the file cannot be read or a line is not as said; the error names the line.
pub fn env_file(
    name: &str,
    path: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Text)>, ValueError> {
    let unreadable = |source| ValueError::Unreadable { name: name.to_owned(), path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| variable(&format!("{name}: {}:{number}", path.display()), line, &environment))
        .collect()
}

/// Adds variables to those there are; a later one of the same name replaces the earlier one.
pub fn add_variables(env: &mut Vec<(String, Text)>, more: impl IntoIterator<Item = (String, Text)>) {
    for (key, value) in more {
        match env.iter_mut().find(|(existing, _)| *existing == key) {
            Some(variable) => variable.1 = value,
            None => env.push((key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let range = Duration::from_millis(1)..=HOUR;
        let read = |text| duration("--deadline", text, range.clone()).map_err(|error| error.to_string());
        assert_eq!(read("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(read("1h"), Ok(HOUR));
        for wrong in ["", "30", "-1s", "0s", "61m", "soon", "s"] {
            assert_eq!(
                read(wrong),
                Err(format!(
                    "`--deadline` must be a duration between 1ms and 1h, such as `30s`, `500ms` or `2m`, found `{wrong}`"
                ))
            );
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text| size("--max-memory", text, 1 << 16..=4 << 30).map_err(|error| error.to_string());
        assert_eq!(read("128MiB"), Ok(128 << 20));
        assert_eq!(read("1GiB"), Ok(1 << 30));
        assert_eq!(read("64 kib"), Ok(1 << 16));
        assert_eq!(read("65536"), Ok(1 << 16));
        assert_eq!(read("65536B"), Ok(1 << 16));
        let allowed = "a size between 64KiB and 4GiB, such as `128MiB` or `1GiB`";
        for wrong in ["", "MiB", "1", "9TiB", "kb", "-1GiB", "1.5GiB", "99999999999999999999", "99999999999999TiB"] {
            assert_eq!(read(wrong), Err(format!("`--max-memory` must be {allowed}, found `{wrong}`")));
        }
        for (wrong, unit) in [("64K", "KiB"), ("64kb", "KiB"), ("128MB", "MiB"), ("1 g", "GiB"), ("1tb", "TiB")] {
            let hint = format!("(did you mean the unit `{unit}`?)");
            assert_eq!(read(wrong), Err(format!("`--max-memory` must be {allowed} {hint}, found `{wrong}`")));
        }
        let error = size("body_rate", "1x", 0..=1 << 20).expect_err("it is none").to_string();
        assert_eq!(error, "`body_rate` must be a size between 0B and 1MiB, such as `500B` or `64KiB`, found `1x`");
    }

    #[test]
    fn sizes_are_written_as_people_read_them() {
        assert_eq!(format_size(0), "0B");
        assert_eq!(format_size(1023), "1023B");
        assert_eq!(format_size(1 << 10), "1KiB");
        assert_eq!(format_size(64_100), "62.6KiB");
        assert_eq!(format_size(128 << 20), "128MiB");
        assert_eq!(format_size(u64::MAX), "16777216.0TiB");
    }

    #[test]
    fn shares_are_read_and_written_as_percent() {
        let read = |text| share("--canary", text).map(|share| share.to_string()).ok();
        for (text, written) in [("10%", "10%"), ("0.5%", "0.5%"), ("0.25", "25%"), ("12.34 %", "12.34%"), ("1", "100%")]
        {
            assert_eq!(read(text).as_deref(), Some(written), "{text}");
        }
        for wrong in ["", "%", "0", "0%", "101%", "1.1", "-1%", "ten", "NaN", "inf"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_share_is_exact_in_any_thousand_requests() {
        for parts in [10, 100, 1_000, 3_330, 9_990, 10_000] {
            let share = Share::of_ten_thousand(parts);
            for start in [0, 1, 7, 999, 123_456_789] {
                let taken = (start..start + 1_000).filter(|n| share.takes(*n)).count();
                assert_eq!(taken as u32, parts / 10, "{share} from {start}");
            }
        }
    }

    #[test]
    fn a_secret_is_shown_as_it_was_written() {
        let secret = Text::secret("hunter2", "${env:TOKEN}");
        assert_eq!((secret.to_string(), secret.expose()), ("${env:TOKEN}".to_owned(), "hunter2"));
        assert_eq!(format!("{secret:?}"), "\"${env:TOKEN}\"");
    }

    #[test]
    fn what_is_listened_on_may_say_what_is_spoken() {
        for (text, read) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("http://[::1]:80/", "[::1]:80"),
            ("https://localhost:0", "https://localhost:0"),
            ("https://localhost:0/", "https://localhost:0"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:app.sock", "unix:/srv/app/app.sock"),
            ("unix:///run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(listen("listen", text, Path::new("/srv/app")).expect("allowed"), read);
        }
        for wrong in
            ["", "https://", "https://a", "https://:443", "ftp://a:21", "HTTPS://a:443", "a:443/", "https://a:443/b"]
        {
            let error = listen("listen", wrong, Path::new("/")).expect_err("it is none").to_string();
            let end = format!("or `https://0.0.0.0:443` for TLS, or `unix:/run/app.sock`, found `{wrong}`");
            assert!(error.ends_with(&end), "{error}");
        }
    }

    #[test]
    fn the_path_of_a_socket_has_bounds_and_no_tls() {
        let read = |text: &str| listen("listen", text, Path::new("/")).map_err(|error| error.to_string());
        let longest = format!("unix:/{}", "x".repeat(106));
        assert_eq!(read(&longest).as_ref(), Ok(&longest));
        for wrong in ["unix:", "unix:/a\0b", &format!("{longest}x"), &format!("unix:{}", "x".repeat(107))] {
            let error = read(wrong).expect_err("it is none");
            assert!(error.starts_with("`listen` must be `unix:` and a path that is"), "{error}");
        }
        let error = read("https://unix:/run/app.sock").expect_err("it is none");
        assert!(error.contains("on a Unix socket it is not"), "{error}");
    }

    #[test]
    fn who_comes_over_a_unix_socket_can_be_trusted() {
        assert_eq!(proxy("trusted_proxies", "unix:").ok(), Some(Network::Unix));
        assert_eq!(proxy("trusted_proxies", "10.0.0.0/8").ok(), "10.0.0.0/8".parse().ok());
        for wrong in ["unix", "unix:/run/app.sock", "nginx"] {
            assert!(proxy("trusted_proxies", wrong).is_err(), "{wrong}");
        }
        assert!(network("proxy_protocol", "unix:").is_err());
    }

    #[test]
    fn addresses_need_host_and_port() {
        for right in ["127.0.0.1:8080", "[::1]:0", "localhost:3000", "example.com:80"] {
            assert_eq!(address("--listen", right).expect("allowed"), right);
        }
        for wrong in ["", "8080", ":8080", "127.0.0.1", "::1:80", "localhost:http", "localhost:65536"] {
            let error = address("--listen", wrong).expect_err("not allowed").to_string();
            assert!(error.starts_with("`--listen` must be") && error.ends_with(&format!("found `{wrong}`")), "{error}");
        }
    }

    #[test]
    fn directories_are_read_only_unless_said() {
        let read = |text| dir("--dir", text).map(|grant| (grant.host, grant.guest, grant.writable)).ok();
        assert_eq!(read("data"), Some(("data".into(), "data".into(), false)));
        assert_eq!(read("data:rw"), Some(("data".into(), "data".into(), true)));
        assert_eq!(read("/srv/site::/"), Some(("/srv/site".into(), "/".into(), false)));
        assert_eq!(read("/srv/site::/www:rw"), Some(("/srv/site".into(), "/www".into(), true)));
        for wrong in ["", ":rw", "::/x", "data::", "data::/x:wr", "a::b::c"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_destination_is_read_or_told_how_it_is_written() {
        assert!(outbound("--outbound", "https://*.example.com:8443").is_ok());
        assert!(tcp("--tcp", "[::1]:6379").is_ok() && dns("--dns", "*.example.com").is_ok());
        let error = outbound("--outbound", "example.com").expect_err("no scheme").to_string();
        assert!(error.starts_with("`--outbound` must be a URL without a path, such as `https://"), "{error}");
        let error = tcp("--tcp", "example.com").expect_err("no port").to_string();
        assert!(error.starts_with("`--tcp` must be a host and a port, such as `db.internal:5432`"), "{error}");
        for wrong in ["127.0.0.1", "10.0.0.0/8", "a b", ""] {
            assert!(dns("--dns", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables_come_with_a_value_or_from_the_environment() {
        let environment = |key: &str| (key == "HOME").then(|| "/root".to_owned());
        let read = |text| variable("--env", text, environment).map_err(|error| error.to_string());
        assert_eq!(read("A=b"), Ok(("A".into(), "b".into())));
        assert_eq!(read("A="), Ok(("A".into(), "".into())));
        assert_eq!(read("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(read("HOME"), Ok(("HOME".into(), Text::secret("/root", "${env:HOME}"))));
        assert!(read("NOPE").is_err_and(|error| error.contains("`NOPE=VALUE`")));
        assert!(read("=b").is_err());
        assert!(read("A B=c").is_err());
        assert!(read("").is_err());
        assert!(read("A\0=b").is_err());
    }

    #[test]
    fn an_env_file_has_comments_and_its_errors_have_lines() {
        let path = std::env::temp_dir().join(format!("astra-host-env-{}", std::process::id()));
        std::fs::write(&path, "# comment\n\nA=1\n  B= two words \nQ=\"q\"\n").expect("writes");
        let read = env_file("--env-file", &path, nothing).expect("it is right");
        let expected = [("A", "1"), ("B", " two words"), ("Q", "\"q\"")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.into())));
        std::fs::write(&path, "A=1\n=2\n").expect("writes");
        let error = env_file("--env-file", &path, nothing).expect_err("line 2 has no name").to_string();
        std::fs::remove_file(&path).expect("removes");
        assert!(error.starts_with(&format!("`--env-file: {}:2` must be", path.display())), "{error}");
        let error = env_file("--env-file", &path, nothing).expect_err("it is gone");
        assert!(error.to_string().contains("cannot read"), "{error}");
    }

    #[test]
    fn later_variables_replace_earlier_ones() {
        let pair = |key: &str, value: &str| (key.to_owned(), Text::from(value));
        let mut env = vec![pair("A", "1"), pair("B", "2")];
        add_variables(&mut env, [pair("A", "3"), pair("C", "4")]);
        assert_eq!(env, [pair("A", "3"), pair("B", "2"), pair("C", "4")]);
    }
}
