//! `--check`: tries what the relay would do with a profile, one step after another, and says on standard output
//! what works and what does not.
//!
//! ```text
//! settings ─▶ secret ─▶ roots ─▶ name ─▶ connect ─▶ proxy ─▶ tls ─▶ request ─▶ answer
//!            (if any)  (https)                    (if any)  (https)
//! ```
//!
//! A secret in one of AWS's stores has the same steps before it. [`line`] is the connection. For a person at a shell, so it may block; no wait outlasts `PYROSCOPE_TIMEOUT`. No secret is printed: of what
//! the settings say only the variables' names, the server's name and port, and of what the server says only the
//! status and the place a redirect names.

mod line;
mod secret;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::cli;
use crate::config::{Config, Remote};
use crate::contract::{Peer, RootSource, error_words};
use crate::http1::head;
use crate::http1::header_slots;
use crate::relay::forward::{self, Added};
use crate::tls::{Client, Roots, Tls};

use super::clock;
use super::dns::Dns;
use super::roots;

use line::{Answer, Line, WANTS_TLS, left};

/// A profile upload without a profile. Pyroscope looks at the credentials, finds nothing in it to store, and says so.
const REQUEST: &[u8] = b"POST /push.v1.PusherService/Push HTTP/1.1\r\n\
    Host: localhost:4040\r\n\
    User-Agent: pyroscope-lambda-extension\r\n\
    Content-Type: application/proto\r\n\r\n";

/// Settings that put a field on requests, the winning one first: how their variables begin, and what they are called.
const SOURCES: [(&str, &str); 4] = [
    ("PYROSCOPE_HTTP_HEADERS", "PYROSCOPE_HTTP_HEADERS"),
    ("PYROSCOPE_AUTH_TOKEN", "PYROSCOPE_AUTH_TOKEN"),
    (
        "PYROSCOPE_BASIC_AUTH_",
        "PYROSCOPE_BASIC_AUTH_USER and PYROSCOPE_BASIC_AUTH_PASSWORD",
    ),
    ("PYROSCOPE_TENANT_ID", "PYROSCOPE_TENANT_ID"),
];

/// How a variable's value is had.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Tries the settings in `env`. Gives the exit status: 0 if profiles would arrive and every setting is good.
pub fn run(env: Environment) -> u8 {
    let mut config = Config::read(env);
    let mut check = Check {
        env,
        timeout: config.timeout,
        sound: true,
    };
    check.settings(&config);
    if let Some(mut remote) = config.remote.take() {
        // Where it stopped, it has said why.
        let _ = check.remote(&config, &mut remote);
    }
    u8::from(!check.sound)
}

/// Writes `text` for a person to read.
pub fn print(text: &[u8]) {
    // Nobody to tell if nobody reads it.
    let _ = std::io::stdout().write_all(text);
}

struct Check<'e> {
    env: Environment<'e>,
    timeout: Duration,
    /// Nothing bad was found yet.
    sound: bool,
}

/// Whom an https server may be vouched for by.
struct Trust {
    client: Client,
    /// The variables that gave roots besides the built-in ones.
    added: Vec<&'static str>,
}

impl Check<'_> {
    fn settings(&mut self, config: &Config) {
        const STEP: &str = "settings";
        for note in &config.notes {
            self.bad(STEP, &[note.variable, " ", &note.problem]);
        }
        let is_set = |name| (self.env)(name).is_some_and(|value| !value.is_empty());
        let halves = [
            is_set("PYROSCOPE_BASIC_AUTH_USER"),
            is_set("PYROSCOPE_BASIC_AUTH_PASSWORD"),
        ];
        if halves[0] != halves[1] && !is_set("PYROSCOPE_AUTH_TOKEN") {
            let problem = " are both needed, and one of them is not set";
            self.bad(STEP, &[SOURCES[2].1, problem]);
        }
        if self.sound {
            ok(STEP, &["every value can be used"]);
        }
    }

    /// All that has to do with the server; `None` where it cannot go on.
    fn remote(&mut self, config: &Config, remote: &mut Remote) -> Option<()> {
        self.read_secrets(config, remote)?;
        let mut line = self.reach(config, remote, "PYROSCOPE_REMOTE_ADDRESS")?;
        self.send(&mut line, remote)
    }

    /// Connects to a server whose address is from that setting, as far as a request can be written.
    fn reach(&mut self, config: &Config, remote: &Remote, setting: &'static str) -> Option<Line> {
        let trust = if remote.tls {
            Some(self.trust(config, remote)?)
        } else {
            None
        };
        let until = clock().mono + self.timeout;
        let addresses = self.resolve(remote, until)?;
        let mut line = self.connect(config, remote, setting, &addresses, until)?;
        self.pass_proxy(&mut line, remote)?;
        if let Some(trust) = trust {
            self.shake_hands(&mut line, &trust, remote)?;
        }
        Some(line)
    }

    fn trust(&mut self, config: &Config, remote: &Remote) -> Option<Trust> {
        const STEP: &str = "roots";
        let (mut roots, mut added) = (Roots::mozilla(), Vec::new());
        let mut known = "the built-in ones".to_owned();
        for RootSource { variable, pem } in
            roots::read(config.ca_file.clone(), &config.ca_directories)
        {
            match pem.map(|pem| roots.add(&pem)) {
                Err(kind) => self.bad(STEP, &[variable, ": ", error_words(kind)]),
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
        ok(STEP, &[&known]);
        match Client::new(&remote.host, roots) {
            Ok(client) => Some(Trust { client, added }),
            Err(cause) => {
                self.bad("tls", &[&remote.host, " ", &cause]);
                None
            }
        }
    }

    fn resolve(&mut self, remote: &Remote, until: Instant) -> Option<Vec<SocketAddr>> {
        const STEP: &str = "name";
        let (host, _) = remote.peer();
        match resolve(remote.peer_name(), until) {
            Err(cause) => {
                self.bad(STEP, &[host, ": ", &cause]);
                None
            }
            Ok(addresses) => {
                let mut list = String::new();
                for address in &addresses {
                    list += if list.is_empty() { " is " } else { ", " };
                    list += &address.ip().to_string();
                }
                ok(STEP, &[host, &list]);
                Some(addresses)
            }
        }
    }

    /// Connects to the first address that lets us.
    fn connect(
        &mut self,
        config: &Config,
        remote: &Remote,
        setting: &'static str,
        addresses: &[SocketAddr],
        until: Instant,
    ) -> Option<Line> {
        const STEP: &str = "connect";
        let setting = match remote.proxy {
            Some(_) => "HTTPS_PROXY",
            None => setting,
        };
        // The relay that would listen there need not run: this takes its place.
        let port = remote.peer().1;
        let own = config.listen.iter().filter(|own| own.port() == port);
        let _listeners: Vec<_> = own.map(TcpListener::bind).collect();
        for (at, address) in addresses.iter().enumerate() {
            let name = address.to_string();
            match Line::connect(*address, addresses.len() - at, until) {
                Ok(line) => {
                    let ends = line.ends(&config.listen).ok();
                    if ends.is_some_and(|ends| ends.are_both_ours(&config.listen)) {
                        self.bad(STEP, &[setting, " is this relay itself"]);
                        return None;
                    }
                    ok(STEP, &[&name]);
                    return Some(line);
                }
                Err(cause) => say(STEP, "--", &[&name, ": ", cause]),
            }
        }
        let host = remote.peer().0;
        let words = [
            host,
            " takes no connection: check host and port of ",
            setting,
            ", and the function's network",
        ];
        self.bad(STEP, &words);
        None
    }

    /// Has the proxy make the connection a tunnel, if there is one.
    fn pass_proxy(&mut self, line: &mut Line, remote: &Remote) -> Option<()> {
        const STEP: &str = "proxy";
        let Some(proxy) = &remote.proxy else {
            return Some(());
        };
        match line.tunnel(&proxy.connect) {
            Ok(()) => {
                ok(STEP, &[&proxy.host, " reaches ", &remote.host]);
                Some(())
            }
            Err(cause) => {
                self.bad(STEP, &[&proxy.host, ": ", &cause]);
                None
            }
        }
    }

    fn shake_hands(&mut self, line: &mut Line, trust: &Trust, remote: &Remote) -> Option<()> {
        const STEP: &str = "tls";
        if let Err(cause) = line.shake_hands(&trust.client) {
            self.bad(STEP, &[&remote.host, ": ", &cause]);
            return None;
        }
        let version = line.tls().map_or("", Tls::version);
        let by = if trust.added.is_empty() || self.is_known_without(line, remote) {
            "a built-in root".to_owned()
        } else {
            trust.added.join(" or ")
        };
        ok(
            STEP,
            &[
                "version ",
                version,
                ", the certificate is for ",
                &remote.host,
                " and vouched for by ",
                &by,
            ],
        );
        Some(())
    }

    /// Whether the built-in roots alone would do, by another handshake.
    fn is_known_without(&self, line: &Line, remote: &Remote) -> bool {
        let until = clock().mono + self.timeout;
        let (Ok(client), Ok(ends)) = (Client::new(&remote.host, Roots::mozilla()), line.ends(&[]))
        else {
            return false;
        };
        let Ok(mut line) = Line::connect(ends.peer, 1, until) else {
            return false;
        };
        let proxy = remote.proxy.as_ref();
        proxy.is_none_or(|proxy| line.tunnel(&proxy.connect).is_ok())
            && line.shake_hands(&client).is_ok()
    }

    fn send(&mut self, line: &mut Line, remote: &Remote) -> Option<()> {
        let mut credentials = self.source("Authorization");
        if credentials.is_none() && remote.fallback_authorization.is_some() {
            credentials = Some("the user in PYROSCOPE_REMOTE_ADDRESS");
        }
        let credentials = [credentials, self.source("X-Scope-OrgID")];
        let credentials: Vec<&str> = credentials.into_iter().flatten().collect();
        let credentials = if credentials.is_empty() {
            "without credentials, as no setting gives any".to_owned()
        } else {
            "with credentials from ".to_owned() + &credentials.join(", ")
        };
        if let Err(cause) = line.write(&request(remote)?) {
            self.bad("request", &[&cause]);
            return None;
        }
        ok("request", &["an empty profile, ", &credentials]);
        match line.answer() {
            Err(cause) => self.bad("answer", &[&cause]),
            Ok(answer) => self.judge(&answer, line.tls().is_some(), &credentials),
        }
        Some(())
    }

    fn judge(&mut self, answer: &Answer, tls: bool, credentials: &str) {
        const STEP: &str = "answer";
        if !tls && answer.status == 400 && cli::wants_tls(&answer.body) {
            return self.bad(STEP, &[WANTS_TLS]);
        }
        let (welcome, meaning) = cli::verdict(answer.status);
        let status = answer.status.to_string();
        let (joint, detail) = match answer.status {
            300..=399 => (": ", answer.location.as_str()),
            401 | 403 => ("", credentials),
            _ => ("", ""),
        };
        let words = ["status ", &status, ": ", meaning, joint, detail];
        if welcome {
            ok(STEP, &words);
        } else {
            self.bad(STEP, &words);
        }
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

    fn bad(&mut self, step: &str, words: &[&str]) {
        self.sound = false;
        say(step, "bad", words);
    }
}

fn ok(step: &str, words: &[&str]) {
    say(step, "ok", words);
}

/// Prints one line: what was tried, how it went, and more in words.
fn say(step: &str, mark: &str, words: &[&str]) {
    let mut line = Vec::new();
    for (column, width) in [(step, 10), (mark, 5)] {
        line.extend_from_slice(column.as_bytes());
        line.resize(line.len() + width - column.len(), b' ');
    }
    // A terminal obeys control characters, whoever they are from.
    for c in words.iter().flat_map(|word| word.chars()) {
        let seen = if c.is_control() { '?' } else { c };
        line.extend_from_slice(seen.encode_utf8(&mut [0; 4]).as_bytes());
    }
    line.push(b'\n');
    print(&line);
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
        // A wait that was interrupted is begun again.
        let _ = poll.poll(&mut events, Some(left));
    }
}
