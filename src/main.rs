//! The extension's executable: reads the environment, runs the relay, gives the exit status.
#![forbid(unsafe_code)]
#![warn(clippy::all, clippy::pedantic)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use pyroscope_lambda_extension::cli::{self, Action};
use pyroscope_lambda_extension::config::Config;
use pyroscope_lambda_extension::shell::{self, check};

/// The exit status after an argument that we do not know.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let path = arguments.next().unwrap_or_default();
    if let Some(argument) = arguments.next() {
        let argument = argument.to_str().filter(|_| arguments.next().is_none());
        return run_argument(argument.and_then(cli::parse_argument)).into();
    }
    let config = Config::read(ENVIRONMENT);
    if config.runtime_api.is_none() && !config.dev_mode {
        // For example a PYROSCOPE_DEV_MODE that is not "true".
        for note in &config.notes {
            shell::print_error(&[note.variable, " ", &note.problem].concat(), false);
        }
        shell::print_error(cli::NOT_LAMBDA, false);
        return ExitCode::FAILURE;
    }
    match shell::run(config, own_name(&path)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            shell::print_error(&format!("The system gives no event queue: {error}"), false);
            ExitCode::FAILURE
        }
    }
}

/// Lambda passes no arguments, so a person runs this at a shell.
fn run_argument(action: Option<Action>) -> u8 {
    match action {
        Some(Action::Print(text)) => check::print(text.as_bytes()),
        Some(Action::Check) => return check::run(ENVIRONMENT),
        None => {
            shell::print_error(cli::UNKNOWN, true);
            return MISUSED;
        }
    }
    0
}

/// All readers of settings share this type, so their code is compiled once.
const ENVIRONMENT: check::Environment = &environment;

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The file name that Lambda started us by; we register under it.
fn own_name(path: &OsStr) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    // The name becomes a header field of our requests.
    let name = name.to_string_lossy();
    name.chars().filter(|c| !c.is_control()).collect()
}
