//! `astra-host new`: makes a guest package that builds, tests natively and runs.
//!
//! It is written beside its place and moved there when it is complete, so that nobody finds half of it and nothing is replaced.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, bail};
use clap::Args;

use super::say;
use crate::{config::ValueError, package};

/// Make a guest package
#[derive(Args)]
pub(super) struct New {
    /// What it is called, and the directory that is made for it
    #[arg(value_name = "NAME")]
    name: String,
    /// The directory of `guest-sdk` [default: where it was when this program was built]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// Where `guest-sdk` is in the sources that this program was built from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk");

/// Names that mean something else to Rust or to Cargo, with `_` for `-`.
const TAKEN: [&str; 60] = [
    "_",
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "guest_sdk",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "target",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

const SOURCE: &str = r#"//! Each request gets a fresh instance of this guest.

use guest_sdk::{Request, Response, Router, handler};

#[handler]
fn app(request: Request) -> Response {
    Router::new()
        .get("/", |_, _| "Hello World!\n")
        .get("/hello/:name", |_, params| format!("Hello {}!\n", &params["name"]))
        .handle(request)
}

#[cfg(test)]
mod tests {
    use guest_sdk::{Body, RequestBuilder};

    use super::*;

    fn get(path: &str) -> Response {
        app(RequestBuilder::new().uri(path).body(Body::empty()).expect("a request"))
    }

    #[test]
    fn says_hello() {
        assert_eq!(get("/").into_body().text().expect("text"), "Hello World!\n");
        assert_eq!(get("/hello/Ada").into_body().text().expect("text"), "Hello Ada!\n");
    }

    #[test]
    fn knows_no_other_path() {
        assert_eq!(get("/other").status(), 404);
    }
}
"#;

impl New {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let name = checked(&self.name)?;
        let sdk = sdk(self.sdk.as_deref(), Path::new(SDK))?;
        make(Path::new(name), &files(name, &sdk))?;
        say(&format!("made `{name}`: `astra-host dev {name}` serves it, and again whenever you have changed it"));
        Ok(())
    }
}

/// A name that Cargo takes for a package whose library is a crate of that name.
fn checked(name: &str) -> Result<&str, ValueError> {
    let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_word && !TAKEN.contains(&name.replace('-', "_").as_str()) {
        return Ok(name);
    }
    Err(ValueError::NotAllowed {
        name: "NAME".to_owned(),
        allowed: "letters, digits, `-` and `_`, not begin with a digit, and be no word of Rust's own".to_owned(),
        found: name.to_owned(),
    })
}

/// The directory of `guest-sdk`, as TOML writes it.
fn sdk(given: Option<&Path>, built_with: &Path) -> anyhow::Result<String> {
    let dir = given.unwrap_or(built_with);
    if !dir.is_dir() || !package::name(dir).is_ok_and(|name| name == "guest-sdk") {
        match given {
            Some(dir) => bail!("`{}` is not the directory of `guest-sdk`: give it with `--sdk DIR`", dir.display()),
            None => bail!(
                "`guest-sdk` is not where it was when this program was built: give its directory with `--sdk DIR`"
            ),
        }
    }
    let dir = fs::canonicalize(dir).with_context(|| format!("cannot find `{}`", dir.display()))?;
    let Some(text) = dir.to_str() else { bail!("`{}` is not UTF-8, which Cargo.toml has to be", dir.display()) };
    // A string of JSON is one of TOML.
    Ok(serde_json::Value::from(text).to_string())
}

fn files(name: &str, sdk: &str) -> [(&'static str, String); 4] {
    let manifest = format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"

[lib]
# And nothing else: beside an `rlib` Cargo does not optimise across crates.
crate-type = ["cdylib"]

[dependencies]
# `default-features = false` makes guests smaller that write no files and open no sockets.
guest-sdk = {{ path = {sdk}, default-features = false }}

# A workspace of its own, whatever directory it is in.
[workspace]
"#
    );
    let readme = format!(
        r"# {name}

Serve it, and build and swap it whenever a file has changed:

    $ astra-host dev

    $ curl http://127.0.0.1:8080/hello/Ada
    Hello Ada!

Test it, natively:

    $ cargo test

Build and serve it once:

    $ astra-host run .
"
    );
    [
        ("Cargo.toml", manifest),
        ("src/lib.rs", SOURCE.to_owned()),
        (".gitignore", "/target\n".to_owned()),
        ("README.md", readme),
    ]
}

/// Makes the directory with these files in it, or nothing.
fn make(dir: &Path, files: &[(&str, String)]) -> anyhow::Result<()> {
    let unfinished = dir.with_file_name(format!(".{}.{}", dir.display(), process::id()));
    let made = write(&unfinished, files).with_context(|| format!("cannot make `{}`", dir.display())).and_then(|()| {
        // Takes the place of nothing or of an empty directory, and of nothing else.
        fs::rename(&unfinished, dir)
            .with_context(|| format!("cannot make `{0}`: choose another name, or empty `{0}`", dir.display()))
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    made
}

fn write(dir: &Path, files: &[(&str, String)]) -> std::io::Result<()> {
    fs::create_dir(dir)?;
    fs::create_dir(dir.join("src"))?;
    files.iter().try_for_each(|(name, content)| fs::write(dir.join(name), content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_cargo_takes() {
        for name in ["hello", "my-app", "_app2", "A_b"] {
            assert_eq!(checked(name).expect("good"), name);
        }
        for name in ["", "2fast", "-x", "a b", "a/b", "..", "é", "fn", "test", "core", "std", "proc-macro", "guest-sdk"]
        {
            let error = checked(name).expect_err("bad").to_string();
            assert!(error.starts_with("`NAME` must be ") && error.ends_with(&format!("found `{name}`")), "{error}");
        }
    }

    #[test]
    fn the_sdk_is_where_it_was_or_where_it_is_said_to_be() {
        let expected = fs::canonicalize(SDK).expect("the repository is here");
        let expected = format!("\"{}\"", expected.display());
        let nowhere = Path::new("/does/not/exist");
        assert_eq!(sdk(None, Path::new(SDK)).expect("there"), expected);
        assert_eq!(sdk(Some(Path::new(SDK)), nowhere).expect("there"), expected);
        let host = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (given, named) in [(Some(nowhere), "/does/not/exist"), (Some(host), "host"), (None, "`guest-sdk` is not")] {
            let error = sdk(given, nowhere).expect_err("not there").to_string();
            assert!(error.contains(named) && error.ends_with("with `--sdk DIR`"), "{error}");
        }
    }
}
