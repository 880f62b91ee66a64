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
mod verdict;

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

use line::{Answer, Line, left};
use verdict::{ANSWER, CONNECT, NAME, NOTE, PROXY, TLS};

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
