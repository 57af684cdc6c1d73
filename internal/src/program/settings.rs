//! Settings from flags, the environment and one file, in this order of precedence, then defaults.
//!
//! The file holds lines of `FARWRITE_X=value`, the same names as the environment; `#` begins a
//! comment line. Its values become the defaults of the arguments whose environment name they bear,
//! so that clap's own order does the rest. A name that no argument bears is an error: a misspelt
//! setting must not be ignored.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{Arg, ArgMatches, Command};

/// The flag that names the file.
const FILE_FLAG: &str = "--config";
/// The environment's name for the file.
const FILE_ENV: &str = "FARWRITE_CONFIG";

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Flags that clap refuses, or a call for help, which it answers.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line of the file cannot be understood.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it; never its value.
        problem: LineProblem,
    },
}

/// What is wrong with a line of the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// It is no setting and no comment.
    #[error("a line is NAME=value, or a comment that begins with #")]
    Shape,
    /// No argument bears that name.
    #[error("{0:?} is not a setting")]
    UnknownName(String),
    /// The name came before.
    #[error("{0} is set twice")]
    Twice(String),
}

/// The argument that every command with settings has: the file itself.
pub fn file_argument() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env(FILE_ENV)
        .help("A file of NAME=value lines, the names as in the environment; # begins a comment")
}

/// Reads the settings of this process for `command`.
///
/// # Errors
/// When the file cannot be read or understood, or clap refuses the flags.
pub fn parse(command: Command) -> Result<ArgMatches, SettingsError> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let file = file_in(&args).or_else(|| std::env::var_os(FILE_ENV).map(PathBuf::from));
    let text = match &file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|source| SettingsError::File { path: path.clone(), source })?,
        None => String::new(),
    };
    parse_with(command, args, &file.unwrap_or_default(), &text)
}

fn parse_with(
    command: Command,
    args: Vec<OsString>,
    path: &std::path::Path,
    text: &str,
) -> Result<ArgMatches, SettingsError> {
    let values = read_lines(text, &names(&command))
        .map_err(|(line, problem)| SettingsError::Line { path: path.into(), line, problem })?;
    Ok(with_defaults(command, &values).try_get_matches_from(args)?)
}

/// The file that the flags name. Looked for by hand, because the full reading needs its content.
fn file_in(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == FILE_FLAG {
            return args.next().map(PathBuf::from);
        }
        let inline = arg.to_str().and_then(|arg| arg.strip_prefix(FILE_FLAG)?.strip_prefix('='));
        if let Some(path) = inline {
            return Some(path.into());
        }
    }
    None
}

/// The environment names of all arguments; the file cannot name another file.
fn names(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(Arg::get_env).filter_map(OsStr::to_str);
    own.filter(|name| *name != FILE_ENV)
        .map(str::to_owned)
        .chain(command.get_subcommands().flat_map(names))
        .collect()
}

fn read_lines(
    text: &str,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, (usize, LineProblem)> {
    let mut values = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The value never appears in an error: it may be a password.
        let problem = |problem| (index + 1, problem);
        let (name, value) = line.split_once('=').ok_or(problem(LineProblem::Shape))?;
        let (name, value) = (name.trim(), value.trim());
        if !names.contains(name) {
            return Err(problem(LineProblem::UnknownName(name.to_owned())));
        }
        if values.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(problem(LineProblem::Twice(name.to_owned())));
        }
    }
    Ok(values)
}

fn with_defaults(command: Command, values: &BTreeMap<String, String>) -> Command {
    command
        .mut_args(|arg| {
            let value = arg.get_env().and_then(OsStr::to_str).and_then(|name| values.get(name));
            match value {
                // Leaked: clap wants a static default, and this happens once in a process.
                Some(value) => arg
                    .required(false)
                    .hide_default_value(true)
                    .default_value(&*String::leak(value.clone())),
                None => arg,
            }
        })
        .mut_subcommands(|command| with_defaults(command, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that no environment sets: tests run in one process and must not change it.
    fn command() -> Command {
        let arg = |id: &'static str, env| Arg::new(id).long(id).env(env).hide_env_values(true);
        Command::new("test").subcommand(
            Command::new("run")
                .arg(arg("url", "SETTINGS_TEST_URL").required(true))
                .arg(arg("region", "SETTINGS_TEST_REGION").default_value("here"))
                .arg(file_argument()),
        )
    }

    fn read(args: &[&str], text: &str) -> Result<[Option<String>; 2], SettingsError> {
        let args = ["test", "run"].iter().chain(args).map(OsString::from).collect();
        let matches = parse_with(command(), args, "conf".as_ref(), text)?;
        let run = matches.subcommand_matches("run").unwrap();
        Ok(["url", "region"].map(|id| run.get_one::<String>(id).cloned()))
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let file = "# where\n\n SETTINGS_TEST_URL = a=b\nSETTINGS_TEST_REGION=file\n";
        let some = |url: &str, region: &str| [Some(url.to_owned()), Some(region.to_owned())];
        assert_eq!(read(&[], file).unwrap(), some("a=b", "file"));
        assert_eq!(read(&["--region", "flag"], file).unwrap(), some("a=b", "flag"));
        assert_eq!(read(&["--url", "flag"], "").unwrap(), some("flag", "here"));
        assert!(matches!(read(&[], ""), Err(SettingsError::Flags(_))), "required");
    }

    #[test]
    fn a_wrong_line_is_named_without_its_value() {
        let error = |text| read(&[], text).unwrap_err().to_string();
        assert_eq!(
            error("#\nSETTINGS_TEST_URI=secret"),
            "conf, line 2: \"SETTINGS_TEST_URI\" is not a setting"
        );
        assert_eq!(
            error("FARWRITE_CONFIG=x"),
            "conf, line 1: \"FARWRITE_CONFIG\" is not a setting"
        );
        assert!(error("secret").starts_with("conf, line 1: a line is NAME=value"));
        let twice = "SETTINGS_TEST_URL=1\nSETTINGS_TEST_URL=2";
        assert_eq!(error(twice), "conf, line 2: SETTINGS_TEST_URL is set twice");
    }

    #[test]
    fn values_of_the_file_are_not_shown_in_the_help() {
        let error = read(&["--help"], "SETTINGS_TEST_URL=secret").unwrap_err().to_string();
        assert!(error.contains("--url") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn the_file_is_found_in_the_flags() {
        let file = |args: &[&str]| file_in(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(file(&["p", "run", "--config", "x"]), Some("x".into()));
        assert_eq!(file(&["p", "run", "--config=x"]), Some("x".into()));
        assert_eq!(file(&["p", "run", "--configure", "x"]), None);
        assert_eq!(file(&["p", "run", "--", "--config", "x"]), None);
    }
}
