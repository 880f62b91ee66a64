//! `--check`: tries one step after another of what the relay does with a profile, prints which work and which do not,
//! and ends with a verdict: would profiles arrive?
//!
//! ```text
//! settings ─▶ secret ─▶ roots ─▶ name ─▶ connect ─▶ proxy ─▶ tls ─▶ request ─▶ answer
//!            (if any)  (https)                    (if any)  (https)
//! ```
//!
//! A secret in one of AWS's stores has the same steps before it. [`line`] is the connection. It may block, because a
//! person at a shell waits for it, but no wait exceeds `PYROSCOPE_TIMEOUT`. No secret is printed: of the settings only
//! the variables' names, the server's name and port; of the server's answer only what the relay would log
//! ([`phrases`]).

mod line;
mod secret;

use std::io::{IsTerminal as _, stdout};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use nix::unistd::write;

use crate::cli;
use crate::config::{Config, Remote};
use crate::contract::{Peer, RootSource, error_words};
use crate::http1::head;
use crate::http1::header_slots;
use crate::relay::forward::{self, Added};
use crate::relay::phrases;
use crate::tls::{Client, Roots, Tls};

use super::clock;
use super::dns::Dns;
use super::roots;

use line::{Answer, Line, TIMED_OUT, WANTS_TLS, left};

const ADDRESS: &str = "PYROSCOPE_REMOTE_ADDRESS";
const HTTPS_PROXY: &str = "HTTPS_PROXY";

/// An upload without a profile. Pyroscope checks the credentials, finds nothing to store, and says so.
const REQUEST: &[u8] = b"POST /push.v1.PusherService/Push HTTP/1.1\r\n\
    Host: localhost:4040\r\n\
    User-Agent: pyroscope-lambda-extension\r\n\
    Content-Type: application/proto\r\n\r\n";

/// Settings that put a field on requests, by priority: the prefix of their variables, and their name in the output.
const SOURCES: [(&str, &str); 4] = [
    ("PYROSCOPE_HTTP_HEADERS", "PYROSCOPE_HTTP_HEADERS"),
    ("PYROSCOPE_AUTH_TOKEN", "PYROSCOPE_AUTH_TOKEN"),
    (
        "PYROSCOPE_BASIC_AUTH_",
        "PYROSCOPE_BASIC_AUTH_USER and PYROSCOPE_BASIC_AUTH_PASSWORD",
    ),
    ("PYROSCOPE_TENANT_ID", "PYROSCOPE_TENANT_ID"),
];

/// The mark of a line, and the terminal code of its colour: red, green or none.
type Mark = (&'static str, &'static str);

const BAD: Mark = ("bad  ", "\x1b[31m");
const OK: Mark = ("ok   ", "\x1b[32m");
const NOTE: Mark = ("--   ", "");

/// A step that may fail, and its texts for that case.
struct Step {
    /// In ten columns.
    name: &'static str,
    /// What it waits for.
    wait: &'static str,
    /// The text between the host and the cause.
    joint: &'static str,
    /// What to check apart from the setting; the second text is for a timeout.
    help: [&'static str; 2],
}

const NAME: &Step = &Step {
    name: "name      ",
    wait: "the lookup",
    joint: " cannot be resolved: ",
    help: [", and the DNS of the function's network"; 2],
};
const CONNECT: &Step = &Step {
    name: "connect   ",
    wait: "connecting",
    joint: " cannot be reached: ",
    help: [
        ": host and port",
        ", and in a VPC the routes, NAT gateway and security group",
    ],
};
const PROXY: &Step = &Step {
    name: "proxy     ",
    wait: "its answer",
    joint: ": ",
    help: [""; 2],
};
const TLS: &Step = &Step {
    name: "tls       ",
    wait: "the TLS handshake",
    ..ANSWER
};
const ANSWER: Step = Step {
    name: "answer    ",
    wait: "the answer",
    joint: ": ",
    help: [
        ": http or https, host and port",
        ": http or https, host and port, and the server's load",
    ],
};

/// Reads an environment variable.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Tries the settings in `env`. Returns the exit status: 0 if profiles would arrive.
pub fn run(env: Environment) -> u8 {
    let mut config = Config::read(env);
    let is_set = |name| env(name).is_some_and(|value| !value.is_empty());
    let mut check = Check {
        env,
        timeout: config.timeout,
        in_colour: stdout().is_terminal() && !is_set("NO_COLOR"),
        flaw: String::new(),
        obstacle: String::new(),
    };
    check.settings(&config);
    let mut remote = config.remote.take();
    let arrived = remote
        .as_mut()
        .and_then(|remote| check.remote(&config, remote));
    check.conclude(arrived.is_some())
}

/// Writes `text` for a person to read.
pub fn print(mut text: &[u8]) {
    // If standard output is closed, there is nowhere to report it. A buffered writer would add 500 bytes of code.
    while let Ok(written @ 1..) = write(stdout(), text) {
        text = text.get(written..).unwrap_or_default();
    }
}

struct Check<'e> {
    env: Environment<'e>,
    timeout: Duration,
    in_colour: bool,
    /// The first problem found that does not keep profiles from arriving.
    flaw: String,
    /// The problem that does, and what helps.
    obstacle: String,
}

/// The roots that an https server's certificate may come from.
struct Trust {
    client: Client,
    /// The variables that added roots to the built-in ones.
    added: Vec<&'static str>,
}

impl Check<'_> {
    fn settings(&mut self, config: &Config) {
        const STEP: &str = "settings  ";
        for note in &config.notes {
            let words = [note.variable, " ", &note.problem];
            if note.variable == ADDRESS && config.remote.is_none() {
                self.fail(STEP, &words);
            } else {
                self.bad(STEP, &words);
            }
        }
        if config.notes.is_empty() {
            self.ok(STEP, &["every value can be used"]);
        }
    }

    /// All steps for the server; `None` if one failed and was reported.
    fn remote(&mut self, config: &Config, remote: &mut Remote) -> Option<()> {
        self.read_secrets(config, remote)?;
        let mut line = self.reach(config, remote, ADDRESS)?;
        self.send(&mut line, remote)
    }

    /// Connects to a server, whose address is from that setting, until a request can be written.
    fn reach(&mut self, config: &Config, remote: &Remote, setting: &'static str) -> Option<Line> {
        let trust = if remote.tls {
            Some(self.trust(config, remote)?)
        } else {
            None
        };
        let until = clock().mono + self.timeout;
        let peer = match remote.proxy {
            Some(_) => HTTPS_PROXY,
            None => setting,
        };
        let addresses = self.resolve(remote, peer, until)?;
        let mut line = self.connect(config, remote, peer, &addresses, until)?;
        self.pass_proxy(&mut line, remote)?;
        if let Some(trust) = trust {
            self.shake_hands(&mut line, &trust, remote, setting)?;
        }
        Some(line)
    }

    fn trust(&mut self, config: &Config, remote: &Remote) -> Option<Trust> {
        const STEP: &str = "roots     ";
        let (mut roots, mut added) = (Roots::mozilla(), Vec::new());
        let mut known = "the built-in ones".to_owned();
        for RootSource { variable, pem } in
            roots::read(config.ca_file.clone(), &config.ca_directories)
        {
            match pem.map(|pem| roots.add(&pem)) {
                Err(kind) => {
                    self.bad(STEP, &[variable, " cannot be read: ", error_words(kind)]);
                }
                Ok(found) => {
                    if found.added > 0 {
                        known += ", ";
                        known += &found.added.to_string();
                        known += " from ";
                        known += variable;
                        added.push(variable);
                    } else {
                        self.bad(STEP, &[variable, " holds no certificate that can be used"]);
                    }
                    if found.bad > 0 {
                        let count = found.bad.to_string();
                        self.bad(
                            STEP,
                            &[
                                &count,
                                " of the certificates of ",
                                variable,
                                " cannot be used",
                            ],
                        );
                    }
                }
            }
        }
        self.ok(STEP, &[&known]);
        match Client::new(&remote.host, roots) {
            Ok(client) => Some(Trust { client, added }),
            Err(cause) => {
                self.fail(TLS.name, &[&remote.host, " ", &cause]);
                None
            }
        }
    }

    fn resolve(
        &mut self,
        remote: &Remote,
        setting: &'static str,
        until: Instant,
    ) -> Option<Vec<SocketAddr>> {
        let (host, _) = remote.peer();
        match resolve(remote.peer_name(), until) {
            Err(cause) => {
                self.fail_at(NAME, host, &cause, setting);
                None
            }
            Ok(addresses) => {
                let mut list = String::new();
                for address in &addresses {
                    list += if list.is_empty() { " is " } else { ", " };
                    list += &address.ip().to_string();
                }
                self.ok(NAME.name, &[host, &list]);
                Some(addresses)
            }
        }
    }

    /// Connects to the first address that accepts.
    fn connect(
        &mut self,
        config: &Config,
        remote: &Remote,
        setting: &'static str,
        addresses: &[SocketAddr],
        until: Instant,
    ) -> Option<Line> {
        let mut last = "";
        // The relay that would listen there may not be running: this listener replaces it.
        let (host, port) = remote.peer();
        let own = config.listen.iter().filter(|own| own.port() == port);
        let _listeners: Vec<_> = own.map(TcpListener::bind).collect();
        for (at, address) in addresses.iter().enumerate() {
            let name = address.to_string();
            match Line::connect(*address, addresses.len() - at, until) {
                Ok(line) => {
                    let ends = line.ends(&config.listen).ok();
                    if ends.is_some_and(|ends| ends.are_both_ours(&config.listen)) {
                        let words = " is this relay itself. It must lead to the server";
                        self.fail(CONNECT.name, &[setting, words]);
                        return None;
                    }
                    self.ok(CONNECT.name, &[&name]);
                    return Some(line);
                }
                Err(cause) => {
                    self.print_line(CONNECT.name, NOTE, &[&name, ": ", cause]);
                    last = cause;
                }
            }
        }
        let peer = [host, ":", &port.to_string()].concat();
        self.fail_at(CONNECT, &peer, last, setting);
        None
    }

    /// Opens a tunnel through the proxy, if there is one.
    fn pass_proxy(&mut self, line: &mut Line, remote: &Remote) -> Option<()> {
        let Some(proxy) = &remote.proxy else {
            return Some(());
        };
        match line.tunnel(&proxy.connect) {
            Ok(()) => {
                self.ok(PROXY.name, &[&proxy.host, " reaches ", &remote.host]);
                Some(())
            }
            Err(cause) => {
                self.fail_at(PROXY, &proxy.host, &cause, HTTPS_PROXY);
                None
            }
        }
    }

    fn shake_hands(
        &mut self,
        line: &mut Line,
        trust: &Trust,
        remote: &Remote,
        setting: &'static str,
    ) -> Option<()> {
        if let Err(cause) = line.shake_hands(&trust.client) {
            self.fail_at(TLS, &remote.host, &cause, setting);
            return None;
        }
        let version = line.tls().map_or("", Tls::version);
        let by = trust.added.join(" or ");
        let joint = if by.is_empty() { "" } else { " or " };
        let words = [
            "version ",
            version,
            ", the certificate is trusted by a built-in root",
            joint,
            &by,
        ];
        self.ok(TLS.name, &words);
        Some(())
    }

    fn send(&mut self, line: &mut Line, remote: &Remote) -> Option<()> {
        let mut credentials = self.source("Authorization");
        if credentials.is_none() && remote.fallback_authorization.is_some() {
            credentials = Some("the user in PYROSCOPE_REMOTE_ADDRESS");
        }
        let are_set = credentials.is_some();
        let credentials = [credentials, self.source("X-Scope-OrgID")];
        let credentials: Vec<&str> = credentials.into_iter().flatten().collect();
        let credentials = if credentials.is_empty() {
            "without credentials (none are set)".to_owned()
        } else {
            "with credentials from ".to_owned() + &credentials.join(", ")
        };
        if let Err(cause) = line.write(&request(remote)?) {
            self.fail_at(&ANSWER, &remote.host, &cause, ADDRESS);
            return None;
        }
        self.ok("request   ", &["an empty profile, ", &credentials]);
        match line.answer() {
            Err(cause) => {
                self.fail_at(&ANSWER, &remote.host, &cause, ADDRESS);
                None
            }
            Ok(answer) => self.explain(&answer, &credentials, are_set),
        }
    }

    /// Prints what the answer means; `None` if profiles do not arrive.
    fn explain(&mut self, answer: &Answer, credentials: &str, are_set: bool) -> Option<()> {
        let (welcome, meaning) = cli::verdict(answer.status, answer.is_page);
        let (credentials, advice) = match answer.status {
            401 | 403 if phrases::contains(self.flaw.as_bytes(), b"_AUTH_") => {
                (credentials, &*self.flaw)
            }
            401 | 403 if !are_set => (
                credentials,
                "Set PYROSCOPE_AUTH_TOKEN, or PYROSCOPE_BASIC_AUTH_USER and PYROSCOPE_BASIC_AUTH_PASSWORD",
            ),
            401 | 403 => (
                credentials,
                "Check user, password or token, and that they may write profiles",
            ),
            _ => ("", ""),
        };
        let joint = if advice.is_empty() { "" } else { ". " };
        let status = phrases::words(answer.status, &answer.place, &answer.body);
        let words = [&status, "; ", meaning, credentials, joint, advice].concat();
        if !welcome {
            self.fail(ANSWER.name, &[&words]);
            return None;
        }
        self.ok(ANSWER.name, &[&words]);
        Some(())
    }

    /// The setting that puts the field of that name on requests.
    fn source(&self, field: &str) -> Option<&'static str> {
        let sets = |&&(prefix, _): &&(&str, &str)| {
            let alone = |name: &str| (self.env)(name).filter(|_| name.starts_with(prefix));
            let alone: Environment = &alone;
            Config::read(alone).remote.is_some_and(|remote| {
                let mut fields = remote.fields.iter();
                fields.any(|(name, _)| name.eq_ignore_ascii_case(field))
            })
        };
        SOURCES.iter().find(sets).map(|&(_, name)| name)
    }

    /// Reports why that step failed for that host, whose name is from that setting.
    fn fail_at(&mut self, step: &Step, host: &str, cause: &str, setting: &str) {
        let (late, mut cause) = (self.late(step.wait), cause);
        let [mut help, late_help] = step.help;
        if cause == TIMED_OUT {
            (cause, help) = (&late, late_help);
        }
        let [joint, setting, help] = if cause == WANTS_TLS {
            [": ", setting, " must begin with https"]
        } else if phrases::contains(cause.as_bytes(), b"certificate") {
            [""; 3] // The cause already says what helps.
        } else {
            [". Check ", setting, help]
        };
        let words = [host, step.joint, cause, joint, setting, help];
        self.fail(step.name, &words);
    }

    /// What it waited for, and for how long.
    fn late(&self, wait: &str) -> String {
        let ms = self.timeout.as_millis() as u64;
        let (time, unit) = if ms.is_multiple_of(1000) {
            (ms / 1000, " s (PYROSCOPE_TIMEOUT)")
        } else {
            (ms, " ms (PYROSCOPE_TIMEOUT)")
        };
        [wait, " timed out after ", &time.to_string(), unit].concat()
    }

    fn ok(&self, step: &str, words: &[&str]) {
        self.print_line(step, OK, words);
    }

    /// Reports a problem that does not keep profiles from arriving.
    fn bad(&mut self, step: &str, words: &[&str]) {
        self.print_line(step, BAD, words);
        if self.flaw.is_empty() {
            self.flaw = words.concat();
        }
    }

    /// Reports why profiles do not arrive. What helps follows as a separate sentence, only in the verdict.
    fn fail(&mut self, step: &str, words: &[&str]) {
        self.obstacle = words.concat();
        let fact = self.obstacle.split_once(". ");
        let fact = fact.map_or(&*self.obstacle, |(fact, _)| fact);
        self.print_line(step, BAD, &[fact]);
    }

    /// Prints the verdict, and returns the exit status.
    fn conclude(&self, arrived: bool) -> u8 {
        let (verdict, joint, rest) = if arrived {
            (("Profiles would arrive", OK.1), ", but ", &self.flaw)
        } else {
            (("Profiles would not arrive", BAD.1), ": ", &self.obstacle)
        };
        let joint = if rest.is_empty() { "" } else { joint };
        self.print_line("", verdict, &[joint, rest, "."]);
        u8::from(!arrived)
    }

    /// Prints one line: the step, in ten columns, its mark, and the details.
    fn print_line(&self, step: &str, (mark, colour): Mark, words: &[&str]) {
        let (colour, end) = if self.in_colour {
            (colour, "\x1b[0m")
        } else {
            ("", "")
        };
        let mut line = [step, colour, mark, end].concat().into_bytes();
        // A terminal obeys control characters, so those from any source are filtered.
        for c in words.iter().flat_map(|word| word.chars()) {
            let seen = if c.is_control() { '?' } else { c };
            line.extend_from_slice(seen.encode_utf8(&mut [0; 4]).as_bytes());
        }
        line.push(b'\n');
        print(&line);
    }
}

/// The request as the relay would send it.
fn request(remote: &Remote) -> Option<Vec<u8>> {
    let mut slots = header_slots();
    let request = head::request(REQUEST, &mut slots).ok()?;
    let mut out = Vec::new();
    forward::head(&mut out, &request, remote, &Added::session(0));
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    Some(out)
}

fn resolve(name: String, until: Instant) -> Result<Vec<SocketAddr>, String> {
    const DNS: Token = Token(0);
    let words = |error: std::io::Error| error_words(error.kind()).to_owned();
    let mut poll = Poll::new().map_err(words)?;
    let dns = Dns::new(poll.registry(), DNS)?;
    dns.resolve(Peer::Remote, name)?;
    let mut events = Events::with_capacity(1);
    loop {
        if let Some((_, found)) = dns.answer() {
            return found;
        }
        let left = left(until)?;
        // A wait that was interrupted starts again.
        let _ = poll.poll(&mut events, Some(left));
    }
}
