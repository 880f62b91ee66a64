//! The extension's executable: reads the environment, runs the relay, gives the exit status.
#![forbid(unsafe_code)]
#![warn(clippy::all, clippy::pedantic)]

use std::process::ExitCode;

use pyroscope_lambda_extension::{config::Config, shell};

fn main() -> ExitCode {
    let config = Config::read(environment);
    if config.runtime_api.is_none() && !config.dev_mode {
        shell::complain(
            "AWS_LAMBDA_RUNTIME_API is not set: this is not Lambda. PYROSCOPE_DEV_MODE=true runs the relay alone.",
        );
        return ExitCode::FAILURE;
    }
    match shell::run(config, own_name()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            shell::complain(&format!("the system gives no event queue: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The file name Lambda started us by, and knows us by.
fn own_name() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
