//! Where the server's settings come from: the command line, else the environment, else a TOML file, else what is built in.
//!
//! Each option of `okyeame server` is a setting of all of these, under one name: `--queue-len`, `OKYEAME_QUEUE_LEN` and
//! `queue_len = 64`. The file's values become the options' defaults, so all are checked by the same code.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli::CliError;

/// The subcommand whose options can be set by a file.
pub(super) const SERVER: &str = "server";
/// The options that say where settings come from, and are none themselves.
const NOT_SETTINGS: [&str; 4] = ["config", "print_config", "help", "version"];

/// Gives each option of the server, that has none, its variable `OKYEAME_…`.
pub(super) fn with_environment(command: Command) -> Command {
    command.mut_subcommand(SERVER, |server| {
        server.mut_args(|option| match option.get_env() {
            None if is_setting(&option) => {
                let name = format!("OKYEAME_{}", option.get_id().as_str().to_uppercase());
                option.env(name).hide_env(true)
            }
            _ => option,
        })
    })
}

fn is_setting(option: &Arg) -> bool {
    option.get_long().is_some() && !NOT_SETTINGS.contains(&option.get_id().as_str())
}

/// The command whose server takes what `file` says for its defaults.
///
/// # Errors
/// A file that cannot be read, is no TOML, or sets what is no setting.
pub(super) fn with_file(command: Command, file: &Path) -> Result<Command, CliError> {
    let failed = |reason: String| CliError::Settings { path: file.display().to_string(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| failed(error.to_string().trim().to_owned()))?;
    let mut command = command;
    for (name, value) in table {
        let known = command
            .find_subcommand(SERVER)
            .and_then(|server| server.get_arguments().find(|o| o.get_id() == name.as_str()));
        let Some(option) = known.filter(|option| is_setting(option)) else {
            return Err(failed(format!("there is no setting '{name}': see okyeame server --print-config")));
        };
        let many = matches!(option.get_action(), ArgAction::Append);
        let values = values(&value, many).ok_or_else(|| failed(format!("{name}: {}", expected(many))))?;
        command =
            command.mut_subcommand(SERVER, |server| server.mut_arg(&name, |option| option.default_values(values)));
    }
    Ok(command)
}

fn expected(many: bool) -> &'static str {
    if many { "a list of texts is expected" } else { "one text, number or truth value is expected" }
}

/// A value of the file as the command line has it.
fn values(value: &toml::Value, many: bool) -> Option<Vec<String>> {
    let one = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    };
    match value {
        toml::Value::Array(values) if many => values.iter().map(one).collect(),
        _ if many => None,
        value => Some(vec![one(value)?]),
    }
}

/// All settings as a file that [`with_file`] reads, each with its help and where it comes from.
pub(super) fn print(command: &Command, matches: &ArgMatches) -> String {
    let mut out =
        String::from("# What okyeame server --config FILE reads. Flags and the environment (OKYEAME_…) come first.\n");
    let options = command.find_subcommand(SERVER).into_iter().flat_map(Command::get_arguments);
    for option in options.filter(|option| is_setting(option)) {
        let name = option.get_id().as_str();
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let raw: Vec<OsString> = matches.get_raw(name).into_iter().flatten().map(OsStr::to_owned).collect();
        let values: Vec<String> = raw.iter().map(|value| without_password(&value.to_string_lossy())).collect();
        let from = match matches.value_source(name) {
            Some(ValueSource::CommandLine) => " (from the command line)",
            Some(ValueSource::EnvVariable) => " (from the environment)",
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n# {help}{from}");
        let many = matches!(option.get_action(), ArgAction::Append);
        let _ = match &values[..] {
            [] => writeln!(out, "# {name} = {}", if many { "[]" } else { "…" }),
            values if many => {
                let list: Vec<toml::Value> = values.iter().cloned().map(toml::Value::String).collect();
                writeln!(out, "{name} = {}", toml::Value::Array(list))
            }
            [value, ..] => writeln!(out, "{name} = {}", literal(value)),
        };
    }
    out
}

/// An address with `***` for its password: what is printed is shown around, and pasted into questions.
fn without_password(text: &str) -> String {
    let parts = text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
    match parts {
        Some((scheme, (user, rest))) => match user.split_once(':') {
            Some((name, _)) => format!("{scheme}://{name}:***@{rest}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    }
}

/// A text of the command line as TOML: a number or truth value as such.
fn literal(text: &str) -> String {
    let plain = text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
        || text
            .parse::<f64>()
            .is_ok_and(|number| number.is_finite() && number.to_string() == text && text.contains('.'))
        || text.parse::<bool>().is_ok();
    if plain { text.to_owned() } else { toml::Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn server(file: &str, args: &[&str]) -> Result<ArgMatches, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("okyeame.toml");
        std::fs::write(&path, file).unwrap();
        let command = with_file(with_environment(Cli::command()), &path).map_err(|error| error.to_string())?;
        let matches =
            command.try_get_matches_from(["okyeame", SERVER].iter().chain(args)).map_err(|error| error.to_string())?;
        Ok(matches.subcommand_matches(SERVER).unwrap().clone())
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let file = "queue_len = 7\nhost = '127.0.0.2'\nrequest_timeout_s = 2.5\ninsecure = true\nallowed_origins = ['https://a.example', 'https://b.example']\n";
        let told = server(file, &["--queue-len", "9"]).unwrap();
        assert_eq!(told.get_one::<usize>("queue_len"), Some(&9));
        assert_eq!(told.get_one::<String>("host").map(String::as_str), Some("127.0.0.2"));
        assert_eq!(told.get_one::<f64>("request_timeout_s"), Some(&2.5));
        assert!(told.get_flag("insecure"));
        assert_eq!(told.get_raw("allowed_origins").unwrap().count(), 2);
        assert_eq!(told.get_one::<usize>("max_batch_files"), Some(&32));
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_by_name() {
        for (file, said) in [
            ("queue_length = 7", "there is no setting 'queue_length'"),
            ("config = 'a.toml'", "there is no setting 'config'"),
            ("queue_len = [7]", "queue_len: one text"),
            ("allowed_origins = 'https://a.example'", "allowed_origins: a list"),
            ("queue_len = -1", "-1"),
            ("request_timeout_s = 0", "more than 0"),
            ("threads = 0", "from 1 to 1024"),
            ("threads = -1", "from 1 to 1024"),
            ("queue_len = ", "queue_len"),
        ] {
            let error = server(file, &[]).unwrap_err();
            assert!(error.contains(said), "{file}: {error}");
        }
    }

    #[test]
    fn the_file_for_kubernetes_is_understood() {
        let told = server(include_str!("../../../deploy/kubernetes/base/okyeame.toml"), &[]).unwrap();
        assert_eq!(told.get_one::<String>("host").map(String::as_str), Some("0.0.0.0"));
        assert!(told.get_flag("log_json") && !told.get_flag("insecure"));
    }

    #[test]
    fn what_is_printed_is_read_back_as_the_same() {
        let file = "queue_len = 7\nhost = '::1'\nallowed_origins = ['https://a.example']\n";
        let print = |matches: &ArgMatches| super::print(&with_environment(Cli::command()), matches);
        let printed = print(&server(file, &["--max-audio-s", "12.5", "--insecure"]).unwrap());
        assert!(printed.contains("queue_len = 7\n") && printed.contains("max_audio_s = 12.5\n"), "{printed}");
        let values =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(values(&print(&server(&printed, &[]).unwrap())), values(&printed));
    }

    #[test]
    fn passwords_are_not_printed() {
        let told = server("cache = 'redis://shop:pa55:w@rd@cache.example:7000/1'\n", &[]).unwrap();
        let printed = super::print(&with_environment(Cli::command()), &told);
        assert!(printed.contains("redis://shop:***@cache.example:7000/1"), "{printed}");
        assert!(!printed.contains("pa55"), "{printed}");
        for same in ["redis://cache.example", "https://shop@example", "12.5", "::1", "a@b:c"] {
            assert_eq!(without_password(same), same);
        }
    }

    #[test]
    fn each_setting_has_its_variable() {
        let command = with_environment(Cli::command());
        let server = command.find_subcommand(SERVER).unwrap();
        for option in server.get_arguments().filter(|option| is_setting(option)) {
            assert!(option.get_env().is_some(), "{}", option.get_id());
        }
    }
}
