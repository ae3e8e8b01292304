//! Files that are right, and many that are not.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::config::ClientLimits;
use crate::guest::{DirGrant, HostPattern, OutboundRule};

/// A directory with an `astra.toml`, removed when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(text: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("astra-host-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("can be made");
        let folder = Self(folder);
        folder.write("astra.toml", text);
        folder
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), text).expect("can be written");
    }

    fn read(&self) -> Result<ConfigFile, ConfigFileError> {
        read(&self.0.join("astra.toml"), environment)
    }

    /// The error, with the file called `astra.toml`.
    fn error(&self) -> String {
        let error = self.read().expect_err("it is wrong").to_string();
        error.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn environment(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("hunter2".to_owned()),
        "DIR" => Some("modules".to_owned()),
        "WORKERS" => Some("7".to_owned()),
        "EMPTY" => Some(String::new()),
        "NUL" => Some("hunter2\0".to_owned()),
        _ => None,
    }
}

fn right(text: &str) -> (Folder, ConfigFile) {
    let folder = Folder::new(text);
    let file = folder.read().unwrap_or_else(|error| panic!("{error}"));
    (folder, file)
}

/// A file with one handler that has these lines too.
fn with_handler(lines: &str) -> String {
    format!("[[handler]]\nname = \"hello\"\nmodule = \"hello.wasm\"\n{lines}\n")
}

const EVERYTHING: &str = r#"
[server]
listen = ["http://127.0.0.1:8080", "https://[::1]:0", "unix:run/app.sock", "unix:${env:DIR}/app.sock"]
tls = [{ cert = "tls/${env:DIR}.pem", key = "tls/key.pem" }, { cert = "/run/both.pem", key = "/run/both.pem" }]
control = "run/astra.sock"
control_tcp = "127.0.0.1:9000"
control_token_file = "token"
max_module = "16MiB"
trusted_proxies = ["10.0.0.0/8", "::1", "unix:"]
proxy_protocol = "192.0.2.0/24"
max_body = 65537
body_timeout = "1m 30s"
max_workers = "${env:WORKERS}"
header_timeout = "5s"
tls_handshake_timeout = "3s"
idle_timeout = "2m"
write_timeout = "7s"
body_rate = "2KiB"
max_header_size = "16KiB"
max_headers = 50
max_connections = 1000
max_connections_per_peer = 20
max_requests_per_connection = 10000
max_connection_age = "1h"
http2_max_streams = 100
http2_max_control_frames = 500
memory_budget = "2GiB"
reset = "scan"
cache = false
trust_precompiled = true
health = "/healthz"
drain = "5s"
state = "/var/lib/astra"
compile = { timeout = "10s", memory = "1GiB" }

[[handler]]
name = "hello"
module = "${env:DIR}/hello.wasm"
route = ["/hello/*", "/hi/:who"]
host = "*.Example.com"
watch = true
probe = { path = "/hello/healthz?token=${env:TOKEN}", status = 204, within = "500ms" }
guard = { window = "1m", max_failures = "0.5%", min_requests = 5, count_5xx = true }
env = { GREETING = "hi \"there\"\t\u007F", TOKEN = "Bearer ${env:TOKEN}", FILE = "${file:secret}", PLAIN = "$${env:X} $$" }
dirs = { "/data" = "./data", "/rw dir" = { host = "${env:DIR}", write = true } }
outbound = ["https://api.example.com/", { url = "https://*.Internal.example:8443", private = true, roots = "./ca.pem", certificate = "${env:DIR}/client.pem", key = "/run/client.key" }, "http://${env:TOKEN}:*", { url = "http://127.0.0.1:9000" }]
network = { tcp = ["db.internal:5432", "[fd00::/8]:*", "${env:TOKEN}.internal:1"], dns = "*.internal" }
config = { feature_x = "on", "a key" = "${file:secret}" }
args = ["app.py", "--flag", "${env:TOKEN}"]
limits = { deadline = "5s", stream_deadline = "1h", cpu = "100ms", memory = "64MiB", in_flight = 5, queue = 0, queue_timeout = "1s" }
drain = "0s"
keep = 1
new_imports = "refuse"

[[handler]]
name = "rest"
module = "/srv/rest.wasm"
route = "/*"
"#;

fn everything() -> (Folder, ConfigFile) {
    let folder = Folder::new(EVERYTHING);
    folder.write("secret", "s3cret\r\n");
    let file = folder.read().unwrap_or_else(|error| panic!("{error}"));
    (folder, file)
}

#[test]
fn every_key_is_read() {
    let (folder, file) = everything();
    let base = &folder.0;
    let server = &file.config.server;
    let unix = ["run/app.sock", "modules/app.sock"].map(|path| format!("unix:{}", base.join(path).display()));
    assert_eq!(server.listen, ["127.0.0.1:8080", "https://[::1]:0", &unix[0], &unix[1]]);
    let files = |cert: PathBuf, key: PathBuf| CertificateFiles { cert, key };
    let both = || PathBuf::from("/run/both.pem");
    assert_eq!(server.tls, [files(base.join("tls/modules.pem"), base.join("tls/key.pem")), files(both(), both())]);
    assert_eq!(server.control.socket, Some(base.join("run/astra.sock")));
    assert_eq!(server.control.tcp, Some(("127.0.0.1:9000".to_owned(), base.join("token"))));
    assert_eq!(server.control.max_module, 16 << 20);
    assert_eq!((server.trusted_proxies.len(), server.proxy_protocol.len()), (3, 1));
    assert_eq!((server.max_body, server.body_timeout), (65_537, Duration::from_secs(90)));
    assert_eq!((server.max_workers, server.memory_budget), (7, Some(2 << 30)));
    let clients = ClientLimits {
        header_timeout: 5 * SECOND,
        tls_handshake_timeout: 3 * SECOND,
        idle_timeout: 120 * SECOND,
        write_timeout: 7 * SECOND,
        body_rate: 2048,
        max_header_size: 16 << 10,
        max_headers: 50,
        max_connections: Some(1000),
        max_connections_per_peer: Some(20),
        max_requests_per_connection: Some(10_000),
        max_connection_age: Some(HOUR),
        http2_max_streams: 100,
        http2_max_control_frames: 500,
    };
    assert_eq!(server.clients, clients);
    assert_eq!((server.reset, server.cache, server.trust_precompiled), (Some(Reset::Scan), CacheMode::Off, true));
    assert_eq!(server.health.as_deref(), Some("/healthz"));
    assert_eq!((server.drain, server.state.clone()), (5 * SECOND, Some("/var/lib/astra".into())));
    assert_eq!((server.compile.timeout, server.compile.memory), (10 * SECOND, 1 << 30));
    assert!(!file.control_left_out && !file.state_left_out);

    let [hello, rest] = &file.config.handlers[..] else { panic!("two handlers") };
    assert_eq!((hello.name.as_str(), &hello.module), ("hello", &base.join("modules/hello.wasm")));
    let routes: Vec<String> = hello.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["*.example.com/hello/*", "*.example.com/hi/:who"]);
    assert!(hello.watch);
    let probe = ProbeConfig {
        path: "/hello/healthz?token=hunter2".to_owned(),
        status: StatusCode::NO_CONTENT,
        within: Duration::from_millis(500),
    };
    assert_eq!(hello.probe, Some(probe));
    let max_failures = Share::of_ten_thousand(50);
    assert_eq!(hello.guard, Some(GuardConfig { window: 60 * SECOND, max_failures, min_requests: 5, count_5xx: true }));
    let env: Vec<(&str, &str)> = hello.grants.env.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    assert_eq!(
        env,
        [
            ("FILE", "s3cret"),
            ("GREETING", "hi \"there\"\t\u{7f}"),
            ("PLAIN", "${env:X} $$"),
            ("TOKEN", "Bearer hunter2")
        ]
    );
    let dir = |host: &str, guest: &str, writable| DirGrant { host: base.join(host), guest: guest.to_owned(), writable };
    assert_eq!(hello.grants.dirs, [dir("data", "/data", false), dir("modules", "/rw dir", true)]);
    let rule = |text| OutboundRule::parse(text).expect("a rule");
    let internal = OutboundRule {
        private: true,
        roots: Some(base.join("ca.pem")),
        client: Some((base.join("modules/client.pem"), "/run/client.key".into())),
        ..rule("https://*.internal.example:8443")
    };
    let [api, named, literal] = ["https://api.example.com", "http://hunter2:*", "http://127.0.0.1:9000"].map(rule);
    assert_eq!(hello.grants.outbound, [api, internal, named, literal]);
    let tcp: Vec<String> = hello.grants.network.tcp.iter().map(ToString::to_string).collect();
    assert_eq!(tcp, ["db.internal:5432", "[fd00::/8]:*", "hunter2.internal:1"]);
    assert_eq!(hello.grants.network.dns, [HostPattern::Below("internal".to_owned())]);
    let config = hello.grants.config.iter().map(|(key, value)| (key.as_str(), value.expose()));
    assert_eq!(config.collect::<Vec<_>>(), [("a key", "s3cret"), ("feature_x", "on")]);
    assert_eq!(hello.grants.args, ["app.py", "--flag", "hunter2"]);
    assert_eq!((hello.limits.deadline, hello.limits.memory), (5 * SECOND, 64 << 20));
    assert_eq!((hello.limits.stream_deadline, hello.limits.cpu), (Some(HOUR), Some(100 * MILLISECOND)));
    let admission = Admission { in_flight: Some(5), queue: Some(0), queue_timeout: Some(SECOND) };
    assert_eq!((&hello.admission, &rest.admission), (&admission, &Admission::default()));
    assert_eq!((hello.drain, hello.keep, hello.new_imports), (Duration::ZERO, 1, NewImports::Refuse));

    assert_eq!(rest.module, Path::new("/srv/rest.wasm"));
    assert_eq!(rest.drain, 5 * SECOND, "the server's");
}

#[test]
fn what_is_left_out_has_a_default() {
    let (folder, file) = right(&with_handler(""));
    let mut expected = Config::new(folder.0.join("hello.wasm"));
    expected.server.listen = vec![DEFAULT_LISTEN.to_owned()];
    assert_eq!(file.config, expected);
    assert!(file.control_left_out && file.state_left_out);

    let (_folder, file) = right(&format!("[[server.tls]]\ncert = \"c\"\nkey = \"k\"\n{}", with_handler("")));
    assert_eq!(file.config.server.listen, [DEFAULT_LISTEN_TLS]);

    let (_folder, file) = right(&format!("[server]\ncontrol = false\nstate = false\n{}", with_handler("guard = {}")));
    assert!(!file.control_left_out && !file.state_left_out);
    assert_eq!((file.config.server.control.socket, file.config.server.state), (None, None));
    let max_failures = Share::of_ten_thousand(500);
    let guard = GuardConfig { window: 30 * SECOND, max_failures, min_requests: 20, count_5xx: false };
    assert_eq!(file.config.handlers[0].guard, Some(guard));

    let (_folder, file) = right(&with_handler("host = \"a.de\"\nprobe = { path = \"/x\" }"));
    assert_eq!(file.config.handlers[0].routes, [Route { host: Some("a.de".to_owned()), path: "/*".to_owned() }]);
    let probe = ProbeConfig { path: "/x".to_owned(), status: StatusCode::OK, within: 2 * SECOND };
    assert_eq!(file.config.handlers[0].probe, Some(probe));
}

#[test]
fn what_is_printed_says_the_same_without_secrets() {
    let dirs = with_handler("dirs = { a = { host = \"${env:DIR}\" }, \"a.host\" = \"b\" }");
    let host = with_handler("host = \"[::1]\"");
    for (folder, file) in [everything(), right(&with_handler("")), right(&host), right(&dirs)] {
        let printed = file.print();
        assert!(!printed.contains("hunter2") && !printed.contains("s3cret"), "{printed}");
        folder.write("astra.toml", &printed);
        let again = folder.read().unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(again.config, file.config, "{printed}");
        let left_out = |file: &ConfigFile| (file.control_left_out, file.state_left_out);
        assert_eq!(left_out(&again), left_out(&file));
        assert_eq!(again.print(), printed);
    }
    let printed = everything().1.print();
    for line in [
        "max_body = \"65537\"",
        "max_workers = \"${env:WORKERS}\"",
        "probe.path = \"/hello/healthz?token=${env:TOKEN}\"",
        "env.\"TOKEN\" = \"Bearer ${env:TOKEN}\"",
        "env.\"PLAIN\" = \"$${env:X} $$\"",
        "dirs.\"/rw dir\" = { host = \"${env:DIR}\", write = true }",
        "outbound = [\"https://api.example.com\", { url = \"https://*.internal.example:8443\", private = true, roots = \"/",
        "network.tcp = [\"db.internal:5432\", \"[fd00::/8]:*\", \"${env:TOKEN}.internal:1\"]",
        "network.dns = [\"*.internal\"]",
        "config.\"a key\" = \"${file:secret}\"",
        "config.\"feature_x\" = \"on\"",
        "args = [\"app.py\", \"--flag\", \"${env:TOKEN}\"]",
        "# outbound: none",
        "# network: none",
        "# config: none",
        "# args: none",
        "# memory_budget: 70 %",
        "# probe: none",
        "# limits.cpu: none",
    ] {
        let is_there = printed.lines().any(|printed| printed.starts_with(line));
        assert_eq!(is_there, !line.contains("70 %"), "{line}: {printed}");
    }
}

#[test]
fn every_value_is_checked_and_blamed() {
    for (server, expected) in [
        ("listen = \"8080\"", "`listen[0]` must be an address and a port"),
        ("listen = []", "`listen` must have at least one address"),
        ("listen = 8080", "`listen` must be a text or a list of texts, found an integer"),
        ("listen = [\"a:1\", 5]", "`listen[1]` must be a text, found an integer"),
        ("control = true", "`control` must be a path or `false`, found `true`"),
        ("control = \"\"", "`control` must be a path, found ``"),
        ("state = 1", "`state` must be a path or `false`, found an integer"),
        ("control_tcp = \"a:1\"", "`control_tcp` needs `control_token_file`"),
        ("control_token_file = \"t\"", "`control_token_file` is for `control_tcp`"),
        ("control_tcp = \"x\"\ncontrol_token_file = \"t\"", "`control_tcp` must be an address"),
        ("max_module = \"5GiB\"", "`max_module` must be a size between 1KiB and 4GiB"),
        ("trusted_proxies = \"proxy\"", "`trusted_proxies[0]` must be an IP address"),
        ("max_body = -1", "`max_body` must be a size between 0B and 1TiB, such as `128MiB` or `1GiB`, found `-1`"),
        ("max_body = true", "`max_body` must be a text or a number, found `true`"),
        ("max_body = [\"1\"]", "`max_body` must be a text or a number, found a list"),
        ("body_timeout = 30", "`body_timeout` must be a duration"),
        ("body_timeout = 1979-05-27", "`body_timeout` must be a text or a number, found a date"),
        ("max_header_size = \"1KiB\"", "`max_header_size` must be a size between 8KiB and 1MiB"),
        ("max_headers = 10001", "`max_headers` must be a whole number between 1 and 10000"),
        ("max_connections_per_peer = 0", "`max_connections_per_peer` must be a whole number between 1 and 1000000"),
        ("idle_timout = \"1s\"", "did you mean `idle_timeout`?"),
        ("max_workers = 0", "`max_workers` must be a whole number between 1 and 10000, found `0`"),
        ("max_workers = 1.5", "found `1.5`"),
        ("memory_budget = \"1\"", "`memory_budget` must be a size"),
        ("reset = \"none\"", "`reset` must be `copy` or `scan`, found `none`"),
        ("cache = \"yes\"", "`cache` must be `true` or `false`, found a text"),
        ("trust_precompiled = 1", "`trust_precompiled` must be `true` or `false`, found an integer"),
        ("drain = \"2days\"", "`drain` must be a duration between 0s and 1day"),
        ("compile = \"10s\"", "`compile` must be a table, found a text"),
        ("compile = { timeout = \"0s\" }", "`compile.timeout` must be a duration"),
        ("compile = { memory = \"1KiB\" }", "`compile.memory` must be a size"),
        ("compile = { memry = \"1GiB\" }", "unknown key `compile.memry`; did you mean `compile.memory`?"),
        ("listn = \"a:1\"", "unknown key `listn`; did you mean `listen`?"),
        ("nginx = true", "unknown key `nginx`; known are `tls`, `listen`, `control`,"),
        ("tls = true", "`tls` must be a table or a list of tables, found `true`"),
        ("tls = []", "`tls` must have at least one table; leave it out to have none"),
        (
            "health = \"/*\"",
            "`health` must be one path, such as `/healthz`: `*` and `:name` are for routes, found `/*`",
        ),
        ("health = \"/a/:id\"", "`:name` are for routes, found `/a/:id`"),
        ("body_rate = \"64K\"", "such as `500B` or `64KiB` (did you mean the unit `KiB`?), found `64K`"),
        ("tls = \"cert.pem\"", "`tls` must be a table or a list of tables, found a text"),
        ("tls = [5]", "`tls[0]` must be a table, found an integer"),
        ("tls = { cert = \"c\" }", "`tls[0].key` is missing"),
        ("tls = [{ cert = \"c\", key = \"k\" }, { key = \"k\" }]", "`tls[1].cert` is missing"),
        ("tls = { cert = \"c\", key = \"k\", sni = \"a\" }", "unknown key `tls[0].sni`; known are `cert`, `key`"),
        (
            "listen = \"a:1\"\ntls = { cert = \"c\", key = \"k\" }",
            "`tls` is for addresses in `listen` that begin with `https://`",
        ),
        (
            "listen = \"https://a:1\"",
            "`listen` has an address that begins with `https://`: `tls` is missing, such as `{ cert = ",
        ),
        ("\"li\\nsten\" = 1", "unknown key `li\\nsten`; did you mean `listen`?"),
    ] {
        let error = Folder::new(&format!("[server]\n{server}\n{}", with_handler(""))).error();
        assert!(error.starts_with("astra.toml: [server]: ") && error.contains(expected), "{server}: {error}");
        assert_eq!(error.lines().count(), 1, "{server}: {error}");
    }

    for (lines, expected) in [
        ("modul = \"x\"", "unknown key `modul`; did you mean `module`?"),
        ("route = \"hello\"", "`route[0]` must be a path that begins with `/`, found `hello`"),
        ("route = []", "`route` must have at least one path"),
        ("route = [\"/a\", \"/:\"]", "`route[1]` must be a path with a name"),
        ("host = \"a:80\"", "`host` must be a name without a port"),
        ("watch = \"true\"", "`watch` must be `true` or `false`, found a text"),
        ("probe = \"/x\"", "`probe` must be a table, found a text"),
        ("probe = {}", "`probe.path` is missing"),
        ("probe = { path = \"x\" }", "`probe.path` must be a path, such as"),
        ("probe = { path = \"/x#y\" }", "`probe.path` must be a path, such as"),
        ("probe = { path = \"/x y\" }", "`probe.path` must be a path, such as"),
        ("probe = { path = \"/x\", status = 99 }", "`probe.status` must be a status between 200 and 599, found `99`"),
        ("probe = { path = \"/x\", within = \"2 parsecs\" }", "`probe.within` must be a duration"),
        ("probe = { path = \"/x\", stat = 200 }", "unknown key `probe.stat`; did you mean `probe.status`?"),
        ("guard = { max_failures = 5 }", "`guard.max_failures` must be a share"),
        ("guard = { window = \"0s\" }", "`guard.window` must be a duration"),
        ("guard = { min_requests = 0 }", "`guard.min_requests` must be a whole number"),
        ("guard = { count_5xx = 1 }", "`guard.count_5xx` must be `true` or `false`"),
        ("guard = { windw = 1 }", "unknown key `guard.windw`; did you mean `guard.window`?"),
        ("env = { PORT = 80 }", "`env.PORT` must be a text, found an integer"),
        ("env = { \"A=B\" = \"\" }", "`env.A=B` must have a name without"),
        ("env = { \"\" = \"\" }", "`env.` must have a name"),
        ("env = { A = \"a\\u0000\" }", "`env.A` must be a text without zero bytes"),
        ("env = [\"A=B\"]", "`env` must be a table, found a list"),
        ("dirs = { \"/data\" = 1 }", "`dirs./data` must be a text, found an integer"),
        ("dirs = { \"/data\" = \"\" }", "`dirs./data` must be a path"),
        ("dirs = { \"\" = \"x\" }", "`dirs` must have names"),
        ("dirs = { \"/data\" = { write = true } }", "`dirs./data.host` is missing"),
        ("dirs = { \"/data\" = { host = \"x\", writ = true } }", "did you mean `dirs./data.write`?"),
        ("outbound = 1", "`outbound` must be a text, a table or a list of them, found an integer"),
        ("outbound = [1]", "`outbound[0]` must be a text, found an integer"),
        (
            "outbound = \"api.example.com\"",
            "`outbound[0]` must be a URL without a path, such as `https://api.example.com`",
        ),
        ("outbound = { private = true }", "`outbound[0].url` is missing"),
        ("outbound = { url = \"ftp://a\" }", "`outbound[0].url` must be a URL without a path"),
        ("outbound = { url = \"https://a\", privat = true }", "did you mean `outbound[0].private`?"),
        ("outbound = { url = \"https://a\", private = 1 }", "`outbound[0].private` must be `true` or `false`"),
        ("outbound = { url = \"https://a\", roots = \"\" }", "`outbound[0].roots` must be a path"),
        (
            "outbound = { url = \"https://a\", certificate = \"c\" }",
            "`outbound[0].certificate` needs `outbound[0].key`",
        ),
        ("outbound = { url = \"https://a\", key = \"k\" }", "`outbound[0].key` needs `outbound[0].certificate`"),
        ("outbound = { url = \"http://a\", roots = \"r\" }", "`outbound[0].url` must begin with `https://`"),
        ("outbound = [\"https://a\", \"https://A.:443\"]", "`outbound[1]` says again where requests may go"),
        ("network = [\"a:1\"]", "`network` must be a table, found a list"),
        ("network = { tcp = \"a\" }", "`network.tcp[0]` must be a host and a port, such as `db.internal:5432`"),
        ("network = { tcp = \"::1:80\" }", "or `[::1]:80` (IPv6 in brackets), found `::1:80`"),
        ("network = { tcp = [\"a:1\", 2] }", "`network.tcp[1]` must be a text, found an integer"),
        ("network = { dns = \"10.0.0.1\" }", "`network.dns[0]` must be a name, such as `db.internal`"),
        ("network = { udp = \"a:1\" }", "unknown key `network.udp`; "),
        ("config = { a = true }", "`config.a` must be a text, found `true`"),
        ("config = { \"\" = \"a\" }", "`config.` must have a name that is not empty"),
        ("args = 1", "`args` must be a text or a list of texts, found an integer"),
        ("args = [\"a\\u0000\"]", "`args[0]` must be a text without zero bytes"),
        ("confg = {}", "unknown key `confg`; did you mean `config`?"),
        (
            "limits = { memory = \"9TiB\" }",
            "`limits.memory` must be a size between 1MiB and 4GiB, such as `128MiB` or `1GiB`, found `9TiB`",
        ),
        ("limits = { deadline = \"\" }", "`limits.deadline` must be a duration"),
        ("limits = { stream_deadline = false }", "`limits.stream_deadline` must be a text or a number"),
        ("limits = { cpu = \"0ms\" }", "`limits.cpu` must be a duration"),
        ("limits = { memmory = \"1MiB\" }", "unknown key `limits.memmory`; did you mean `limits.memory`?"),
        ("drain = \"-1s\"", "`drain` must be a duration"),
        ("keep = 0\nguard = {}", "a `guard` goes back to the revision before: `keep` must be at least 1"),
        (
            "limits = { in_flight = 1025 }",
            "`limits.in_flight` must be at most `max_workers` of `[server]`, which is `1024`, found `1025`",
        ),
        ("keep = 101", "`keep` must be a whole number between 0 and 100, found `101`"),
        ("new_imports = \"deny\"", "`new_imports` must be `allow` or `refuse`, found `deny`"),
    ] {
        let error = Folder::new(&with_handler(lines)).error();
        assert!(error.starts_with("astra.toml: handler `hello`: ") && error.contains(expected), "{lines}: {error}");
        assert_eq!(error.lines().count(), 1, "{lines}: {error}");
    }
}

#[test]
fn a_handler_needs_a_name_a_module_and_a_route() {
    let both = format!("{}{}", with_handler("route = \"/a\""), with_handler("route = \"/b\""));
    for (text, expected) in [
        (String::new(), "astra.toml: there is no handler: begin one with `[[handler]]`"),
        ("handler = []".to_owned(), "astra.toml: there is no handler"),
        ("handler = [1]".to_owned(), "astra.toml: `handler` must be a list of tables"),
        ("[handler]\nname = \"a\"".to_owned(), "each begun with `[[handler]]`, found a table"),
        ("server = 1\n".to_owned() + &with_handler(""), "astra.toml: `server` must be a table, found an integer"),
        ("[[handlers]]\nname = \"a\"".to_owned(), "astra.toml: unknown key `handlers`; did you mean `handler`?"),
        ("[[handler]]\nmodule = \"a\"".to_owned(), "astra.toml: handler 1: `name` is missing"),
        ("[[handler]]\nname = \"a\"".to_owned(), "astra.toml: handler `a`: `module` is missing"),
        ("[[handler]]\nname = \"a b\"\nmodule = \"a\"".to_owned(), "handler 1: `name` must be 1 to 64 letters"),
        ("[[handler]]\nname = \"\"\nmodule = \"a\"".to_owned(), "handler 1: `name` must be 1 to 64 letters"),
        (format!("[[handler]]\nname = \"{}\"\nmodule = \"a\"", "a".repeat(65)), "handler 1: `name` must be"),
        ("[[handler]]\nname = \"a\"\nmodule = 1".to_owned(), "handler `a`: `module` must be a text, found an integer"),
        (both, "astra.toml: handlers 1 and 2 are both called `hello`: rename one"),
        (
            with_handler("route = \"/:a\"") + "[[handler]]\nname = \"b\"\nmodule = \"b\"\nroute = \"/:b\"",
            "astra.toml: route `/:a` of handler `hello` and route `/:b` of handler `b` match the same requests",
        ),
        (
            with_handler("") + "[[handler]]\nname = \"b\"\nmodule = \"b\"\nroute = \"/:b\"",
            "handler `hello`: `route` is missing",
        ),
    ] {
        let error = Folder::new(&text).error();
        assert!(error.contains(expected), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{text}: {error}");
    }
}

#[test]
fn a_probe_asks_the_handler_that_it_is_for() {
    let other = "[[handler]]\nname = \"other\"\nmodule = \"b\"\nroute = \"/hello/health\"\n";
    let hello = |probe: &str, host: &str| {
        with_handler(&format!("route = \"/hello/*\"\nprobe = {{ path = \"{probe}\" }}\n{host}")) + other
    };
    for right in [("/hello/x", ""), ("/hello?deep", ""), ("/hello/health", "host = \"*.a.de\"")] {
        assert!(Folder::new(&hello(right.0, right.1)).read().is_ok(), "{right:?}");
    }
    let error = Folder::new(&hello("/hello/health?x", "")).error();
    let expected = "astra.toml: handler `hello`: `probe.path` must be a path that its routes match (`/hello/*`), \
                    found `/hello/health?x`, which handler `other` answers";
    assert_eq!(error, expected);
    let error = Folder::new(&hello("/${env:TOKEN}", "")).error();
    assert!(error.ends_with("found `/${env:TOKEN}`, which no handler answers"), "{error}");
}

#[test]
fn all_problems_are_told_a_line_each() {
    let text = with_handler("kep = 1\nwatch = 1") + "[[handler]]\nname = \"b\"\nmodule = \"b\"\nroute = \"b\"\n";
    let error = Folder::new(&format!("[server]\nmax_body = \"x\"\n{text}")).error();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 5, "{error}");
    for (line, start) in
        lines.iter().zip(["[server]", "handler `hello`", "handler `hello`", "handler `hello`", "handler `b`"])
    {
        assert!(line.starts_with(&format!("astra.toml: {start}: ")), "{error}");
    }
}

#[test]
fn what_is_no_toml_is_placed() {
    for (text, expected) in [
        ("[server]\nlisten = 1 2\n", "astra.toml:2:10: "),
        ("a = 1\na = 2\n", "astra.toml:2:1: `a` is there twice"),
        ("[server]\n[server]\n", "astra.toml:2:2: `server` is there twice"),
        ("a = { b = 1, b = 2 }\n", "astra.toml:1:14: `b` is there twice"),
        ("a = 99999999999999999999\n", "astra.toml:1:5: the number is too large"),
        ("[server\n", "astra.toml:1:"),
        ("ä = 1\n", "astra.toml:1:1: "),
        ("[server]\n\"ä\" = 1 = 2", "astra.toml:2:9: "),
    ] {
        let folder = Folder::new(text);
        assert!(matches!(folder.read(), Err(ConfigFileError::Syntax { .. })), "{text}");
        let error = folder.error();
        assert!(error.starts_with(expected) && error.lines().count() == 1, "{text}: {error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new("");
    let missing = read(&folder.0.join("missing.toml"), environment).expect_err("missing");
    assert!(missing.to_string().ends_with("/missing.toml`"), "{missing}");
    for content in [&b"\xff"[..], &vec![b'#'; MAX_FILE as usize + 1]] {
        folder.write("astra.toml", content);
        assert!(matches!(folder.read(), Err(ConfigFileError::Read { .. })));
    }
}

#[test]
fn a_reference_that_leads_nowhere_is_named() {
    for (value, expected) in [
        ("${env:MISSING}", "refers to the environment variable `MISSING`, which is not set"),
        ("a ${file:missing} b", "refers to the file `missing`, which cannot be read"),
        ("${file:.}", "refers to the file `.`, which cannot be read"),
        ("${file:binary}", "refers to the file `binary`, which cannot be read"),
        ("${file:long}", "which cannot be read: it is longer than 1MiB"),
        ("${env:TOKEN", "has a `${` without its `}`"),
        ("${TOKEN}", "has `${TOKEN}`, which is neither `${env:NAME}` nor `${file:PATH}`"),
        ("${env:}", "has `${env:}`, which is neither"),
        ("${file:}", "has `${file:}`, which is neither"),
        ("${env:TOKEN} ${vault:x}", "has `${vault:x}`, which is neither"),
        ("${env:NUL}", "must be a text without zero bytes"),
    ] {
        let folder = Folder::new(&with_handler(&format!("env = {{ A = \"{value}\" }}")));
        folder.write("binary", b"\xff");
        folder.write("long", vec![b'a'; MAX_FILE as usize + 1]);
        let error = folder.error();
        assert!(error.starts_with("astra.toml: handler `hello`: `env.A` ") && error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_wrong_value_is_shown_as_it_was_written() {
    for lines in [
        "route = \"${env:TOKEN}\"",
        "host = \"${env:TOKEN}!\"",
        "drain = \"${env:TOKEN}\"",
        "keep = \"${env:TOKEN}\"",
        "new_imports = \"${env:TOKEN}\"",
        "limits = { memory = \"${env:TOKEN}\" }",
        "probe = { path = \"${env:TOKEN}\" }",
        "guard = { max_failures = \"${env:TOKEN}\" }",
        "dirs = { \"/a\" = \"${env:NUL}\" }",
        "outbound = \"${env:TOKEN}\"",
        "network = { tcp = \"${env:TOKEN}\" }",
        "network = { dns = \"${env:NUL}\" }",
    ] {
        let error = Folder::new(&with_handler(lines)).error();
        assert!(error.contains("found `${env:"), "{lines}: {error}");
        assert!(!error.contains("hunter2"), "{lines}: {error}");
    }
    let twice = with_handler("route = [\"/${env:TOKEN}\", \"/${env:TOKEN}\"]");
    let elsewhere = with_handler("route = \"/${env:TOKEN}\"\nprobe = { path = \"/x\" }");
    for text in [twice, elsewhere] {
        let error = Folder::new(&text).error();
        assert!(error.contains("`/${env:TOKEN}`") && !error.contains("hunter2"), "{error}");
    }
    let named = with_handler("").replace("hello\"", "${env:TOKEN}\"");
    let watched = named.clone() + "watch = 1\nhost = \"${env:TOKEN}\"\nkeep = 0\n";
    let guarded =
        named.clone() + "host = \"${env:TOKEN}\"\nroute = \"/a\"\nguard = {}\nkeep = 0\nprobe = { path = \"/b\" }\n";
    let asked = with_handler("route = \"/\"\nprobe = { path = \"/x\" }") + &named + "route = \"/x\"\n";
    for text in
        [watched, guarded, asked, (named.clone() + "route = \"/a\"\n").repeat(2), named + "route = [\"/\", \"/\"]"]
    {
        let error = Folder::new(&text).error();
        assert!(error.contains("${env:TOKEN}") && !error.contains("hunter2"), "{error}");
    }
    let server = "[server]\nlisten = \"${env:TOKEN}\"\ntrusted_proxies = \"${env:TOKEN}\"\n";
    let error = Folder::new(&(server.to_owned() + &with_handler(""))).error();
    assert!(error.lines().count() == 2 && !error.contains("hunter2"), "{error}");
}

#[test]
fn references_may_be_anywhere_in_a_text() {
    for (written, value, is_secret) in [
        ("${env:TOKEN}", "hunter2", true),
        ("a${env:TOKEN}b${env:EMPTY}${env:TOKEN}", "ahunter2bhunter2", true),
        ("${file:lines}", "1\n2", true),
        ("$${env:TOKEN}", "${env:TOKEN}", false),
        ("$$${env:TOKEN}", "$${env:TOKEN}", false),
        ("$${${env:TOKEN}}", "${hunter2}", true),
        ("$ $$ { } $}", "$ $$ { } $}", false),
    ] {
        let folder = Folder::new(&with_handler(&format!("env = {{ A = \"{written}\" }}")));
        folder.write("lines", "1\n2\n");
        let file = folder.read().unwrap_or_else(|error| panic!("{error}"));
        let text = &file.config.handlers[0].grants.env[0].1;
        assert_eq!(text.expose(), value, "{written}");
        assert_eq!(text.is_secret(), is_secret, "{written}");
    }
}

#[test]
fn keys_that_need_a_restart_are_named() {
    let (_folder, file) = everything();
    let old = file.config.server;
    assert_eq!(restart_keys(&old, &old), [] as [&str; 0]);
    let all = [
        "listen",
        "tls",
        "control",
        "control_tcp",
        "control_token_file",
        "max_module",
        "trusted_proxies",
        "proxy_protocol",
        "max_body",
        "body_timeout",
        "max_workers",
        "memory_budget",
        "reset",
        "cache",
        "trust_precompiled",
        "health",
        "drain",
        "state",
        "compile",
        "header_timeout",
        "tls_handshake_timeout",
        "idle_timeout",
        "write_timeout",
        "body_rate",
        "max_header_size",
        "max_headers",
        "max_connections",
        "max_connections_per_peer",
        "max_requests_per_connection",
        "max_connection_age",
        "http2_max_streams",
        "http2_max_control_frames",
    ];
    assert_eq!(restart_keys(&old, &ServerConfig::default()), all);
    let mut new = old.clone();
    new.control.tcp = Some(("127.0.0.1:9000".to_owned(), "elsewhere".into()));
    assert_eq!(restart_keys(&old, &new), ["control_token_file"]);
}

#[test]
fn a_flag_takes_an_entry_of_outbound_as_it_stands_in_a_file() {
    let outbound = |text| outbound("--outbound", text, environment).map_err(|error| error.to_string());
    let rule = |text| OutboundRule::parse(text).expect("a rule");
    assert_eq!(outbound("https://a"), Ok(rule("https://a")));
    let table = "{ url = \"https://a:1\", private = true, roots = \"${env:DIR}/ca.pem\" }";
    let roots = std::path::absolute("modules/ca.pem").expect("we are somewhere");
    assert_eq!(outbound(table), Ok(OutboundRule { private: true, roots: Some(roots), ..rule("https://a:1") }));
    for (text, expected) in [
        ("a", "`--outbound` must be a URL without a path"),
        (
            "{ url }",
            "`--outbound` must be a URL, or a table such as `{ url = \"https://api.example.com\", private = true }` (",
        ),
        ("{}", "--outbound: `outbound.url` is missing"),
        ("{ url = \"a\" }", "--outbound: `outbound.url` must be a URL without a path"),
        (
            "{ url = \"https://a\", privat = 1, key = \"k\" }",
            "--outbound: `outbound.key` needs `outbound.certificate`, such as `./client.pem`; --outbound: unknown key \
             `outbound.privat`; did you mean `outbound.private`?",
        ),
        ("{ url = \"https://a\", roots = \"${env:NONE}\" }", "--outbound: `outbound.roots` refers to the environment"),
    ] {
        let error = outbound(text).expect_err("it is wrong");
        assert!(error.contains(expected), "{text}: {error}");
    }
}
