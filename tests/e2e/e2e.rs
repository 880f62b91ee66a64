//! End to end with real parts: a function with its SDK, AWS's emulator, the extension, TLS, the far end.
//!
//! ```text
//!   function ── SDK ──▶ localhost:4040  the extension ── https ──▶ stand-in Pyroscope, which decodes
//!      ▲                                     ▲
//!      └────── Runtime API ── emulator ── Extensions API
//! ```
//!
//! One run per SDK, one after another, because the port is one: start, invoke until a profile with the burning
//! function in it has arrived, shut down. What must hold is in `judge`. Started by the script `run`, which
//! installs the parts, within `sandbox`:
//!
//! ```text
//! e2e EXTENSION PARTS [--all]       --all: a runtime that could not be installed is a failure
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the bans on clocks, threads and the environment are for the extension, not for its surroundings"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;

use decode::Decoded;
use emulator::{Emulator, Log, Sandbox};
use endings::Endings;
use report::Row;
use support::certificates::Authority;
use support::monitor::GUARD;
use support::pyroscope::{Pyroscope, Request, Tls};

#[path = "../support/decode.rs"]
mod decode;
mod emulator;
mod endings;
mod judge;
mod report;
#[path = "../support/mod.rs"]
mod support;

/// A function and its SDK.
pub struct Subject {
    /// As it is called in the report and in the names of files.
    pub name: &'static str,
    /// The package and its version.
    pub sdk: String,
    /// The runtime with its arguments.
    command: Vec<PathBuf>,
    task_folder: PathBuf,
    variables: Vec<(&'static str, String)>,
    /// The function that burns CPU, as its profile names it.
    pub burning: &'static str,
    /// Where all that is written goes.
    pub log_file: PathBuf,
    /// Why it cannot run here.
    missing: Option<String>,
}

/// What came of one run.
pub struct Outcome {
    pub answers: Vec<String>,
    pub arrived: Vec<(Request, Result<Vec<Decoded>, String>)>,
    pub log: Log,
    /// How each process of the extension ended.
    pub endings: Vec<ExitStatus>,
}

/// What all runs have in common.
struct Stage {
    parts: PathBuf,
    authority: Authority,
    endings: Endings,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(extension), Some(parts)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: e2e EXTENSION PARTS [--all]");
        return ExitCode::from(2);
    };
    let all = arguments.next().is_some_and(|argument| argument == "--all");
    if std::env::var_os("E2E_SANDBOX").is_none() {
        eprintln!("e2e: runs in a sandbox of its own: tests/e2e/run {extension}");
        return ExitCode::from(2);
    }
    let stage = match Stage::set(Path::new(&extension), PathBuf::from(parts)) {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("e2e: {error}");
            return ExitCode::FAILURE;
        }
    };
    let rows: Vec<Row> = subjects(&stage.parts)
        .iter()
        .map(|subject| stage.row(subject))
        .collect();
    if report::print(&rows, all) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Every SDK that is run: the current ones, and the last of each that spoke differently.
fn subjects(parts: &Path) -> Vec<Subject> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    let python = |name, sdk, options: &str, path: PathBuf| Subject {
        name,
        sdk,
        command: vec![
            parts.join("python/bin/python"),
            "-m".into(),
            "awslambdaric".into(),
            "function.handler".into(),
        ],
        task_folder: tests.join("python"),
        variables: vec![
            ("FUNCTION_SERVICE", service(name)),
            ("FUNCTION_SDK_OPTIONS", options.to_owned()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
            ("PYTHONPATH", path.display().to_string()),
        ],
        burning: "burn_python_cpu",
        log_file: parts.join(format!("{name}.log")),
        missing: reason(parts, "python"),
    };
    let nodejs = |name, sdk, package: &str| Subject {
        name,
        sdk,
        command: vec![
            parts.join("nodejs/node"),
            parts.join("nodejs/node_modules/aws-lambda-ric/index.mjs"),
            "function.handler".into(),
        ],
        task_folder: parts.join("nodejs"),
        variables: vec![
            ("FUNCTION_SERVICE", service(name)),
            ("FUNCTION_SDK", package.to_owned()),
            (
                "FUNCTION_SDK_OPTIONS",
                r#"{"flushIntervalMs":500}"#.to_owned(),
            ),
        ],
        burning: "burnNodeCpu",
        log_file: parts.join(format!("{name}.log")),
        missing: reason(parts, "nodejs"),
    };
    let pypi = |list| format!("pyroscope-io {}", version(list, "pyroscope-io=="));
    let npm = |key| {
        format!(
            "@pyroscope/nodejs {}",
            version(include_str!("nodejs/package.json"), key)
        )
    };
    vec![
        python(
            "python",
            pypi(include_str!("requirements.txt")),
            r#"{"upload_interval":1}"#,
            PathBuf::new(),
        ),
        nodejs(
            "nodejs",
            npm("\"@pyroscope/nodejs\": \""),
            "@pyroscope/nodejs",
        ),
        nodejs(
            "nodejs-multipart",
            npm("npm:@pyroscope/nodejs@"),
            "@pyroscope/nodejs-multipart",
        ),
        // It has no setting for its interval of 10 s.
        python(
            "python-ingest",
            pypi(include_str!("requirements-legacy.txt")),
            "{}",
            parts.join("python/legacy"),
        ),
    ]
}

/// The version that follows `key` where the parts are listed.
fn version<'t>(list: &'t str, key: &str) -> &'t str {
    let rest = list.split_once(key).map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    &rest[..end.unwrap_or(rest.len())]
}

pub fn service(name: &str) -> String {
    format!("e2e.{name}")
}

/// What `run` wrote down when it could not install a runtime.
fn reason(parts: &Path, runtime: &str) -> Option<String> {
    let text = fs::read_to_string(parts.join(format!("{runtime}.missing"))).ok()?;
    Some(text.trim().to_owned())
}

impl Stage {
    /// Puts the extension where Lambda wants it.
    fn set(extension: &Path, parts: PathBuf) -> Result<Self, String> {
        let place = Path::new("/opt/extensions").join(EXTENSION_NAME);
        fs::copy(extension, &place)
            .and_then(|_| fs::set_permissions(&place, fs::Permissions::from_mode(0o755)))
            .map_err(|error| format!("{} to {}: {error}", extension.display(), place.display()))?;
        let endings = Endings::noted_in(parts.join("endings"))?;
        Ok(Self {
            parts,
            authority: Authority::new("end to end"),
            endings,
        })
    }

    fn row(&self, subject: &Subject) -> Row {
        if let Some(reason) = &subject.missing {
            return Row::skipped(subject, reason);
        }
        eprintln!("e2e: {} …", subject.name);
        let begun = Instant::now();
        let remote = Pyroscope::https(Tls::by(&self.authority));
        match self.run(subject, &remote) {
            Ok(outcome) => {
                let wrong = judge::judge(subject, &outcome, &remote);
                Row::ran(subject, &outcome, begun.elapsed(), wrong)
            }
            Err(error) => Row::failed(subject, begun.elapsed(), error),
        }
    }

    fn run(&self, subject: &Subject, remote: &Pyroscope) -> Result<Outcome, String> {
        let certificate = self.authority.pem_file();
        let mut variables = subject.variables.clone();
        variables.extend([
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("{}{BASE_PATH}", remote.url()),
            ),
            ("PYROSCOPE_AUTH_TOKEN", TOKEN.to_owned()),
            ("SSL_CERT_FILE", certificate.path().display().to_string()),
        ]);
        let sandbox = Sandbox {
            command: subject.command.clone(),
            task_folder: subject.task_folder.clone(),
            variables,
            log_file: subject.log_file.clone(),
        };
        let ended_before = self.endings.of(EXTENSION_NAME)?.len();
        let emulator = Emulator::start(&self.parts.join("emulator"), &sandbox)?;
        let mut answers = Vec::new();
        let until = Instant::now() + GUARD;
        while answers.len() < INVOCATIONS_MIN
            || (!has_burned(&arrivals(remote), subject) && Instant::now() < until)
        {
            answers.push(emulator.invoke(r#"{"seconds":1.5}"#)?);
        }
        let log = emulator.shut_down()?;
        Ok(Outcome {
            answers,
            arrived: arrivals(remote),
            log,
            endings: self.endings.of(EXTENSION_NAME)?.split_off(ended_before),
        })
    }
}

/// Everything that has come whole, decoded.
fn arrivals(remote: &Pyroscope) -> Vec<(Request, Result<Vec<Decoded>, String>)> {
    let decoded = |request: Request| {
        let profiles = decode::profiles(
            &request.target(),
            &request.head.headers(),
            request.payload(),
        );
        (request, profiles)
    };
    remote.complete().into_iter().map(decoded).collect()
}

pub fn has_burned(arrived: &[(Request, Result<Vec<Decoded>, String>)], subject: &Subject) -> bool {
    let mut profiles = arrived
        .iter()
        .filter_map(|(_, profiles)| profiles.as_ref().ok())
        .flatten();
    profiles.any(|profile| burned(profile, subject).is_some_and(|value| value > 0))
}

/// What the burning function used of what a CPU profile counts. It is in heap profiles too, and not meant there.
pub fn burned(profile: &Decoded, subject: &Subject) -> Option<i64> {
    let counts_time = |kind: &String| kind.starts_with("cpu:") || kind.starts_with("samples:");
    profile
        .sample_types
        .first()
        .filter(|kind| counts_time(kind))
        .and_then(|_| profile.value_of(subject.burning))
}

pub const EXTENSION_NAME: &str = "pyroscope-lambda-extension";

/// Known to the extension's environment and not to the SDKs, which are given credentials of their own.
pub const TOKEN: &str = "of-the-extension";

pub const BASE_PATH: &str = "/behind/a/gateway";

/// A cold start and two warm ones.
const INVOCATIONS_MIN: usize = 3;
