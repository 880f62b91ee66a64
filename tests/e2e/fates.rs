//! What else becomes of sandboxes: Managed Instances, a function that times out, one that crashes, no telemetry.
//!
//! The function is our own and uploads one payload per invocation, so what each process of the extension must have
//! acknowledged is known exactly; the emulator, the runtime and the extension are the real ones.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::emulator::{Emulator, Sandbox};
use crate::judge::LOG_MARK;
use crate::log::Log;
use crate::support::client::{Client, post};
use crate::support::play::{Gate, Play};
use crate::support::pyroscope::Pyroscope;
use crate::{BASE_PATH, EXTENSION_NAME, Stage, TOKEN};

/// A sandbox and what must come of it.
pub struct Fate {
    /// As it is called in the report and in the names of files.
    pub name: &'static str,
    variables: &'static [(&'static str, &'static str)],
    is_managed: bool,
    /// What the function meets in its second invocation, and how the answer to that begins.
    second: (&'static str, &'static str),
    /// For each process of the extension: its payloads, and the reason that its SHUTDOWN gave.
    processes: &'static [(u64, &'static str)],
    /// The only warning or error there is, if there is one.
    complaint: Option<&'static str>,
    /// The next event is held back until what waited has been relayed.
    holds: bool,
}

/// The usual, which each of the fates is but for what it says.
const USUAL: Fate = Fate {
    name: "",
    variables: &[],
    is_managed: false,
    second: ("answer", "{\"uploaded\":"),
    processes: &[(3, "SandboxTerminated")],
    complaint: None,
    holds: false,
};

pub const FATES: [Fate; 4] = [
    Fate {
        name: "managed-instance",
        variables: &[("AWS_LAMBDA_MAX_CONCURRENCY", "1")],
        is_managed: true,
        processes: &[(3, "spindown")],
        ..USUAL
    },
    Fate {
        name: "timeout",
        variables: &[("AWS_LAMBDA_FUNCTION_TIMEOUT", "1")],
        second: ("hang", "Task timed out"),
        processes: &[(2, "Timeout"), (1, "SandboxTerminated")],
        ..USUAL
    },
    Fate {
        name: "crash",
        second: ("crash", "{\"errorType\":\"Runtime.ExitError\""),
        // What the emulator calls a failure.
        processes: &[(2, "ReleaseFail"), (1, "SandboxTerminated")],
        ..USUAL
    },
    // The emulator has no telemetry, so there is nothing to tell when an invocation ends.
    Fate {
        name: "flush-end",
        variables: &[("PYROSCOPE_FLUSH_MODE", "end")],
        complaint: Some("flush mode end becomes invoke"),
        holds: true,
        ..USUAL
    },
];

/// What came of it.
pub struct Ended {
    pub answers: Vec<String>,
    pub wrong: Vec<String>,
    /// What is told in the report's last column.
    pub found: String,
}

impl Fate {
    pub fn log_file(&self, parts: &Path) -> PathBuf {
        parts.join(format!("{}.log", self.name))
    }

    /// Runs it and says what came of it, and what of that is wrong.
    pub fn run(&self, stage: &Stage, server: &Pyroscope) -> Result<Ended, String> {
        let certificate = stage.authority.pem_file();
        // Managed Instances run nothing as root.
        fs::set_permissions(certificate.path(), fs::Permissions::from_mode(0o644))
            .map_err(|error| format!("the certificate: {error}"))?;
        let mut variables = vec![
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("{}{BASE_PATH}", server.url()),
            ),
            ("PYROSCOPE_AUTH_TOKEN", TOKEN.to_owned()),
            ("PYROSCOPE_LOG_LEVEL", "debug".to_owned()),
            ("SSL_CERT_FILE", certificate.path().display().to_string()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ];
        let own = self.variables.iter();
        variables.extend(own.map(|&(name, value)| (name, value.to_owned())));
        if self.is_managed {
            lay_out_task_folder(&stage.parts)?;
        }
        if self.holds {
            // The first payload is taken only when the second is there.
            let gate = Gate::new();
            server.next(Play::answer(200).unanswered_until(&gate));
            server.rule(move |_| {
                gate.open();
                Play::answer(200)
            });
        }
        let sandbox = Sandbox {
            command: [
                stage.parts.join("python/bin/python"),
                "-m".into(),
                "awslambdaric".into(),
                "fate.handler".into(),
            ]
            .to_vec(),
            task_folder: code_folder(),
            variables,
            log_file: self.log_file(&stage.parts),
        };
        let ended_before = stage.endings.of(EXTENSION_NAME)?.len();
        let emulator = Emulator::start(&stage.parts.join("emulator"), &sandbox)?;
        let mut answers = Vec::new();
        for (upload, fate) in UPLOADS.iter().zip(["answer", self.second.0, "answer"]) {
            if self.is_managed {
                // Unlike Lambda, they refuse an invocation for which no runtime waits.
                emulator.wait_logged("InvokeRouter: received runtime /next", answers.len() + 1)?;
            }
            // What is to wait at the next event must not come before this one, and the function might be that fast.
            let is_between = self.holds && answers.is_empty();
            let by_function = if is_between { "" } else { *upload };
            let event = format!(r#"{{"upload":"{by_function}","fate":"{fate}"}}"#);
            answers.push(emulator.answer_to(&event)?.1);
            if is_between {
                let mut client = Client::connect(EXTENSION_ADDRESS);
                client.send(post("/ingest?name=e2e.fate", upload.as_bytes()));
                client.expect_ok();
            }
        }
        let log = emulator.shut_down()?;
        let mut wrong = self.judge_answers(&answers);
        wrong.extend(judge_arrivals(server));
        wrong.extend(self.judge_log(&log));
        let endings = stage.endings.of(EXTENSION_NAME)?.split_off(ended_before);
        if endings.len() != self.processes.len() || !endings.iter().all(|ending| ending.success()) {
            wrong.push(format!("the extension's processes ended with {endings:?}"));
        }
        Ok(Ended {
            answers,
            wrong,
            found: self.words(),
        })
    }

    fn judge_answers(&self, answers: &[String]) -> Vec<String> {
        let well = USUAL.second.1;
        let expected = [well, self.second.1, well];
        let wrong = answers
            .iter()
            .zip(expected)
            .filter(|(answer, beginning)| !answer.starts_with(beginning));
        wrong
            .map(|(answer, _)| format!("an invocation was answered with {answer}"))
            .collect()
    }

    /// Each process registered for what there is, was told why it ends, and closed with its account; and there is
    /// nothing to complain about but what belongs to this fate.
    fn judge_log(&self, log: &Log) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expect = |what: &str, found: Vec<String>, expected: Vec<String>| {
            if found != expected {
                wrong.push(format!("{what}: {found:?} instead of {expected:?}"));
            }
        };
        let lines = |part: &str| {
            let holding = log.lines.iter().filter(|line| line.contains(part));
            holding.map(String::as_str).collect::<Vec<_>>()
        };

        let (mark, list, events) = if self.is_managed {
            ("External agent registered", "events=", "[SHUTDOWN]")
        } else {
            (") registered, subscribed to", "to ", "[INVOKE SHUTDOWN]")
        };
        let registered = lines(mark).into_iter();
        expect(
            "registrations",
            registered
                .map(|line| after(line, list).to_owned())
                .collect(),
            vec![events.to_owned(); self.processes.len()],
        );
        let reasons = lines("msg=\"Shutting down\" reason=").into_iter();
        let reasons = reasons.filter(|line| line.contains(LOG_MARK));
        expect(
            "reasons to end",
            reasons
                .map(|line| word(line, "reason=").to_owned())
                .collect(),
            self.processes
                .iter()
                .map(|(_, reason)| (*reason).to_owned())
                .collect(),
        );
        let closing = lines("msg=\"Relay closed\"");
        let account = |line: &&str| {
            let fields = ["acknowledged=", "relayed=", "resent=", "lost="];
            fields.map(|field| word(line, field)).join(" ")
        };
        expect(
            "acknowledged, relayed, resent, lost",
            closing.iter().map(account).collect(),
            self.processes
                .iter()
                .map(|(count, _)| format!("{count} {count} 0 0"))
                .collect(),
        );
        let held = closing.iter().map(|line| word(line, "held_ms=") != "0");
        expect(
            "held back",
            held.map(|held| held.to_string()).collect(),
            vec![self.holds.to_string(); self.processes.len()],
        );
        let complaints = lines(LOG_MARK)
            .into_iter()
            .filter(|line| !line.contains("level=info") && !line.contains("level=debug"));
        expect(
            "complaints",
            complaints
                .map(|line| match self.complaint {
                    Some(expected) if line.contains(expected) => expected.to_owned(),
                    _ => line.to_owned(),
                })
                .collect(),
            self.complaint.iter().map(|&line| line.to_owned()).collect(),
        );
        wrong
    }

    fn words(&self) -> String {
        let processes = self.processes.iter();
        let words: Vec<String> = processes
            .map(|(count, reason)| format!("{count} until {reason}"))
            .collect();
        words.join(", ")
    }
}

/// Every upload arrived, once, as the extension's settings have it.
fn judge_arrivals(server: &Pyroscope) -> Vec<String> {
    let mut wrong = Vec::new();
    let requests = server.requests();
    let mut bodies: Vec<String> = requests
        .iter()
        .map(|request| String::from_utf8_lossy(request.payload()).into_owned())
        .collect();
    bodies.sort();
    let mut expected = UPLOADS.map(str::to_owned).to_vec();
    expected.sort();
    if bodies != expected {
        wrong.push(format!("{bodies:?} arrived instead of {expected:?}"));
    }
    for request in &requests {
        if request.path() != format!("{BASE_PATH}/ingest") {
            wrong.push(format!("a request for {}", request.path()));
        }
        if request.header("Authorization") != Some(format!("Bearer {TOKEN}")) {
            wrong.push("a request without the extension's token".to_owned());
        }
    }
    wrong
}

/// Managed Instances start what lies in the function's folder, as a user who may not enter those of ours. So the
/// folder, which is the sandbox's own, gets what the function needs.
fn lay_out_task_folder(parts: &Path) -> Result<(), String> {
    let python = parts.join("python/bin/python");
    let ask = |what: &str| {
        let asked = Command::new(&python).args(["-c", what]).output();
        let output = asked.map_err(|error| format!("{}: {error}", python.display()))?;
        Ok::<_, String>(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ))
    };
    for (name, source) in [
        ("python", ask("import sys; print(sys.base_prefix)")?),
        (
            "packages",
            ask("import site; print(site.getsitepackages()[0])")?,
        ),
        ("code", code_folder()),
    ] {
        let place = Path::new(TASK_FOLDER).join(name);
        fs::create_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        let mounted = Command::new("mount")
            .arg("--bind")
            .args([&source, &place])
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return Err(format!("cannot mount {}", source.display()));
        }
    }
    let bootstrap = Path::new(TASK_FOLDER).join("bootstrap");
    let script = format!(
        "#!/bin/sh\ncd {TASK_FOLDER}/code && PYTHONPATH={TASK_FOLDER}/packages \\\n    \
         exec {TASK_FOLDER}/python/bin/python3 -m awslambdaric fate.handler\n"
    );
    fs::write(&bootstrap, script)
        .and_then(|()| fs::set_permissions(&bootstrap, fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("{}: {error}", bootstrap.display()))
}

fn code_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/python")
}

/// What follows the last `mark` in a line.
fn after<'l>(line: &'l str, mark: &str) -> &'l str {
    line.rsplit_once(mark).map_or("", |(_, rest)| rest)
}

/// The value of a field.
fn word<'l>(line: &'l str, field: &str) -> &'l str {
    let mut words = line.split(' ');
    words
        .find_map(|word| word.strip_prefix(field))
        .unwrap_or_default()
}

/// Where SDKs send to.
const EXTENSION_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4040);

const UPLOADS: [&str; 3] = ["one", "two", "three"];

/// Lambda's, and fixed.
pub const TASK_FOLDER: &str = "/var/task";
