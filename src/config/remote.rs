//! The server's address, and the fields that the settings put on every relayed request.

use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::http1::fields::digits;

use super::proxy::{self, Proxy};
use super::{Note, warn_once};

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
    /// How many of the fields, from the start, have a value that is not known yet: see [`Config::references`].
    ///
    /// [`Config::references`]: super::Config::references
    pub withheld: usize,
    /// `Authorization` from the address's userinfo, for requests without one.
    pub fallback_authorization: Option<String>,
    /// The proxy, if it is not reached directly.
    pub proxy: Option<Proxy>,
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
}
