//! One table of the configuration file, read key by key. What is left when all keys have been asked for is unknown.
//!
//! Whoever asks gets `None` both for a key that is not there and for one that is wrong; the latter is among the problems by then. So
//! reading goes on, and all problems are found in one go.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
};

use toml::Value;

use super::reference;
use crate::config::{Text, ValueError};

/// Texts that have references, as they were written, by the number of their table (0 is `[server]`, then the handlers) and their key.
pub(super) type Written = HashMap<(usize, String), String>;

/// The file that is read: where it is, what it refers to, what is wrong with it.
pub(super) struct Source<'a> {
    file: String,
    base: PathBuf,
    environment: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<String>>,
    written: RefCell<Written>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &Path, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            file: path.display().to_string(),
            base: absolute(path).parent().map(Path::to_owned).unwrap_or_default(),
            environment,
            problems: RefCell::default(),
            written: RefCell::default(),
        }
    }

    /// Reads a table. `place` is what errors begin with, `prefix` what is before its keys in them (`limits.`).
    pub(super) fn table<T>(
        &self,
        place: &str,
        number: usize,
        prefix: &str,
        entries: toml::Table,
        read: impl FnOnce(&mut Table<'_>) -> T,
    ) -> T {
        let mut table = Table { source: self, place: place.to_owned(), number, prefix, entries, known: Vec::new() };
        let read = read(&mut table);
        table.report_unknown();
        read
    }

    pub(super) fn problem(&self, text: &str) {
        // A line each, whatever was in a key or a value.
        let mut line = format!("{}: ", self.file);
        for c in text.chars() {
            if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
        }
        self.problems.borrow_mut().push(line);
    }

    pub(super) fn is_fine(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// A value as it was written.
    pub(super) fn shown(&self, number: usize, name: &str, value: &str) -> String {
        self.written.borrow().get(&(number, name.to_owned())).cloned().unwrap_or_else(|| value.to_owned())
    }

    pub(super) fn finish(self) -> Result<Written, Vec<String>> {
        let problems = self.problems.into_inner();
        if problems.is_empty() { Ok(self.written.into_inner()) } else { Err(problems) }
    }
}

/// A table that is being read.
pub(super) struct Table<'a> {
    source: &'a Source<'a>,
    place: String,
    number: usize,
    prefix: &'a str,
    entries: toml::Table,
    /// Keys that were asked for, and whether they were there.
    known: Vec<(String, bool)>,
}

impl Table<'_> {
    /// What errors begin with from now on.
    pub(super) fn call(&mut self, place: &str) {
        self.place = place.to_owned();
    }

    /// What paths are relative to.
    pub(super) fn base(&self) -> &Path {
        &self.source.base
    }

    pub(super) fn problem(&self, text: &str) {
        self.source.problem(&format!("{}{text}", self.place));
    }

    /// The value of a key as it was written.
    pub(super) fn shown(&self, key: &str, value: &str) -> String {
        self.source.shown(self.number, &self.name(key), value)
    }

    /// Whether a key that was asked for was there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.known.iter().any(|(known, was_there)| known == key && *was_there)
    }

    /// A key that must be there.
    pub(super) fn required<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let value = read(self);
        if !self.has(key) {
            self.problem(&format!("`{}` is missing", self.name(key)));
        }
        value
    }

    /// A text or a number that `parse` makes something of.
    pub(super) fn value<T>(&mut self, key: &str, parse: impl FnOnce(&str, &str) -> Result<T, ValueError>) -> Option<T> {
        let value = self.take(key)?;
        let name = self.name(key);
        let text = match value {
            Value::Integer(number) => number.to_string().into(),
            Value::Float(number) => number.to_string().into(),
            Value::String(_) => self.text(&name, value)?,
            other => return self.mismatch(&name, "a text or a number", &other),
        };
        self.parse(&name, &text, parse)
    }

    /// A text, or a list of texts, that `parse` makes something of.
    pub(super) fn list<T>(&mut self, key: &str, parse: impl Fn(&str, &str) -> Result<T, ValueError>) -> Option<Vec<T>> {
        let name = self.name(key);
        let values = match self.take(key)? {
            value @ Value::String(_) => vec![value],
            Value::Array(values) => values,
            other => return self.mismatch(&name, "a text or a list of texts", &other),
        };
        let read = |(index, value)| {
            let name = format!("{name}[{index}]");
            self.value_of(&name, value, &parse)
        };
        let read: Vec<Option<T>> = values.into_iter().enumerate().map(read).collect();
        read.into_iter().collect()
    }

    /// A value, or a list of values, that are texts or tables: each with its name.
    pub(super) fn texts_or_tables(&mut self, key: &str) -> Vec<(String, Value)> {
        let name = self.name(key);
        let values = match self.take(key) {
            None => Vec::new(),
            Some(value @ (Value::String(_) | Value::Table(_))) => vec![value],
            Some(Value::Array(values)) => values,
            Some(other) => self.mismatch(&name, "a text, a table or a list of them", &other).unwrap_or_default(),
        };
        values.into_iter().enumerate().map(|(index, value)| (format!("{name}[{index}]"), value)).collect()
    }

    /// A table, or a list of at least one: each with its name.
    pub(super) fn table_or_tables(&mut self, key: &str) -> Vec<(String, toml::Table)> {
        let name = self.name(key);
        let values = match self.take(key) {
            None => Vec::new(),
            Some(value @ Value::Table(_)) => vec![value],
            Some(Value::Array(values)) if values.is_empty() => {
                self.problem(&format!("`{name}` must have at least one table; leave it out to have none"));
                values
            }
            Some(Value::Array(values)) => values,
            Some(other) => self.mismatch(&name, "a table or a list of tables", &other).unwrap_or_default(),
        };
        let table = |(index, value)| match (format!("{name}[{index}]"), value) {
            (name, Value::Table(entries)) => Some((name, entries)),
            (name, other) => self.mismatch(&name, "a table", &other),
        };
        values.into_iter().enumerate().filter_map(table).collect()
    }

    /// The text in a value that has been taken out of this table, of which `parse` makes something.
    pub(super) fn value_of<T>(
        &self,
        name: &str,
        value: Value,
        parse: impl FnOnce(&str, &str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let text = self.text(name, value)?;
        self.parse(name, &text, parse)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Boolean(flag)) => flag,
            Some(other) => self.mismatch(&self.name(key), "`true` or `false`", &other).unwrap_or(default),
        }
    }

    /// A path, made absolute.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let value = self.take(key)?;
        self.path_of(&self.name(key), value)
    }

    /// A path, or `Some(None)` for `false`.
    pub(super) fn path_or_off(&mut self, key: &str) -> Option<Option<PathBuf>> {
        let name = self.name(key);
        match self.take(key)? {
            Value::Boolean(false) => Some(None),
            value @ Value::String(_) => self.path_of(&name, value).map(Some),
            other => self.mismatch(&name, "a path or `false`", &other),
        }
    }

    /// The path in a value that has been taken out of this table.
    pub(super) fn path_of(&self, name: &str, value: Value) -> Option<PathBuf> {
        let text = self.text(name, value)?;
        if text.expose().is_empty() || text.expose().contains('\0') {
            self.problem(&format!("`{name}` must be a path, found `{text}`"));
            return None;
        }
        Some(absolute(&self.source.base.join(text.expose())))
    }

    /// The text in a value that has been taken out of this table, with all that it refers to.
    pub(super) fn text(&self, name: &str, value: Value) -> Option<Text> {
        let Value::String(written) = value else { return self.mismatch(name, "a text", &value) };
        match reference::resolve(&written, &self.source.base, self.source.environment) {
            Ok(text) => {
                if text.is_secret() {
                    self.source.written.borrow_mut().insert((self.number, name.to_owned()), written);
                }
                Some(text)
            }
            Err(reason) => {
                self.problem(&format!("`{name}` {reason}"));
                None
            }
        }
    }

    /// The entries of a table in this one, whose keys are not ours to know.
    pub(super) fn table(&mut self, key: &str) -> Option<toml::Table> {
        let name = self.name(key);
        match self.take(key)? {
            Value::Table(entries) => Some(entries),
            other => self.mismatch(&name, "a table", &other),
        }
    }

    /// A table in this one.
    pub(super) fn sub<T>(&mut self, key: &str, read: impl FnOnce(&mut Table<'_>) -> T) -> Option<T> {
        let entries = self.table(key)?;
        Some(self.nested(&self.name(key), entries, read))
    }

    /// A table that has been taken out of this one.
    pub(super) fn nested<T>(&self, name: &str, entries: toml::Table, read: impl FnOnce(&mut Table<'_>) -> T) -> T {
        self.source.table(&self.place, self.number, &format!("{name}."), entries, read)
    }

    /// The tables of a `[[list]]`.
    pub(super) fn tables(&mut self, key: &str) -> Vec<toml::Table> {
        let expected = format!("a list of tables, each begun with `[[{key}]]`");
        let values = match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(other) => self.mismatch(key, &expected, &other).unwrap_or_default(),
        };
        let mut tables = Vec::new();
        for value in values {
            match value {
                Value::Table(entries) => tables.push(entries),
                other => tables.extend(self.mismatch::<toml::Table>(key, &expected, &other)),
            }
        }
        tables
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let value = self.entries.remove(key);
        self.known.push((key.to_owned(), value.is_some()));
        value
    }

    /// An error never shows what a reference stands for.
    fn parse<T>(&self, name: &str, text: &Text, parse: impl FnOnce(&str, &str) -> Result<T, ValueError>) -> Option<T> {
        let error = match parse(name, text.expose()) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        self.problem(&match error {
            ValueError::NotAllowed { allowed, .. } => format!("`{name}` must be {allowed}, found `{text}`"),
            _ => format!("`{name}` cannot be used, found `{text}`"),
        });
        None
    }

    fn mismatch<T>(&self, name: &str, expected: &str, found: &Value) -> Option<T> {
        let found = match found {
            Value::String(_) => "a text".to_owned(),
            Value::Integer(_) => "an integer".to_owned(),
            Value::Float(_) => "a number".to_owned(),
            Value::Boolean(flag) => format!("`{flag}`"),
            Value::Datetime(_) => "a date".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        };
        self.problem(&format!("`{name}` must be {expected}, found {found}"));
        None
    }

    fn report_unknown(&self) {
        for key in self.entries.keys() {
            let similarity = |known: &str| strsim::jaro_winkler(key, known);
            let known = self.known.iter().map(|(known, _)| known.as_str());
            let nearest = known.clone().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
            let advice = match nearest.filter(|nearest| similarity(nearest) > 0.75) {
                Some(nearest) => format!("did you mean `{}`?", self.name(nearest)),
                None => format!("known are {}", known.map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ")),
            };
            self.problem(&format!("unknown key `{}`; {advice}", self.name(key)));
        }
    }
}

/// Relative to where we are now; as it is if that is not known.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
