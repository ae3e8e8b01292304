//! A configuration as a file that says the same: every key with its value, those that were left out too. What was written with
//! references is shown with them.

use std::{fmt::Display, path::Path, time::Duration};

use super::{ConfigFile, clients, grants, reference, table::Written};
use crate::{
    config::{CertificateFiles, HandlerConfig, NewImports, ServerConfig, Text, format_size},
    guest::{CacheMode, Grants, NetworkGrant, OutboundRule, Reset},
};

impl ConfigFile {
    /// The configuration as TOML. [`read`](super::read) in the same place makes the same of it. What has no value (a limit that is
    /// off, say) is in a comment.
    #[must_use]
    pub fn print(&self) -> String {
        let mut server = Section { text: "[server]\n".to_owned(), number: 0, written: &self.written };
        self.print_server(&self.config.server, &mut server);
        let mut text = server.text;
        for (index, handler) in self.config.handlers.iter().enumerate() {
            let header = "\n[[handler]]\n".to_owned();
            let mut section = Section { text: header, number: index + 1, written: &self.written };
            print_handler(handler, &mut section);
            text += &section.text;
        }
        text
    }

    fn print_server(&self, server: &ServerConfig, out: &mut Section<'_>) {
        out.list("listen", &server.listen);
        out.tls(&server.tls);
        out.path_or_off("control", server.control.socket.as_deref(), self.control_left_out);
        match &server.control.tcp {
            Some((address, token)) => {
                out.quoted("control_tcp", address);
                out.path("control_token_file", token);
            }
            None => out.comment("control_tcp, control_token_file: none"),
        }
        out.size("max_module", server.control.max_module);
        out.list("trusted_proxies", &server.trusted_proxies);
        out.list("proxy_protocol", &server.proxy_protocol);
        out.size("max_body", server.max_body);
        out.duration("body_timeout", server.body_timeout);
        clients::print(&server.clients, out);
        out.raw("max_workers", server.max_workers);
        match server.memory_budget {
            Some(bytes) => out.size("memory_budget", bytes),
            None => out.comment("memory_budget: 70 % of what the control group or the machine has"),
        }
        match server.reset {
            Some(Reset::Copy) => out.quoted("reset", "copy"),
            Some(Reset::Scan) => out.quoted("reset", "scan"),
            None => out.comment("reset: \"scan\" where the kernel can, \"copy\" where not"),
        }
        out.raw("cache", server.cache == CacheMode::On);
        out.raw("trust_precompiled", server.trust_precompiled);
        match &server.health {
            Some(path) => out.quoted("health", path),
            None => out.comment("health: none"),
        }
        out.duration("drain", server.drain);
        out.path_or_off("state", server.state.as_deref(), self.state_left_out);
        out.duration("compile.timeout", server.compile.timeout);
        out.size("compile.memory", server.compile.memory);
    }
}

fn print_handler(handler: &HandlerConfig, out: &mut Section<'_>) {
    out.quoted("name", &handler.name);
    out.path("module", &handler.module);
    out.list("route", handler.routes.iter().map(|route| &route.path));
    match handler.routes.first().and_then(|route| route.host.as_ref()) {
        Some(host) => out.quoted("host", host),
        None => out.comment("host: any"),
    }
    out.raw("watch", handler.watch);
    match &handler.probe {
        Some(probe) => {
            out.quoted("probe.path", &probe.path);
            out.raw("probe.status", probe.status.as_u16());
            out.duration("probe.within", probe.within);
        }
        None => out.comment("probe: none"),
    }
    match &handler.guard {
        Some(guard) => {
            out.duration("guard.window", guard.window);
            out.quoted("guard.max_failures", guard.max_failures);
            out.raw("guard.min_requests", guard.min_requests);
            out.raw("guard.count_5xx", guard.count_5xx);
        }
        None => out.comment("guard: none"),
    }
    print_grants(&handler.grants, out);
    out.duration("limits.deadline", handler.limits.deadline);
    for (key, limit) in [("limits.stream_deadline", handler.limits.stream_deadline), ("limits.cpu", handler.limits.cpu)]
    {
        match limit {
            Some(limit) => out.duration(key, limit),
            None => out.comment(&format!("{key}: none")),
        }
    }
    out.size("limits.memory", handler.limits.memory);
    match handler.admission.in_flight {
        Some(most) => out.raw("limits.in_flight", most),
        None => out.comment("limits.in_flight: `max_workers`, or three quarters of that beside other handlers"),
    }
    match handler.admission.queue {
        Some(most) => out.raw("limits.queue", most),
        None => out.comment("limits.queue: 1024"),
    }
    match handler.admission.queue_timeout {
        Some(timeout) => out.duration("limits.queue_timeout", timeout),
        None => out.comment("limits.queue_timeout: 10s"),
    }
    out.duration("drain", handler.drain);
    out.raw("keep", handler.keep);
    out.quoted(
        "new_imports",
        match handler.new_imports {
            NewImports::Allow => "allow",
            NewImports::Refuse => "refuse",
        },
    );
}

fn print_grants(grants: &Grants, out: &mut Section<'_>) {
    out.texts("env", &grants.env);
    for dir in &grants.dirs {
        out.dir(&dir.guest, &dir.host, dir.writable);
    }
    if grants.dirs.is_empty() {
        out.comment("dirs: none");
    }
    if grants.outbound.is_empty() {
        out.comment("outbound: none");
    } else {
        let rules: Vec<String> =
            grants.outbound.iter().enumerate().map(|(index, rule)| out.outbound(index, rule)).collect();
        out.line("outbound", format_args!("[{}]", rules.join(", ")));
    }
    if grants.network == NetworkGrant::default() {
        out.comment("network: none");
    } else {
        out.list("network.tcp", &grants.network.tcp);
        out.list("network.dns", &grants.network.dns);
    }
    out.texts("config", &grants.config);
    if grants.args.is_empty() {
        out.comment("args: none");
    } else {
        out.list("args", &grants.args);
    }
}

/// One table, as text.
pub(super) struct Section<'a> {
    text: String,
    number: usize,
    written: &'a Written,
}

impl Section<'_> {
    fn line(&mut self, key: &str, value: impl Display) {
        self.text += &format!("{key} = {value}\n");
    }

    pub(super) fn comment(&mut self, text: &str) {
        self.text += &format!("# {text}\n");
    }

    /// What was written under this name, if it had references.
    fn written(&self, name: &str) -> Option<String> {
        self.written.get(&(self.number, name.to_owned())).map(|written| quote(written))
    }

    fn quoted_value(&self, name: &str, value: impl Display) -> String {
        self.written(name).unwrap_or_else(|| quote(&reference::escape(&value.to_string())))
    }

    fn quoted(&mut self, key: &str, value: impl Display) {
        self.line(key, self.quoted_value(key, value));
    }

    pub(super) fn raw(&mut self, key: &str, value: impl Display) {
        self.line(key, self.written(key).unwrap_or_else(|| value.to_string()));
    }

    fn list(&mut self, key: &str, values: impl IntoIterator<Item = impl Display>) {
        let quoted = |(index, value)| self.quoted_value(&format!("{key}[{index}]"), value);
        let values: Vec<String> = values.into_iter().enumerate().map(quoted).collect();
        self.line(key, format_args!("[{}]", values.join(", ")));
    }

    pub(super) fn size(&mut self, key: &str, bytes: u64) {
        // Rounded for people where it is no round number.
        let text = format_size(bytes);
        self.quoted(key, if text.contains('.') { bytes.to_string() } else { text });
    }

    pub(super) fn duration(&mut self, key: &str, duration: Duration) {
        self.quoted(key, humantime::format_duration(duration));
    }

    fn path(&mut self, key: &str, path: &Path) {
        self.quoted(key, path.display());
    }

    fn path_or_off(&mut self, key: &str, path: Option<&Path>, left_out: bool) {
        match path {
            Some(path) => self.path(key, path),
            None if left_out => self.comment(&format!("{key}: chosen when the host starts")),
            None => self.line(key, false),
        }
    }

    fn texts(&mut self, key: &str, texts: &[(String, Text)]) {
        for (name, text) in texts {
            let value = if text.is_secret() { quote(&text.to_string()) } else { self.quoted_value("", text.expose()) };
            self.line(&format!("{key}.{}", quote(name)), value);
        }
        if texts.is_empty() {
            self.comment(&format!("{key}: none"));
        }
    }

    fn tls(&mut self, certificates: &[CertificateFiles]) {
        if certificates.is_empty() {
            return self.comment("tls: none");
        }
        let entry = |(index, files): (usize, &CertificateFiles)| {
            let quoted = |key, path: &Path| self.quoted_value(&format!("tls[{index}].{key}"), path.display());
            format!("{{ cert = {}, key = {} }}", quoted("cert", &files.cert), quoted("key", &files.key))
        };
        let entries: Vec<String> = certificates.iter().enumerate().map(entry).collect();
        self.line("tls", format_args!("[{}]", entries.join(", ")));
    }

    fn outbound(&self, index: usize, rule: &OutboundRule) -> String {
        let name = format!("outbound[{index}]");
        let url = self.written(&name).unwrap_or_else(|| self.quoted_value(&format!("{name}.url"), rule));
        let (certificate, key) = rule.client.as_ref().map(|(certificate, key)| (certificate, key)).unzip();
        let files = [("roots", rule.roots.as_ref()), ("certificate", certificate), ("key", key)];
        let files: Vec<String> = files
            .into_iter()
            .filter_map(|(key, path)| Some((key, path?)))
            .map(|(key, path)| format!(", {key} = {}", self.quoted_value(&format!("{name}.{key}"), path.display())))
            .collect();
        if !rule.private && files.is_empty() {
            return url;
        }
        format!("{{ url = {url}, private = {}{} }}", rule.private, files.concat())
    }

    fn dir(&mut self, guest: &str, host: &Path, writable: bool) {
        let name = grants::dir(guest);
        let host = self.written(&name).unwrap_or_else(|| self.quoted_value(&format!("{name}.host"), host.display()));
        self.line(&format!("dirs.{}", quote(guest)), format_args!("{{ host = {host}, write = {writable} }}"));
    }
}

/// A string of TOML's. JSON's escapes are TOML's too; only DEL is no control character there.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}
