//! The bearer token that the control listener on TCP asks for (RFC 6750). Read once, at start-up; only its digest is kept, so that
//! neither a comparison's time nor a dump of our own types gives it away.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use http::HeaderValue;
use sha2::{Digest as _, Sha256};

const SHORTEST: usize = 16;
const LONGEST: u64 = 4096;

/// What a client must know.
#[derive(Clone)]
pub struct Token([u8; 32]);

/// Why a file is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not there, or not for us.
    #[error("cannot read token file `{}`: write {SHORTEST} or more random characters to it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could come in with it.
    #[error("others may read token file `{}`: `chmod 600 {}` closes it", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It can be guessed, or no client could send it.
    #[error(
        "token file `{}` must hold one line of {SHORTEST} to {LONGEST} visible characters: \
         `openssl rand -hex 32` makes one", path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// Reads the token in the file at `path`; white space around it does not count.
    ///
    /// # Errors
    /// It cannot be read, others can, or it is too short.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(TokenError::Open { path: path.to_owned() });
        }
        let mut text = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut text).map_err(failed)?;
        let token = text.trim_ascii();
        let is_sendable = token.iter().all(u8::is_ascii_graphic);
        if token.len() < SHORTEST || text.len() as u64 > LONGEST || !is_sendable {
            return Err(TokenError::Form { path: path.to_owned() });
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// Whether this value of `authorization` carries it.
    pub(crate) fn is_in(&self, authorization: &HeaderValue) -> bool {
        let Some((scheme, token)) = authorization.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        // Where two digests begin to differ says nothing about the token.
        scheme.eq_ignore_ascii_case(b"Bearer ") && Sha256::digest(token.trim_ascii())[..] == self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    fn read(name: &str, text: &str, mode: u32) -> Result<Token, TokenError> {
        let path = std::env::temp_dir().join(format!("astra-token-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        let token = Token::read(&path);
        fs::remove_file(&path).expect("removes");
        token
    }

    #[test]
    fn only_who_knows_the_token_comes_in() {
        let token = read("good", "  0123456789abcdef\n", 0o600).expect("is a token");
        let is_in = |value| token.is_in(&HeaderValue::from_static(value));
        assert!(is_in("Bearer 0123456789abcdef"));
        assert!(is_in("bearer  0123456789abcdef"));
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            assert!(!is_in(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o644] {
            let error = read("open", "0123456789abcdef", mode).expect_err("is open").to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_token_must_be_hard_to_guess_and_possible_to_send() {
        for text in
            ["", "0123456789abcde", "0123456789abcdef\n0123456789abcdef", "0123456789 abcdef", &"x".repeat(5000)]
        {
            assert!(matches!(read("form", text, 0o600), Err(TokenError::Form { .. })), "{text}");
        }
    }
}
