//! The keys of a handler that grant something. What is granted is only read here, and whether it is there is found out later.

use super::table::Table;
use crate::{
    config::{self, Text},
    guest::{DirGrant, Grants, NetworkGrant, OutboundRule},
};

pub(super) fn read(table: &mut Table<'_>) -> Grants {
    let has_name = |key: &str| !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || c == '=' || c == '\0');
    let env = read_texts(table, "env", "a name without `=` and white space", has_name);
    for (key, _) in env.iter().filter(|(_, text)| text.expose().contains('\0')) {
        table.problem(&format!("`env.{key}` must be a text without zero bytes"));
    }
    Grants {
        env,
        dirs: read_dirs(table),
        outbound: read_outbound(table),
        network: table.sub("network", read_network).unwrap_or_default(),
        config: read_texts(table, "config", "a name that is not empty", |key| !key.is_empty()),
        args: table.list("args", config::argument).unwrap_or_default(),
    }
}

/// A table of texts whose keys are not ours to know, but are as `is_name` wants them.
fn read_texts(table: &mut Table<'_>, key: &str, expected: &str, is_name: impl Fn(&str) -> bool) -> Vec<(String, Text)> {
    let mut texts = Vec::new();
    for (entry, value) in table.table(key).unwrap_or_default() {
        let name = format!("{key}.{entry}");
        if !is_name(&entry) {
            table.problem(&format!("`{name}` must have {expected}"));
        }
        texts.extend(table.text(&name, value).map(|text| (entry, text)));
    }
    texts
}

fn read_dirs(table: &mut Table<'_>) -> Vec<DirGrant> {
    let mut dirs = Vec::new();
    for (guest, value) in table.table("dirs").unwrap_or_default() {
        let name = dir(&guest);
        if guest.is_empty() || guest.contains('\0') {
            table.problem("`dirs` must have names for its directories, such as `/data`");
        }
        let grant = match value {
            toml::Value::Table(entries) => table.nested(&name, entries, |dir| {
                let (host, writable) = (dir.required("host", |dir| dir.path("host")), dir.flag("write", false));
                host.map(|host| (host, writable))
            }),
            value => table.path_of(&name, value).map(|host| (host, false)),
        };
        dirs.extend(grant.map(|(host, writable)| DirGrant { host, guest, writable }));
    }
    dirs
}

/// What a directory is called in errors, and where it is written down: `a.host` is not the `host` of `a`.
pub(super) fn dir(guest: &str) -> String {
    if guest.contains('.') { format!("dirs.{guest:?}") } else { format!("dirs.{guest}") }
}

fn read_outbound(table: &mut Table<'_>) -> Vec<OutboundRule> {
    let mut rules: Vec<OutboundRule> = Vec::new();
    for (name, value) in table.texts_or_tables("outbound") {
        let Some(rule) = read_rule(table, &name, value) else { continue };
        let is_same =
            |other: &OutboundRule| (&other.scheme, &other.host, other.port) == (&rule.scheme, &rule.host, rule.port);
        if rules.iter().any(is_same) {
            // Only the first would count, which may not be the one that says more.
            table.problem(&format!("`{name}` says again where requests may go: leave one of the two out"));
        }
        rules.push(rule);
    }
    rules
}

/// One entry of `outbound`, which errors call `name`.
pub(super) fn read_rule(table: &Table<'_>, name: &str, entry: toml::Value) -> Option<OutboundRule> {
    match entry {
        toml::Value::Table(entries) => table.nested(name, entries, |rule| read_rule_table(rule, name)),
        url => table.value_of(name, url, config::outbound),
    }
}

fn read_rule_table(table: &mut Table<'_>, name: &str) -> Option<OutboundRule> {
    let rule = table.required("url", |table| table.value("url", config::outbound));
    let (private, roots) = (table.flag("private", false), table.path("roots"));
    let client = match (table.path("certificate"), table.path("key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => {
            for (there, missing) in [("certificate", "key"), ("key", "certificate")] {
                if table.has(there) && !table.has(missing) {
                    table.problem(&format!("`{name}.{there}` needs `{name}.{missing}`, such as `./client.pem`"));
                }
            }
            None
        }
    };
    let rule = OutboundRule { private, roots, client, ..rule? };
    for key in ["roots", "certificate", "key"].into_iter().filter(|key| table.has(key)) {
        if rule.scheme != http::uri::Scheme::HTTPS {
            table.problem(&format!("`{name}.{key}` is for TLS: `{name}.url` must begin with `https://`"));
        }
    }
    Some(rule)
}

fn read_network(table: &mut Table<'_>) -> NetworkGrant {
    NetworkGrant {
        tcp: table.list("tcp", config::tcp).unwrap_or_default(),
        dns: table.list("dns", config::dns).unwrap_or_default(),
    }
}
