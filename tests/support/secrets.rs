//! What no log line may hold: the secrets that a test sets, and those that its clients send.
//!
//! Every [`super::sandbox::Extension`] looks for them at its end, in every line it has collected, at the most
//! talkative level unless the test asks for another: so each test is one more search. A secret is looked for as it
//! was given, and in the forms it takes on its way: percent-decoded, and as Basic credentials.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Shorter ones cannot be told from what a line says anyway.
const SECRET_BYTES_MIN: usize = 4;

/// Shorter ones are looked for as a word of their own, longer ones anywhere.
const ANYWHERE_BYTES_MIN: usize = 8;

/// How far a head goes in what a client sends; after it is a body.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header fields whose values are secrets, whoever sends them.
const SECRET_FIELDS: [&str; 8] = [
    "Authorization",
    "Proxy-Authorization",
    "X-Scope-OrgID",
    "Cookie",
    "X-Api-Key",
    "Api-Key",
    "X-Auth-Token",
    "X-Amz-Security-Token",
];

/// What clients in this process have sent, and to which port.
static SENT: Mutex<Vec<(u16, Secret)>> = Mutex::new(Vec::new());

/// The secrets of one sandbox.
#[derive(Default)]
pub struct Secrets(Vec<Secret>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Secret {
    /// Where it comes from, for the message.
    from: String,
    text: String,
}

impl Secrets {
    /// Those among these environment variables.
    pub fn set(variables: &[(String, String)]) -> Self {
        let find = |name: &str| {
            let mut same = variables.iter().filter(|(other, _)| other == name);
            same.next()
                .map(|(_, value)| value.as_str())
                .unwrap_or_default()
        };
        let mut secrets = Self::default();
        for name in [
            "PYROSCOPE_AUTH_TOKEN",
            "PYROSCOPE_BASIC_AUTH_USER",
            "PYROSCOPE_BASIC_AUTH_PASSWORD",
            "PYROSCOPE_TENANT_ID",
            "PYROSCOPE_HTTP_HEADERS",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        ] {
            secrets.add(name, find(name));
        }
        let (user, password) = (
            find("PYROSCOPE_BASIC_AUTH_USER"),
            find("PYROSCOPE_BASIC_AUTH_PASSWORD"),
        );
        let credentials = BASE64.encode(format!("{user}:{password}"));
        secrets.add("PYROSCOPE_BASIC_AUTH_PASSWORD", &credentials);
        for value in json_values(find("PYROSCOPE_HTTP_HEADERS")) {
            secrets.add("PYROSCOPE_HTTP_HEADERS", value);
        }
        secrets.add_userinfo(find("PYROSCOPE_REMOTE_ADDRESS"));
        secrets
    }

    /// Those that clients have sent to this port, too.
    pub fn add_sent(&mut self, port: u16) {
        let sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
        let here = sent.iter().filter(|(to, _)| *to == port);
        self.0.extend(here.map(|(_, secret)| secret.clone()));
    }

    /// What is wrong, if one of the lines holds one of the secrets.
    pub fn found_in(&self, lines: &[String]) -> Option<String> {
        lines.iter().find_map(|line| {
            let plain = without_escapes(line);
            let holds = |secret: &&Secret| is_in(&secret.text, line) || is_in(&secret.text, &plain);
            let secret = self.0.iter().find(holds)?;
            Some(format!(
                "a secret in the log, {:?} of {}, in the line: {line}",
                secret.text, secret.from
            ))
        })
    }

    /// A value, which a log line would hold piece by piece if there are line breaks in it.
    pub fn add(&mut self, from: &str, value: &str) {
        for piece in value.split(char::is_control).map(str::trim) {
            if piece.len() >= SECRET_BYTES_MIN {
                self.0.push(Secret {
                    from: from.to_owned(),
                    text: piece.to_owned(),
                });
            }
        }
    }

    fn add_userinfo(&mut self, address: &str) {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let Some((userinfo, _)) = authority.rsplit_once('@') else {
            return;
        };
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let decoded = [percent_decoded(user), percent_decoded(password)];
        let credentials = BASE64.encode(decoded.join(":"));
        for part in [
            user,
            password,
            userinfo,
            &decoded[0],
            &decoded[1],
            &credentials,
        ] {
            self.add("PYROSCOPE_REMOTE_ADDRESS", part);
        }
    }

    /// A field's value, and what credentials are made of.
    fn add_field(&mut self, name: &str, value: &str) {
        self.add(name, value);
        let Some((_, credentials)) = value.trim().split_once(' ') else {
            return;
        };
        self.add(name, credentials);
        if let Ok(basic) = BASE64.decode(credentials.trim()) {
            let basic = String::from_utf8_lossy(&basic).into_owned();
            for part in basic.split(':') {
                self.add(name, part);
            }
        }
    }
}

/// A client sends these bytes: remembers what of their head is secret.
pub fn sent(to: SocketAddr, bytes: &[u8]) {
    let mut secrets = Secrets::default();
    let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    for line in head.split(|&b| b == b'\n') {
        let line = String::from_utf8_lossy(line);
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && SECRET_FIELDS
                .iter()
                .any(|secret| name.eq_ignore_ascii_case(secret))
        {
            secrets.add_field(name, value);
        }
    }
    if secrets.0.is_empty() {
        return;
    }
    let mut sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets.0 {
        let entry = (to.port(), secret);
        if !sent.contains(&entry) {
            sent.push(entry);
        }
    }
}

fn is_in(secret: &str, line: &str) -> bool {
    if secret.len() >= ANYWHERE_BYTES_MIN {
        return line.contains(secret);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(secret).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + secret.len()..].starts_with(is_word)
    })
}

/// A line as it was before it was quoted or written as JSON; good enough to search in.
fn without_escapes(line: &str) -> String {
    let escapes = [
        ("\\\"", "\""),
        ("\\\\", "\\"),
        ("\\u003c", "<"),
        ("\\u003e", ">"),
        ("\\u0026", "&"),
    ];
    escapes
        .iter()
        .fold(line.to_owned(), |line, (escape, c)| line.replace(escape, c))
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).unwrap_or_default();
        match u8::from_str_radix(digits, 16) {
            Ok(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            Err(_) => bytes.extend_from_slice(part.as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands after a colon, in JSON good or bad: a string up to its end, anything else up to a comma or a
/// brace. A string with escapes in it comes in pieces.
fn json_values(text: &str) -> Vec<&str> {
    let mut values = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once(':') {
        rest = behind.trim_start();
        if let Some(string) = rest.strip_prefix('"') {
            let mut end = string.len();
            let mut escaped = false;
            for (at, c) in string.char_indices() {
                if c == '"' && !escaped {
                    end = at;
                    break;
                }
                escaped = c == '\\' && !escaped;
            }
            values.extend(string[..end].split('\\'));
            rest = &string[end..];
        } else {
            let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
            values.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
    values
}
