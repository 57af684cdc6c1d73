//! The form of a settings file: what all programs' `--config` reads.
//!
//! Lines of `FARWRITE_NAME=value`, the names that the environment has, so that one file serves as
//! a service manager's environment file too. `#` begins a comment line; a value may stand in
//! single or double quotes.

/// A settings file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A line is not of the form.
    #[error("line {line}: not of the form FARWRITE_NAME=value")]
    Form {
        /// Counted from 1.
        line: usize,
    },
    /// A name is not one of the program's settings.
    #[error("line {line}: {name} is not a setting of this program (it has {})", known.join(", "))]
    Unknown {
        /// Counted from 1.
        line: usize,
        /// The name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// Reads a settings file's text, in which only `known` names may stand.
///
/// # Errors
/// Names the first line that is not a setting.
pub fn parse_settings(text: &str, known: &[&str]) -> Result<Vec<(String, String)>, SettingsError> {
    let mut settings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (line, content) = (index + 1, line.trim());
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let (name, value) = content.split_once('=').ok_or(SettingsError::Form { line })?;
        let name = name.trim();
        if !known.contains(&name) {
            let known = known.iter().map(|&name| name.to_owned()).collect();
            return Err(SettingsError::Unknown { line, name: name.to_owned(), known });
        }
        settings.push((name.to_owned(), unquoted(value.trim()).to_owned()));
    }
    Ok(settings)
}

fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_names_values_comments_and_quotes() {
        let text = "# a comment\n\nFARWRITE_A=1\n FARWRITE_B = 'two words' \nFARWRITE_A=\"3=4\"\n";
        let settings = parse_settings(text, &["FARWRITE_A", "FARWRITE_B"]).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            settings,
            [pair("FARWRITE_A", "1"), pair("FARWRITE_B", "two words"), pair("FARWRITE_A", "3=4")]
        );
    }

    #[test]
    fn a_line_that_is_no_setting_is_named() {
        let error = parse_settings("\nFARWRITE_X=1", &["FARWRITE_A"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: FARWRITE_X is not a setting of this program (it has FARWRITE_A)"
        );
        assert_eq!(parse_settings("nonsense", &[]), Err(SettingsError::Form { line: 1 }));
    }
}
