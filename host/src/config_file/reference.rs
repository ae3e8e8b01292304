//! What is behind `${env:NAME}` and `${file:PATH}` in a text of the configuration file. `$${` is a `${` that refers to nothing.

use std::path::Path;

use crate::config::Text;

/// The text that `written` stands for; a secret if it refers to anything. Relative paths are relative to `base`.
///
/// # Errors
/// What is wrong with the reference, to be read after the name of the key: `refers to…`.
pub(super) fn resolve(
    written: &str,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Text, String> {
    let (mut value, mut rest, mut is_reference) = (String::new(), written, false);
    while let Some(at) = rest.find("${") {
        let (before, reference) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            value.extend([before, "${"]);
            rest = reference;
            continue;
        }
        let (reference, after) =
            reference.split_once('}').ok_or("has a `${` without its `}`; `$${` is a plain `${`")?;
        value.push_str(before);
        value.push_str(&look_up(reference, base, environment)?);
        (rest, is_reference) = (after, true);
    }
    value.push_str(rest);
    Ok(if is_reference { Text::secret(value, written) } else { value.into() })
}

/// Writes a text so that [`resolve`] leaves it as it is.
pub(super) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

fn look_up(reference: &str, base: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    match reference.split_once(':') {
        Some(("env", name)) if !name.is_empty() => environment(name)
            .ok_or_else(|| format!("refers to the environment variable `{name}`, which is not set (or not UTF-8)")),
        Some(("file", path)) if !path.is_empty() => {
            let mut text = super::read_file(&base.join(path))
                .map_err(|error| format!("refers to the file `{path}`, which cannot be read: {error}"))?;
            // The newline that editors and `echo` put at the end.
            text.truncate(text.strip_suffix('\n').map_or(text.len(), |line| line.trim_end_matches('\r').len()));
            Ok(text)
        }
        _ => Err(format!(
            "has `${{{reference}}}`, which is neither `${{env:NAME}}` nor `${{file:PATH}}`; `$${{` is a plain `${{`"
        )),
    }
}
