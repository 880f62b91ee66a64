//! End to end with real parts: a function with its SDK, AWS's emulator, the extension, TLS, the far end.
//!
//! ```text
//!   function ── SDK ──▶ localhost:4040  the extension ── https ──▶ stand-in Pyroscope, which decodes
//!      ▲                                     ▲
//!      └────── Runtime API ── emulator ── Extensions API
//! ```
//!
//! One run per SDK, one after another, because the port is one: start, invoke until a profile with the burning
//! function in it has arrived, shut down. What must hold is in `judge`. Then the sandboxes that are not the usual
//! ones, in `fates`. Started by the script `run`, which installs the parts, within `sandbox`:
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
use fates::{FATES, Fate};
use report::Row;
use subjects::{Subject, subjects};
use support::certificates::Authority;
use support::monitor::GUARD;
use support::pyroscope::{Pyroscope, Request, Tls};

#[path = "../support/decode.rs"]
mod decode;
mod emulator;
mod endings;
mod fates;
mod judge;
mod report;
mod subjects;
#[path = "../support/mod.rs"]
mod support;

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
    let mut rows: Vec<Row> = subjects(&stage.parts)
        .iter()
        .map(|subject| stage.row(subject))
        .collect();
    rows.extend(FATES.iter().map(|fate| stage.fate(fate)));
    if report::print(&rows, all) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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

    fn fate(&self, fate: &Fate) -> Row {
        eprintln!("e2e: {} …", fate.name);
        let begun = Instant::now();
        let remote = Pyroscope::https(Tls::by(&self.authority));
        let ended = fate.run(self, &remote);
        let log_file = fate.log_file(&self.parts);
        Row::fate(fate.name, ended, &remote, begun.elapsed(), log_file)
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
