//! End to end with real parts: a function with its SDK, AWS's emulator, the extension, TLS, the far end.
//!
//! ```text
//!   function ── SDK ──▶ localhost:4040  the extension ── https ──▶ stand-in Pyroscope, which decodes
//!      ▲                                     ▲
//!      └────── Runtime API ── emulator ── Extensions API
//! ```
//!
//! One run per SDK, one after another, because the port is one: start, invoke until the profiles that have
//! arrived show what they must, shut down. What must hold is in `judge`. Then the sandboxes that are not the usual
//! ones, in `fates`. Started by the script `run`, which installs the parts, within `sandbox`:
//!
//! ```text
//! e2e LAYER.zip PARTS [--all] [--server] [--fleet NAME]…
//!
//!     --all       a runtime that could not be installed is a failure, unless the machine lacks the language itself
//!     --server    at the far end is a real Pyroscope server: see `server`
//!     --fleet     only this fleet, at the server: see `server::fleet`
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the bans on clocks, threads and the environment are for the extension, not for its surroundings"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

use decode::Decoded;
use emulator::{Emulator, Sandbox};
use endings::Endings;
use fates::{FATES, Fate, TASK_FOLDER};
use log::Log;
use report::Row;
use subjects::{Sight, Subject, subjects};
use support::certificates::Authority;
use support::monitor::GUARD;
use support::pyroscope::{Pyroscope, Request, Tls};
use wire::Wire;

#[path = "../support/decode/mod.rs"]
mod decode;
mod emulator;
mod endings;
mod fates;
mod judge;
mod log;
mod report;
mod server;
mod subjects;
#[path = "../support/mod.rs"]
mod support;
mod wire;

/// What came of one run.
pub struct Outcome {
    pub answers: Vec<String>,
    pub arrived: Vec<(Request, Result<Vec<Decoded>, String>)>,
    /// What the extension was to be sent and was not.
    pub unsent: Vec<&'static str>,
    /// What was particular in how it was sent.
    pub manners: Vec<&'static str>,
    pub log: Log,
    /// How each process of the extension ended.
    pub endings: Vec<ExitStatus>,
}

/// What all runs have in common.
struct Stage {
    parts: PathBuf,
    authority: Authority,
    endings: Endings,
    wire: Wire,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(layer), Some(parts)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: e2e LAYER.zip PARTS [--all] [--server] [--fleet NAME]…");
        return ExitCode::from(2);
    };
    let options: Vec<String> = arguments.collect();
    let is_given = |option: &str| options.iter().any(|given| given == option);
    if std::env::var_os("E2E_SANDBOX").is_none() {
        eprintln!("e2e: runs in a sandbox of its own: tests/e2e/run {layer}");
        return ExitCode::from(2);
    }
    let stage = match Stage::set(Path::new(&layer), PathBuf::from(parts)) {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("e2e: {error}");
            return ExitCode::FAILURE;
        }
    };
    let is_well = if is_given("--server") {
        let fleets = options.windows(2).filter(|pair| pair[0] == "--fleet");
        let fleets: Vec<String> = fleets.map(|pair| pair[1].clone()).collect();
        server::run(&stage, is_given("--all"), &fleets)
    } else {
        let mut rows: Vec<Row> = subjects(&stage.parts)
            .iter()
            .map(|subject| stage.row(subject))
            .collect();
        rows.extend(FATES.iter().map(|fate| stage.fate(fate)));
        report::print(&rows, is_given("--all"))
    };
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Stage {
    /// Unpacks the layer where Lambda does.
    fn set(layer: &Path, parts: PathBuf) -> Result<Self, String> {
        let unzipped = Command::new("unzip")
            .args(["-q", "-o"])
            .arg(layer)
            .args(["-d", "/opt"])
            .status()
            .map_err(|error| format!("unzip: {error}"))?;
        if !unzipped.success() {
            return Err(format!("{} cannot be unpacked", layer.display()));
        }
        let endings = Endings::noted_in(Path::new(TASK_FOLDER).join("endings"))?;
        Ok(Self {
            parts,
            authority: Authority::new("end to end"),
            endings,
            wire: Wire::tapped()?,
        })
    }

    fn row(&self, subject: &Subject) -> Row {
        if let Some(missing) = &subject.missing {
            return Row::skipped(subject, missing);
        }
        eprintln!("e2e: {} …", subject.name);
        let begun = Instant::now();
        let server = Pyroscope::https(Tls::by(&self.authority));
        match self.run(subject, &server) {
            Ok(outcome) => {
                let wrong = judge::judge(subject, &outcome, &server);
                Row::ran(subject, &outcome, begun.elapsed(), wrong)
            }
            Err(error) => Row::failed(subject, begun.elapsed(), error),
        }
    }

    fn fate(&self, fate: &Fate) -> Row {
        eprintln!("e2e: {} …", fate.name);
        let begun = Instant::now();
        let server = Pyroscope::https(Tls::by(&self.authority));
        let ended = fate.run(self, &server);
        let log_file = fate.log_file(&self.parts);
        Row::fate(fate.name, ended, &server, begun.elapsed(), log_file)
    }

    fn run(&self, subject: &Subject, server: &Pyroscope) -> Result<Outcome, String> {
        let settings = [
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("{}{BASE_PATH}", server.url()),
            ),
            ("PYROSCOPE_AUTH_TOKEN", TOKEN.to_owned()),
            ("PYROSCOPE_TENANT_ID", TENANT.to_owned()),
            (
                "PYROSCOPE_HTTP_HEADERS",
                format!(r#"{{"X-Stage":"{STAGE}"}}"#),
            ),
        ];
        let lived = self.live(subject, settings.into(), || {
            Ok(has_shown(&arrivals(server), subject))
        })?;
        Ok(Outcome {
            arrived: arrivals(server),
            ..lived
        })
    }

    /// A sandbox's life: it is invoked until all that it must show has been seen. What arrived is not asked here.
    fn live(
        &self,
        subject: &Subject,
        settings: Vec<(&'static str, String)>,
        has_shown: impl Fn() -> Result<bool, String>,
    ) -> Result<Outcome, String> {
        let certificate = self.authority.pem_file();
        let mut variables = subject.variables.clone();
        variables.extend(settings);
        variables.push(("SSL_CERT_FILE", certificate.path().display().to_string()));
        let sandbox = Sandbox {
            command: subject.command.clone(),
            task_folder: subject.task_folder.clone(),
            variables,
            log_file: subject.log_file.clone(),
        };
        let ended_before = self.endings.of(EXTENSION_NAME)?.len();
        self.wire.forget();
        let emulator = Emulator::start(&self.parts.join("emulator"), &sandbox)?;
        let mut answers = Vec::new();
        let until = Instant::now() + GUARD;
        while answers.len() < INVOCATIONS_MIN || (!has_shown()? && Instant::now() < until) {
            let answer = emulator.invoke(r#"{"seconds":1.5}"#)?;
            let is_well = answer.starts_with(judge::WELL);
            answers.push(answer);
            // It will not get better.
            if !is_well {
                break;
            }
        }
        let log = emulator.shut_down()?;
        let unsent = subject.sends.iter().copied();
        let manners = wire::MANNERS.into_iter();
        Ok(Outcome {
            answers,
            arrived: Vec::new(),
            unsent: unsent.filter(|line| !self.wire.sees(line)).collect(),
            manners: manners
                .filter(|(line, _)| self.wire.has_seen(line))
                .map(|(_, name)| name)
                .collect(),
            log,
            endings: self.endings.of(EXTENSION_NAME)?.split_off(ended_before),
        })
    }
}

/// Everything that has come whole, decoded.
fn arrivals(server: &Pyroscope) -> Vec<(Request, Result<Vec<Decoded>, String>)> {
    let decoded = |request: Request| {
        let profiles = decode::profiles(
            &request.target(),
            &request.head.headers(),
            request.payload(),
        );
        (request, profiles)
    };
    server.complete().into_iter().map(decoded).collect()
}

/// Whether all that must be in the profiles is.
fn has_shown(arrived: &[(Request, Result<Vec<Decoded>, String>)], subject: &Subject) -> bool {
    subject.shows.iter().all(|sight| is_seen(arrived, sight))
}

pub fn is_seen(arrived: &[(Request, Result<Vec<Decoded>, String>)], sight: &Sight) -> bool {
    let mut profiles = arrived
        .iter()
        .filter_map(|(_, profiles)| profiles.as_ref().ok())
        .flatten();
    profiles.any(|profile| sight.value_in(profile).is_some_and(|value| value > 0))
}

pub const EXTENSION_NAME: &str = "pyroscope-lambda-extension";

/// The extension's. SDKs read some of the same variables, but are given values of their own, which must not arrive.
pub const TOKEN: &str = "token-of-the-extension";
pub const TENANT: &str = "tenant-of-the-extension";
pub const STAGE: &str = "header-of-the-extension";

pub const BASE_PATH: &str = "/behind/a/gateway";

/// A cold start and two warm ones.
const INVOCATIONS_MIN: usize = 3;
