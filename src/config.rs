//! The environment, read once: every setting, its default and its limit with the reason.
//!
//! A bad value never stops anything: it is noted, with the variable's name, and the default is used. An empty
//! variable counts as unset, as in the extension we replace. Values that may be secrets never enter a note.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::http1::head::{is_field_value, is_token};
use crate::json;
use crate::log::Level;

/// Where profiles go unless `PYROSCOPE_REMOTE_ADDRESS` says otherwise: Grafana Cloud.
const REMOTE_DEFAULT: &str = "https://profiles-prod-001.grafana.net";

/// Where SDKs in Lambda expect the relay.
const LISTEN_DEFAULT: &str = "localhost:4040";

/// `PYROSCOPE_TIMEOUT`'s default: one attempt, from the name lookup to the answer's end.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// `PYROSCOPE_NUM_WORKERS`' default: relay requests at once.
const WORKERS_DEFAULT: usize = 5;

/// Most relay connections, whatever `PYROSCOPE_NUM_WORKERS` says: Lambda gives function and extensions together
/// 1,024 file descriptors.
const WORKERS_MAX: usize = 64;

/// The ring's size where the function's memory is not known.
const BUFFER_BYTES_DEFAULT: usize = 16 << 20;

/// Smallest ring: two of the largest profiles an SDK is known to send.
const BUFFER_BYTES_MIN: usize = 8 << 20;

/// Largest ring chosen by itself; `PYROSCOPE_BUFFER_BYTES` may ask for more.
const BUFFER_BYTES_MAX: usize = 64 << 20;

/// All settings.
#[derive(Debug)]
pub struct Config {
    /// `PYROSCOPE_LOG_LEVEL`.
    pub level: Level,
    /// `PYROSCOPE_LISTEN_ADDRESS`: bound in this order; at least one must succeed.
    pub listen: Vec<SocketAddr>,
    /// `PYROSCOPE_REMOTE_ADDRESS` and what is set on each relayed request; `None` if it cannot be used.
    pub remote: Option<Remote>,
    /// `PYROSCOPE_TIMEOUT`: one attempt, from the name lookup to the answer's end.
    pub timeout: Duration,
    /// `PYROSCOPE_NUM_WORKERS`: remote connections at once, at most.
    pub workers: usize,
    /// `PYROSCOPE_DEV_MODE`: relay only, never ask Lambda for anything.
    pub dev_mode: bool,
    /// `AWS_LAMBDA_RUNTIME_API`: `host:port` of the Extensions API.
    pub runtime_api: Option<String>,
    /// `PYROSCOPE_BUFFER_BYTES`: most bytes of payloads kept in memory.
    pub buffer_bytes: usize,
    /// `SSL_CERT_FILE`: more trusted roots, PEM.
    pub ca_file: Option<String>,
    /// What was wrong with the values, to be logged once there is a log.
    pub notes: Vec<Note>,
}

/// The remote address and the fields set on every relayed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Whether it is https.
    pub tls: bool,
    /// Name or address literal, for the lookup and for the certificate.
    pub host: String,
    /// The port, from the address or the scheme.
    pub port: u16,
    /// `Host` of relayed requests: as the address spells it.
    pub authority: String,
    /// The address's path, to be put before each request's; empty for none.
    pub path: String,
    /// Fields set on every relayed request, replacing the SDK's of that name; no name twice.
    pub fields: Vec<(String, String)>,
    /// `Authorization` from the address's userinfo, for requests that have none.
    pub fallback_authorization: Option<String>,
}

/// A setting that could not be used as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How grave it is.
    pub level: Level,
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with it and what is done instead. Holds no secret.
    pub problem: String,
}

impl Config {
    /// Reads all settings through `env`, which gives a variable's value.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> Self {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut notes = Vec::new();
        Self {
            level: env("PYROSCOPE_LOG_LEVEL")
                .and_then(|word| Level::parse(&word))
                .unwrap_or(Level::Info),
            listen: listen(env("PYROSCOPE_LISTEN_ADDRESS"), &mut notes),
            remote: remote(&env, &mut notes),
            timeout: timeout(env("PYROSCOPE_TIMEOUT"), &mut notes),
            workers: workers(env("PYROSCOPE_NUM_WORKERS"), &mut notes),
            dev_mode: env("PYROSCOPE_DEV_MODE").is_some_and(|word| boolean(&word)),
            runtime_api: env("AWS_LAMBDA_RUNTIME_API"),
            buffer_bytes: buffer_bytes(
                env("PYROSCOPE_BUFFER_BYTES"),
                env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
                &mut notes,
            ),
            ca_file: env("SSL_CERT_FILE"),
            notes,
        }
    }
}

fn warn(notes: &mut Vec<Note>, variable: &'static str, problem: String) {
    notes.push(Note {
        level: Level::Warning,
        variable,
        problem,
    });
}

fn fail(notes: &mut Vec<Note>, variable: &'static str, problem: String) {
    notes.push(Note {
        level: Level::Error,
        variable,
        problem,
    });
}

/// Go's `strconv.ParseBool`, with everything it refuses taken as false.
fn boolean(word: &str) -> bool {
    matches!(word, "1" | "t" | "T" | "TRUE" | "true" | "True")
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
                format!("{value:?} is not a duration above zero, using the default 10s"),
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
                    format!("{value:?} is more than {WORKERS_MAX}, using {WORKERS_MAX}"),
                );
            }
            n.min(WORKERS_MAX)
        }
        _ => {
            warn(
                notes,
                NAME,
                format!(
                    "{value:?} is not a number above zero, using the default {WORKERS_DEFAULT}"
                ),
            );
            WORKERS_DEFAULT
        }
    }
}

/// An eighth of the function's memory, within bounds, unless `PYROSCOPE_BUFFER_BYTES` says otherwise.
fn buffer_bytes(value: Option<String>, memory_mib: Option<String>, notes: &mut Vec<Note>) -> usize {
    let memory = memory_mib.and_then(|mib| mib.parse::<usize>().ok());
    let default = memory.map_or(BUFFER_BYTES_DEFAULT, |mib| {
        (mib.saturating_mul(1 << 20) / 8).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX)
    });
    let Some(value) = value else { return default };
    if let Ok(bytes @ 1..) = value.parse::<usize>() {
        bytes
    } else {
        let problem =
            format!("{value:?} is not a number of bytes above zero, using the default {default}");
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
            format!("{value:?} is not an address and port, using the default {LISTEN_DEFAULT}");
        warn(notes, "PYROSCOPE_LISTEN_ADDRESS", problem);
    }
    listen_addrs(LISTEN_DEFAULT).unwrap_or_default()
}

/// `localhost:4040` is both loopback addresses; `:4040` is every IPv4 address.
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

fn remote(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> Option<Remote> {
    const NAME: &str = "PYROSCOPE_REMOTE_ADDRESS";
    let address = env(NAME);
    let mut remote = match Remote::parse(address.as_deref().unwrap_or(REMOTE_DEFAULT)) {
        Ok(remote) => Some(remote),
        Err(problem) => {
            fail(
                notes,
                NAME,
                format!("{problem}; profiles are taken and counted as lost"),
            );
            None
        }
    };
    let fields = set_fields(env, notes);
    if let Some(remote) = &mut remote {
        remote.fields = fields;
    }
    remote
}

/// Every field the settings put on relayed requests, later ones replacing earlier ones of the same name.
fn set_fields(
    env: &impl Fn(&str) -> Option<String>,
    notes: &mut Vec<Note>,
) -> Vec<(String, String)> {
    const EXTRA: &str = "PYROSCOPE_HTTP_HEADERS";
    let mut fields: Vec<(String, String)> = Vec::new();
    if let Some(token) = env("PYROSCOPE_AUTH_TOKEN") {
        set(
            &mut fields,
            notes,
            "PYROSCOPE_AUTH_TOKEN",
            "Authorization",
            format!("Bearer {token}"),
        );
    } else if let (Some(user), Some(password)) = (
        env("PYROSCOPE_BASIC_AUTH_USER"),
        env("PYROSCOPE_BASIC_AUTH_PASSWORD"),
    ) {
        set(
            &mut fields,
            notes,
            "PYROSCOPE_BASIC_AUTH_USER",
            "Authorization",
            basic(&user, &password),
        );
    }
    if let Some(tenant) = env("PYROSCOPE_TENANT_ID") {
        set(
            &mut fields,
            notes,
            "PYROSCOPE_TENANT_ID",
            "X-Scope-OrgID",
            tenant,
        );
    }
    if let Some(text) = env(EXTRA) {
        let mut extra = Vec::new();
        if json::object(&text, |name, value| extra.push((name.into_owned(), value))).is_err() {
            fail(
                notes,
                EXTRA,
                "is not a JSON object of strings, no headers are added".to_owned(),
            );
            extra.clear();
        }
        for (name, value) in extra {
            match value {
                json::Value::String(value) => {
                    set(&mut fields, notes, EXTRA, &name, value.into_owned());
                }
                _ => warn(
                    notes,
                    EXTRA,
                    format!("the value of {name:?} is not a string, this header is not added"),
                ),
            }
        }
    }
    fields
}

/// Fields the framing and routing of relayed requests depend on: not for a setting to change.
const NOT_SETTABLE: [&str; 5] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
];

fn set(
    fields: &mut Vec<(String, String)>,
    notes: &mut Vec<Note>,
    variable: &'static str,
    name: &str,
    value: String,
) {
    if NOT_SETTABLE
        .iter()
        .any(|not| name.eq_ignore_ascii_case(not))
    {
        warn(
            notes,
            variable,
            format!("{name:?} cannot be set, this header is not added"),
        );
    } else if !is_token(name.as_bytes()) {
        warn(
            notes,
            variable,
            format!("{name:?} is not a header name, this header is not added"),
        );
    } else if !is_field_value(value.as_bytes()) {
        let problem =
            format!("the value for {name:?} has a line break or control character, it is not sent");
        warn(notes, variable, problem);
    } else {
        fields.retain(|(before, _)| !before.eq_ignore_ascii_case(name));
        fields.push((name.to_owned(), value));
    }
}

/// The credentials of RFC 7617.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

impl Remote {
    /// Reads an http or https URL (RFC 3986). Query and fragment are of no use to a relay and ignored.
    ///
    /// # Errors
    /// What is wrong, in words, without quoting the address: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or("is not an http:// or https:// URL")?;
        let tls = match scheme {
            s if s.eq_ignore_ascii_case("https") => true,
            s if s.eq_ignore_ascii_case("http") => false,
            _ => return Err("is not an http:// or https:// URL"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let path = &tail[..tail.find(['?', '#']).unwrap_or(tail.len())];
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, authority),
        };
        let (host, port) = host_port(authority)?;
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has a character in its path that a URL cannot have");
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.strip_suffix(':').unwrap_or(authority).to_owned(),
            path: path.trim_end_matches('/').to_owned(),
            fields: Vec::new(),
            fallback_authorization: userinfo.map(authorization).transpose()?,
        })
    }
}

/// Splits `host:port`, `host`, `[v6]:port` or `[v6]`.
fn host_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest
            .split_once(']')
            .ok_or("has an IPv6 address without its closing bracket")?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| "has a bad IPv6 address")?;
        (host, port)
    } else {
        let at = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(at);
        if !host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            return Err("has a character in its host name that a name cannot have");
        }
        (host, port)
    };
    if host.is_empty() {
        return Err("has no host name");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        Some(port) => match port.parse::<u16>() {
            Ok(port @ 1..) => Ok((host, Some(port))),
            _ => Err("has a bad port"),
        },
        None => Err("has a bad port"),
    }
}

fn authorization(userinfo: &str) -> Result<String, &'static str> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let bad = "has a bad percent-encoding in its user or password";
    let (user, password) = (
        percent_decode(user).ok_or(bad)?,
        percent_decode(password).ok_or(bad)?,
    );
    let mut credentials = user;
    credentials.push(b':');
    credentials.extend_from_slice(&password);
    Ok(format!("Basic {}", BASE64.encode(credentials)))
}

/// Decodes `%41`; `None` for a percent sign without two hexadecimal digits behind it.
#[must_use]
pub fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16);
        let byte = digit()? << 4 | digit()?;
        out.push(byte as u8);
    }
    Some(out)
}

/// Go's `time.ParseDuration`, in nanoseconds: `[-+]?([0-9]*(\.[0-9]*)?[a-zµ]+)+`, or `0` without a unit.
///
/// `None` for what Go refuses, overflow included.
#[must_use]
pub fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole_end = rest
            .bytes()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(rest.len());
        let (whole, tail) = rest.split_at(whole_end);
        let (fraction, tail) = match tail.strip_prefix('.') {
            None => ("", tail),
            Some(tail) => tail.split_at(
                tail.bytes()
                    .position(|b| !b.is_ascii_digit())
                    .unwrap_or(tail.len()),
            ),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = tail
            .bytes()
            .position(|b| b == b'.' || b.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit_ns: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let part = whole
            .checked_mul(unit_ns)?
            .checked_add(fraction_ns(fraction, unit_ns))?;
        total = total.checked_add(part).filter(|&t| t <= 1 << 63)?;
        rest = next;
    }
    if negative {
        0_i64.checked_sub_unsigned(total)
    } else {
        i64::try_from(total).ok()
    }
}

/// A decimal fraction of a unit, cut to whole nanoseconds; digits past what a `u64` holds do not count, as in Go.
#[expect(clippy::cast_sign_loss, reason = "no factor is negative")]
fn fraction_ns(digits: &str, unit_ns: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1.0_f64);
    for digit in digits.bytes().map(|b| u64::from(b - b'0')) {
        match value
            .checked_mul(10)
            .and_then(|v| v.checked_add(digit))
            .filter(|&v| i64::try_from(v).is_ok())
        {
            Some(v) => (value, scale) = (v, scale * 10.0),
            None => break,
        }
    }
    (value as f64 * (unit_ns as f64 / scale)) as u64
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
    fn durations() {
        for (text, ns) in [
            ("0", 0),
            ("300ms", 300_000_000),
            ("1.5h", 5_400_000_000_000),
            ("2h45m", 9_900_000_000_000),
            ("-1m30s", -90_000_000_000),
            ("+5us", 5_000),
            ("5µs", 5_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0.000000000000000000000001s", 0),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(go_duration(text), Some(ns), "{text}");
        }
        for text in [
            "",
            "3",
            "-",
            "s",
            ".s",
            "1x",
            "1 s",
            "1s ",
            "9223372036854775808ns",
            "1e3s",
            "++1s",
            "1S",
        ] {
            assert_eq!(go_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn bad_values_are_noted_by_name() {
        for (name, value) in [
            ("PYROSCOPE_TIMEOUT", "soon"),
            ("PYROSCOPE_TIMEOUT", "-1s"),
            ("PYROSCOPE_NUM_WORKERS", "-1"),
            ("PYROSCOPE_NUM_WORKERS", "many"),
            ("PYROSCOPE_NUM_WORKERS", "1000"),
            ("PYROSCOPE_BUFFER_BYTES", "16MB"),
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
            ("PYROSCOPE_BUFFER_BYTES", "1000"),
        ];
        assert_eq!(config(&set).buffer_bytes, 1000);
    }

    #[test]
    fn addresses() {
        let remote = Remote::parse("HTTP://us%65r:p%40ss@[::1]:8080/base//?x#y").unwrap();
        assert_eq!(
            (remote.tls, remote.host.as_str(), remote.port),
            (false, "::1", 8080)
        );
        assert_eq!(
            (remote.authority.as_str(), remote.path.as_str()),
            ("[::1]:8080", "/base")
        );
        assert_eq!(
            remote.fallback_authorization.as_deref(),
            Some("Basic dXNlcjpwQHNz")
        );
        for bad in [
            "",
            "host",
            "http://",
            "http://:80",
            "https://host:0",
            "https://host:65536",
            "https://host:x",
            "https://[::1",
            "https://[x]",
            "https://ho st",
            "https://h\r\nx",
            "https://host/a b",
            "https://u%zz@host",
            "http://[::1]x",
            "unix:///x",
        ] {
            assert!(Remote::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fields_replace_each_other() {
        let fields = |vars: &[(&str, &str)]| config(vars).remote.unwrap().fields;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let basic = [
            ("PYROSCOPE_BASIC_AUTH_USER", "u"),
            ("PYROSCOPE_BASIC_AUTH_PASSWORD", "p"),
        ];
        assert_eq!(fields(&basic), [pair("Authorization", "Basic dTpw")]);
        assert_eq!(fields(&basic[..1]), []);
        let all = [
            basic[0],
            basic[1],
            ("PYROSCOPE_AUTH_TOKEN", "t"),
            ("PYROSCOPE_TENANT_ID", "me"),
            (
                "PYROSCOPE_HTTP_HEADERS",
                r#"{"X-Test":"1","x-scope-orgid":"you","n":2}"#,
            ),
        ];
        assert_eq!(
            fields(&all),
            [
                pair("Authorization", "Bearer t"),
                pair("X-Test", "1"),
                pair("x-scope-orgid", "you")
            ]
        );
    }
}
