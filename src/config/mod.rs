//! The environment, read once: every setting, its default, and its limit with the reason.
//!
//! An invalid value never stops the program: it is noted, with the variable's name, and the default is used. An empty
//! variable counts as unset, as in the extension we replace. A note never contains a value that may be secret.

mod go;
mod labels;
mod logging;
pub mod proxy;
pub mod reference;
pub mod remote;
mod sample;
mod server;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::http1::fields::is_field_value;
use crate::log::{Format, Level};

use go::{boolean, go_duration};
pub use labels::Labels;
pub use reference::References;
pub use remote::Remote;
pub use sample::Share;

/// Where SDKs in Lambda expect the relay.
const LISTEN_DEFAULT: &str = "localhost:4040";

/// `PYROSCOPE_TIMEOUT`'s default: one attempt, from the name lookup to the answer's end.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// `PYROSCOPE_NUM_WORKERS`' default: requests to the server at once.
const WORKERS_DEFAULT: usize = 5;

/// Most connections to the server, whatever `PYROSCOPE_NUM_WORKERS` says: Lambda gives function and extensions together
/// 1,024 file descriptors.
const WORKERS_MAX: usize = 64;

/// The ring's size if the function's memory is unknown.
const BUFFER_BYTES_DEFAULT: usize = 16 << 20;

/// Smallest default ring: two of the largest profiles that an SDK is known to send.
const BUFFER_BYTES_MIN: usize = 8 << 20;

/// Smallest ring that a setting may ask for: one profile of the usual size. A smaller value usually lacks its unit.
const BUFFER_BYTES_LEAST: usize = 64 << 10;

/// Largest default ring; `PYROSCOPE_BUFFER_BYTES` may ask for more.
const BUFFER_BYTES_MAX: usize = 64 << 20;

/// All settings.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own"
)]
pub struct Config {
    /// `PYROSCOPE_LOG_LEVEL`.
    pub level: Level,
    /// The other `PYROSCOPE_LOG_*`: the format of lines.
    pub log_format: Format,
    /// `PYROSCOPE_LISTEN_ADDRESS`: bound in this order; at least one must succeed.
    pub listen: Vec<SocketAddr>,
    /// `PYROSCOPE_REMOTE_ADDRESS` and the fields set on each relayed request; `None` if it is unusable.
    pub remote: Option<Remote>,
    /// Where the values of these fields come from that are not known yet.
    pub references: Option<Box<References>>,
    /// `PYROSCOPE_TIMEOUT`: one attempt, from the name lookup to the answer's end.
    pub timeout: Duration,
    /// `PYROSCOPE_NUM_WORKERS`: most connections to the server at once.
    pub workers: usize,
    /// `PYROSCOPE_FLUSH_MODE`, or `PYROSCOPE_FLUSH_ON_INVOKE` if that is not set.
    pub flush_mode: FlushMode,
    /// `PYROSCOPE_UNIQUE_TIMES`: fill the digits of profiles' times that the SDK left zero.
    pub unique_times: bool,
    /// `PYROSCOPE_LABELS`: labels that every profile gets.
    pub labels: Labels,
    /// `PYROSCOPE_SAMPLE`: the share of profiles to keep.
    pub sample: Share,
    /// `PYROSCOPE_SELF_PROFILING`: relay a profile of the extension itself, too.
    pub self_profiling: bool,
    /// `PYROSCOPE_DEV_MODE`: relay only, never ask Lambda for anything.
    pub dev_mode: bool,
    /// `AWS_LAMBDA_RUNTIME_API`: `host:port` of the Extensions API.
    pub runtime_api: Option<String>,
    /// `AWS_LAMBDA_INITIALIZATION_TYPE` is `snap-start`: after the init the sandbox, with this process, is copied.
    pub snap_start: bool,
    /// `PYROSCOPE_BUFFER_BYTES`: most bytes of payloads kept in memory.
    pub buffer_bytes: usize,
    /// `SSL_CERT_FILE`: more trusted roots, PEM.
    pub ca_file: Option<String>,
    /// `SSL_CERT_DIR`: directories with such files.
    pub ca_directories: Vec<String>,
    /// Problems with the values, to be logged once there is a log.
    pub notes: Vec<Note>,
}

/// When, after an INVOKE, we ask Lambda for the next event. From then on it may freeze us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// At once. Unsent payloads continue after the thaw.
    None,
    /// When everything that was queued at the INVOKE has been relayed.
    Invoke,
    /// When the function is done and everything has been relayed.
    End,
}

/// A problem with the value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The level of its log line.
    pub level: Level,
    /// The variable.
    pub variable: &'static str,
    /// What is wrong, and what is done instead. Contains no secret.
    pub problem: String,
}

impl Config {
    /// Reads all settings through `env`, which returns a variable's value.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> Self {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut notes = Vec::new();
        let mut references = None;
        // The notes are logged in this order.
        Self {
            level: level(env("PYROSCOPE_LOG_LEVEL"), &mut notes),
            log_format: logging::read(&env, &mut notes),
            listen: listen(env("PYROSCOPE_LISTEN_ADDRESS"), &mut notes),
            remote: server::read(&env, &mut references, &mut notes),
            references,
            timeout: timeout(env("PYROSCOPE_TIMEOUT"), &mut notes),
            workers: workers(env("PYROSCOPE_NUM_WORKERS"), &mut notes),
            flush_mode: flush_mode(&env, &mut notes),
            unique_times: switch(&env, "PYROSCOPE_UNIQUE_TIMES", true, &mut notes),
            labels: labels::read(&env, &mut notes),
            sample: sample::read(env("PYROSCOPE_SAMPLE"), &mut notes),
            self_profiling: switch(&env, "PYROSCOPE_SELF_PROFILING", false, &mut notes),
            dev_mode: switch(&env, "PYROSCOPE_DEV_MODE", false, &mut notes),
            // It becomes a header field of our requests; Lambda never sets an invalid one.
            runtime_api: env("AWS_LAMBDA_RUNTIME_API").filter(|api| is_field_value(api.as_bytes())),
            snap_start: env("AWS_LAMBDA_INITIALIZATION_TYPE").as_deref() == Some("snap-start"),
            buffer_bytes: buffer_bytes(
                env("PYROSCOPE_BUFFER_BYTES"),
                env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
                &mut notes,
            ),
            ca_file: env("SSL_CERT_FILE"),
            ca_directories: env("SSL_CERT_DIR").map_or_else(Vec::new, |list| directories(&list)),
            notes,
        }
    }
}

fn flush_mode(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> FlushMode {
    const NAME: &str = "PYROSCOPE_FLUSH_MODE";
    let old = if switch(env, "PYROSCOPE_FLUSH_ON_INVOKE", false, notes) {
        FlushMode::Invoke
    } else {
        FlushMode::None
    };
    let Some(word) = env(NAME) else {
        return old;
    };
    let modes = [
        ("none", FlushMode::None),
        ("invoke", FlushMode::Invoke),
        ("end", FlushMode::End),
    ];
    if let Some((_, mode)) = modes.iter().find(|(m, _)| word.eq_ignore_ascii_case(m)) {
        return *mode;
    }
    let problem = format!(
        "\"{word}\" is none of none, invoke and end, using {}",
        if old == FlushMode::Invoke {
            "invoke as PYROSCOPE_FLUSH_ON_INVOKE says"
        } else {
            "the default none"
        }
    );
    warn(notes, NAME, problem);
    old
}

/// A list as in `PATH`, the form in which Go reads it.
fn directories(list: &str) -> Vec<String> {
    list.split(':')
        .filter(|directory| !directory.is_empty())
        .map(str::to_owned)
        .collect()
}

fn warn(notes: &mut Vec<Note>, variable: &'static str, problem: String) {
    note(notes, Level::Warning, variable, problem);
}

#[inline(never)]
fn note(notes: &mut Vec<Note>, level: Level, variable: &'static str, problem: String) {
    notes.push(Note {
        level,
        variable,
        problem,
    });
}

/// Notes a problem that several settings would report, only once.
fn warn_once(notes: &mut Vec<Note>, variable: &'static str, problem: String) {
    if !notes
        .iter()
        .any(|note| note.variable == variable && note.problem == problem)
    {
        warn(notes, variable, problem);
    }
}

fn fail(notes: &mut Vec<Note>, variable: &'static str, problem: String) {
    note(notes, Level::Error, variable, problem);
}

/// A Go boolean. An invalid value gives the default, which is false for all settings of the extension we replace.
fn switch(
    env: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
    default: bool,
    notes: &mut Vec<Note>,
) -> bool {
    let Some(word) = env(variable) else {
        return default;
    };
    boolean(&word).unwrap_or_else(|| {
        let problem = format!("\"{word}\" is neither true nor false, using the default {default}");
        warn(notes, variable, problem);
        default
    })
}

fn level(value: Option<String>, notes: &mut Vec<Note>) -> Level {
    let Some(word) = value else {
        return Level::Info;
    };
    Level::parse(&word).unwrap_or_else(|| {
        let problem = format!("\"{word}\" is not a level, using the default info");
        warn(notes, "PYROSCOPE_LOG_LEVEL", problem);
        Level::Info
    })
}

fn timeout(value: Option<String>, notes: &mut Vec<Note>) -> Duration {
    let Some(value) = value else {
        return TIMEOUT_DEFAULT;
    };
    match go_duration(&value) {
        Some(0) => TIMEOUT_DEFAULT,
        Some(ns @ 1..) => Duration::from_nanos(ns.unsigned_abs()),
        _ => {
            warn(
                notes,
                "PYROSCOPE_TIMEOUT",
                format!("\"{value}\" is not a duration above zero, using the default 10s"),
            );
            TIMEOUT_DEFAULT
        }
    }
}

fn workers(value: Option<String>, notes: &mut Vec<Note>) -> usize {
    const NAME: &str = "PYROSCOPE_NUM_WORKERS";
    let Some(value) = value else {
        return WORKERS_DEFAULT;
    };
    match value.parse::<i64>() {
        Ok(0) => WORKERS_DEFAULT,
        Ok(n @ 1..) => {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            if n > WORKERS_MAX {
                warn(
                    notes,
                    NAME,
                    format!("\"{value}\" is more than {WORKERS_MAX}, using {WORKERS_MAX}"),
                );
            }
            n.min(WORKERS_MAX)
        }
        _ => {
            warn(
                notes,
                NAME,
                format!(
                    "\"{value}\" is not a number above zero, using the default {WORKERS_DEFAULT}"
                ),
            );
            WORKERS_DEFAULT
        }
    }
}

/// An eighth of the function's memory, within limits, unless `PYROSCOPE_BUFFER_BYTES` is set.
fn buffer_bytes(value: Option<String>, memory_mib: Option<String>, notes: &mut Vec<Note>) -> usize {
    let memory = memory_mib.and_then(|mib| mib.parse::<usize>().ok());
    let default = memory.map_or(BUFFER_BYTES_DEFAULT, |mib| {
        (mib.saturating_mul(1 << 20) / 8).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX)
    });
    let Some(value) = value else { return default };
    if let Ok(bytes @ BUFFER_BYTES_LEAST..) = value.parse::<usize>() {
        bytes
    } else {
        let problem = format!(
            "\"{value}\" is not a number of bytes, {BUFFER_BYTES_LEAST} at least, using the default {default}"
        );
        warn(notes, "PYROSCOPE_BUFFER_BYTES", problem);
        default
    }
}

fn listen(value: Option<String>, notes: &mut Vec<Note>) -> Vec<SocketAddr> {
    if let Some(value) = value {
        if let Some(addrs) = listen_addrs(&value) {
            return addrs;
        }
        let problem =
            format!("\"{value}\" is not an address and port, using the default {LISTEN_DEFAULT}");
        warn(notes, "PYROSCOPE_LISTEN_ADDRESS", problem);
    }
    listen_addrs(LISTEN_DEFAULT).unwrap_or_default()
}

/// `localhost:4040` means both loopback addresses; `:4040` means every IPv4 address.
fn listen_addrs(text: &str) -> Option<Vec<SocketAddr>> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?;
    if host.eq_ignore_ascii_case("localhost") {
        let (v4, v6) = (
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        );
        return Some(vec![SocketAddr::new(v4, port), SocketAddr::new(v6, port)]);
    }
    if host.is_empty() {
        return Some(vec![SocketAddr::new(
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port,
        )]);
    }
    text.parse().ok().map(|addr| vec![addr])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Config {
        Config::read(|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    fn noted(config: &Config) -> Vec<&'static str> {
        config.notes.iter().map(|note| note.variable).collect()
    }

    #[test]
    fn defaults() {
        let config = config(&[("PYROSCOPE_TIMEOUT", ""), ("PYROSCOPE_HTTP_HEADERS", "")]);
        assert_eq!(
            (config.timeout, config.workers),
            (Duration::from_secs(10), 5)
        );
        assert_eq!(config.buffer_bytes, 16 << 20);
        assert_eq!(
            config.listen,
            [
                "127.0.0.1:4040".parse().unwrap(),
                "[::1]:4040".parse().unwrap()
            ]
        );
        let remote = config.remote.unwrap();
        assert_eq!(
            (remote.tls, remote.host.as_str(), remote.port),
            (true, "profiles-prod-001.grafana.net", 443)
        );
        assert_eq!(config.notes, []);
    }

    #[test]
    fn bad_values_are_noted_by_name() {
        for (name, value) in [
            ("PYROSCOPE_FLUSH_MODE", "sometimes"),
            ("PYROSCOPE_TIMEOUT", "soon"),
            ("PYROSCOPE_TIMEOUT", "-1s"),
            ("PYROSCOPE_NUM_WORKERS", "-1"),
            ("PYROSCOPE_NUM_WORKERS", "many"),
            ("PYROSCOPE_NUM_WORKERS", "1000"),
            ("PYROSCOPE_BUFFER_BYTES", "16MB"),
            ("PYROSCOPE_BUFFER_BYTES", "16"),
            ("PYROSCOPE_LISTEN_ADDRESS", "4040"),
            ("PYROSCOPE_LISTEN_ADDRESS", "example.com:4040"),
            ("PYROSCOPE_REMOTE_ADDRESS", "ftp://host"),
            ("PYROSCOPE_HTTP_HEADERS", "[1]"),
            ("PYROSCOPE_HTTP_HEADERS", r#"{"a":1}"#),
            ("PYROSCOPE_HTTP_HEADERS", r#"{"a b":"c"}"#),
            ("PYROSCOPE_HTTP_HEADERS", r#"{"host":"c"}"#),
            ("PYROSCOPE_HTTP_HEADERS", r#"{"a":"b\r\nc: d"}"#),
            ("PYROSCOPE_AUTH_TOKEN", "secret\n"),
        ] {
            let config = config(&[(name, value)]);
            assert_eq!(noted(&config), [name], "{value:?}");
            assert!(!config.notes[0].problem.contains("secret"));
        }
        assert_eq!(config(&[("PYROSCOPE_NUM_WORKERS", "0")]).notes, []);
    }

    #[test]
    fn memory() {
        for (mib, bytes) in [
            ("128", 16 << 20),
            ("64", 8 << 20),
            ("10240", 64 << 20),
            ("?", 16 << 20),
        ] {
            assert_eq!(
                config(&[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", mib)]).buffer_bytes,
                bytes
            );
        }
        let set = [
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("PYROSCOPE_BUFFER_BYTES", "100000"),
        ];
        assert_eq!(config(&set).buffer_bytes, 100_000);
    }
}
