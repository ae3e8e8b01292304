//! `astra-host rollback`: goes back to a revision that is still loaded.

use clap::Args;

use super::control::Operation;

/// Go back to an earlier revision of a handler, at once
#[derive(Args)]
pub(super) struct Rollback {
    #[command(flatten)]
    operation: Operation,
    /// Its number, such as 7 or r7 [default: the one before that was not itself rolled back from]
    #[arg(value_parser = revision)]
    revision: Option<u32>,
}

impl Rollback {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let revision = self.revision.map(|number| number.to_string());
        self.operation.run("rollback", &[("revision", revision.as_deref())])
    }
}

fn revision(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('r').unwrap_or(text);
    number.parse().map_err(|_| "give the number of a revision, such as 7 or r7 (`astra-host status`)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_number_with_or_without_its_letter() {
        assert_eq!((revision("7"), revision("r7")), (Ok(7), Ok(7)));
        assert!(revision("rr7").is_err() && revision("").is_err() && revision("v7").is_err());
    }
}
