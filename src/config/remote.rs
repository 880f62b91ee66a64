//! The server's address, and the fields that the settings put on every relayed request.

use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::http1::fields::{digits, is_field_value, is_token};
use crate::json;

use super::proxy::{self, Proxy};
use super::reference::{self, Form, References, ReferringField, SettingText, is_reference, join};
use super::{Note, fail, warn, warn_once};

/// The default server: Grafana Cloud.
const REMOTE_DEFAULT: &str = "https://profiles-prod-001.grafana.net";

/// The server's address and the fields set on every relayed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Whether the scheme is https.
    pub tls: bool,
    /// Name or address literal, for the lookup and for the certificate.
    pub host: String,
    /// The port, from the address or the scheme.
    pub port: u16,
    /// `Host` of relayed requests: as the address spells it.
    pub authority: String,
    /// The path of the address, added before each request's path; may be empty.
    pub path: String,
    /// Fields set on every relayed request. They replace the SDK's fields of the same name; no name occurs twice.
    pub fields: Vec<(String, String)>,
    /// How many of the fields, from the start, have a value that is not known yet: see [`Remote::references`].
    pub withheld: usize,
    /// Where those values come from.
    pub references: Option<Box<References>>,
    /// `Authorization` from the address's userinfo, for requests without one.
    pub fallback_authorization: Option<String>,
    /// The proxy, if it is not reached directly.
    pub proxy: Option<Proxy>,
}

/// Reads the address and the fields; `None` if the address is unusable.
pub(super) fn read(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> Option<Remote> {
    const NAME: &str = "PYROSCOPE_REMOTE_ADDRESS";
    let address = env(NAME);
    let address = address.as_deref().unwrap_or(REMOTE_DEFAULT);
    let mut remote = match Remote::parse(address) {
        Ok(remote) => {
            if address.contains(['?', '#']) {
                let problem = "has a query or a fragment, which is not used";
                warn(notes, NAME, problem.to_owned());
            }
            Some(remote)
        }
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
        remote.fields = fields.set;
        remote.proxy = remote.read_proxy(env, notes);
        remote.references = reference::read(env, &fields.kept, notes);
        if let Some(references) = &remote.references {
            remote.withheld = references.templates.len();
            let mut names = references.names();
            names.append(&mut remote.fields);
            remote.fields = names;
        }
    }
    remote
}

/// Reads all fields that the settings put on relayed requests; later ones replace earlier ones of the same name.
fn set_fields(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> Fields {
    const EXTRA: &str = "PYROSCOPE_HTTP_HEADERS";
    const TOKEN: &str = "PYROSCOPE_AUTH_TOKEN";
    const USER: &str = "PYROSCOPE_BASIC_AUTH_USER";
    const PASSWORD: &str = "PYROSCOPE_BASIC_AUTH_PASSWORD";
    const TENANT: &str = "PYROSCOPE_TENANT_ID";
    let mut fields = Fields {
        set: Vec::new(),
        kept: Vec::new(),
    };
    if let Some(token) = env(TOKEN) {
        fields.set(notes, "Authorization", Form::Bearer, vec![(TOKEN, token)]);
    } else {
        let half = match (env(USER), env(PASSWORD)) {
            (Some(user), Some(password)) => {
                let values = vec![(USER, user), (PASSWORD, password)];
                fields.set(notes, "Authorization", Form::Basic, values);
                None
            }
            (Some(_), None) => Some((PASSWORD, USER)),
            (None, Some(_)) => Some((USER, PASSWORD)),
            (None, None) => None,
        };
        if let Some((missing, set)) = half {
            let problem = ["is not set, so ", set, " is not used"];
            fail(notes, missing, problem.concat());
        }
    }
    if let Some(tenant) = env(TENANT) {
        fields.set(notes, "X-Scope-OrgID", Form::Plain, vec![(TENANT, tenant)]);
    }
    // In Go, null is an object without fields.
    if let Some(text) = env(EXTRA).filter(|text| text.trim() != "null") {
        let mut extra = Vec::new();
        if json::object(&text, |name, value| extra.push((name, value))).is_err() {
            fail(
                notes,
                EXTRA,
                "is not a JSON object of strings, no headers are added".to_owned(),
            );
            extra.clear();
        }
        for (name, value) in &extra {
            match value {
                json::Value::String(value) => {
                    let value = vec![(EXTRA, value.as_ref().to_owned())];
                    fields.set(notes, name, Form::Plain, value);
                }
                _ => warn(
                    notes,
                    EXTRA,
                    format!("the value of \"{name}\" is not a string, this header is not added"),
                ),
            }
        }
    }
    fields
}

/// Fields that the framing and routing of relayed requests depend on: no setting may change them.
const NOT_SETTABLE: [&str; 5] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
];

/// The fields, while the settings are read.
struct Fields {
    /// The fields whose value is known.
    set: Vec<(String, String)>,
    /// The others.
    kept: Vec<ReferringField>,
}

impl Fields {
    /// Sets a field from one or two variables' values.
    fn set(&mut self, notes: &mut Vec<Note>, name: &str, form: Form, values: Vec<SettingText>) {
        let variable = values.first().map_or("", |(variable, _)| variable);
        if NOT_SETTABLE
            .iter()
            .any(|not| name.eq_ignore_ascii_case(not))
        {
            let problem = format!("\"{name}\" cannot be set, this header is not added");
            return warn(notes, variable, problem);
        }
        if !is_token(name.as_bytes()) {
            let problem = format!("\"{name}\" is not a header name, this header is not added");
            return warn(notes, variable, problem);
        }
        if values.iter().any(|(_, value)| is_reference(value)) {
            self.forget(name);
            return self.kept.push((name.to_owned(), form, values));
        }
        let mut value = String::new();
        for (_, part) in &values {
            join(&mut value, part);
        }
        let value = form.write(value);
        if is_field_value(value.as_bytes()) {
            self.forget(name);
            self.set.push((name.to_owned(), value));
        } else {
            let problem = format!(
                "the value for \"{name}\" has a line break or control character, it is not sent"
            );
            warn(notes, variable, problem);
        }
    }

    fn forget(&mut self, name: &str) {
        self.set
            .retain(|(before, _)| !before.eq_ignore_ascii_case(name));
        self.kept
            .retain(|(before, ..)| !before.eq_ignore_ascii_case(name));
    }
}

impl Remote {
    /// Parses an http or https URL (RFC 3986). Query and fragment have no use here and are dropped.
    ///
    /// # Errors
    /// What is wrong, as text, without quoting the address: it may contain a password.
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
            withheld: 0,
            references: None,
            fallback_authorization: userinfo.map(authorization).transpose()?,
            proxy: None,
        })
    }

    /// The proxy on the way to it, from the settings, if there is one. An http server is always reached directly.
    pub(super) fn read_proxy(
        &self,
        env: &impl Fn(&str) -> Option<String>,
        notes: &mut Vec<Note>,
    ) -> Option<Proxy> {
        let (variable, address) = proxy::setting(env, &self.host, self.port)?;
        if !self.tls {
            return None;
        }
        match Self::parse_proxy(&address) {
            Ok(proxy) => Some(Proxy {
                connect: proxy::connect(
                    &self.host,
                    self.port,
                    proxy.fallback_authorization.as_deref(),
                ),
                host: proxy.host,
                port: proxy.port,
            }),
            Err(problem) => {
                let problem = format!("{problem}; the server is connected to directly");
                warn_once(notes, variable, problem);
                None
            }
        }
    }

    /// A proxy's address: a URL, or text that becomes one with `http://` before it.
    fn parse_proxy(address: &str) -> Result<Self, &'static str> {
        let parsed = if address.contains("://") {
            Self::parse(address)
        } else {
            Self::parse(&["http://", address].concat())
        };
        match parsed {
            Ok(proxy) if proxy.tls => Err("is https://, and only http:// proxies are supported"),
            Ok(proxy) => Ok(proxy),
            Err("is not an http:// or https:// URL") => Err("is not an http:// URL"),
            Err(problem) => Err(problem),
        }
    }

    /// Host and port to connect to: the proxy's, if there is one.
    #[must_use]
    pub fn peer(&self) -> (&str, u16) {
        match &self.proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&self.host, self.port),
        }
    }

    /// The same as `host:port`, for a name lookup.
    #[must_use]
    pub fn peer_name(&self) -> String {
        let (host, port) = self.peer();
        format!("{host}:{port}")
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
    // RFC 1123 section 2.1; a dot at the end means the root.
    let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
    let is_bad = |label: &str| {
        label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-')
    };
    if !authority.starts_with('[') && labels.any(is_bad) {
        return Err("has a host name that cannot be");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        // The parser of u16 would accept a sign.
        Some(port) => match digits(port.as_bytes()).map(u16::try_from) {
            Some(Ok(port @ 1..)) => Ok((host, Some(port))),
            _ => Err("has a bad port"),
        },
        None => Err("has a bad port"),
    }
}

fn authorization(userinfo: &str) -> Result<String, &'static str> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let bad = "has a bad percent-encoding in its user or password";
    let (user, password) = (
        percent_decode(user, b'+').ok_or(bad)?,
        percent_decode(password, b'+').ok_or(bad)?,
    );
    let mut credentials = user;
    credentials.push(b':');
    credentials.extend_from_slice(&password);
    Ok(format!("Basic {}", BASE64.encode(credentials)))
}

/// Decodes `%41`, and replaces `+` by `plus`; `None` for a percent sign without two hexadecimal digits after it.
#[must_use]
pub fn percent_decode(text: &str, plus: u8) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(if b == b'+' { plus } else { b });
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16);
        let byte = digit()? << 4 | digit()?;
        out.push(byte as u8);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Config {
        Config::read(|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
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
            "https://host:+80",
            "https://[::1",
            "https://[x]",
            "https://ho st",
            "https://h\r\nx",
            "https://host/a b",
            "https://u%zz@host",
            "http://[::1]x",
            "unix:///x",
            "https://-bad.example",
            "https://bad-.example",
            "https://a..b",
            "https://.",
        ] {
            assert!(Remote::parse(bad).is_err(), "{bad:?}");
        }
        for (letters, fits) in [(63, true), (64, false), (200, false)] {
            let address = format!("https://a.{}.example.", "b".repeat(letters));
            assert_eq!(Remote::parse(&address).is_ok(), fits, "{letters}");
        }
    }

    #[test]
    fn connections_are_made_to_the_proxy_if_there_is_one() {
        let remote = ("PYROSCOPE_REMOTE_ADDRESS", "https://far.example:444");
        let proxy = ("HTTPS_PROXY", "http://near.example:3128");
        for (vars, peer) in [
            ([remote].as_slice(), ("far.example", 444)),
            (&[remote, proxy], ("near.example", 3128)),
        ] {
            assert_eq!(config(vars).remote.unwrap().peer(), peer);
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
