//! `HTTPS_PROXY` and `NO_PROXY`: whether an https server is reached through a proxy, by the rules of Go's
//! `golang.org/x/net/http/httpproxy`. An http server is always reached directly.

use std::net::IpAddr;

use crate::http1::write::field;

/// The proxy between us and the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Name or address literal.
    pub host: String,
    /// The port, 80 where none is given.
    pub port: u16,
    /// The request that opens a tunnel to the server (RFC 9110 section 9.3.6).
    pub connect: Vec<u8>,
}

/// The setting that names the proxy on the way to that https server, and its value; `None` if there is none.
pub(super) fn setting(
    env: &impl Fn(&str) -> Option<String>,
    host: &str,
    port: u16,
) -> Option<(&'static str, String)> {
    let either = |upper, lower| {
        env(upper)
            .map(|value| (upper, value))
            .or_else(|| env(lower).map(|value| (lower, value)))
    };
    let exceptions = either("NO_PROXY", "no_proxy").map_or_else(String::new, |(_, list)| list);
    let found = either("HTTPS_PROXY", "https_proxy")?;
    (!is_excepted(&exceptions, host, port)).then_some(found)
}

/// The request for a tunnel to that host and port.
pub(super) fn connect(host: &str, port: u16, authorization: Option<&str>) -> Vec<u8> {
    let (open, close) = if host.contains(':') {
        ("[", "]")
    } else {
        ("", "")
    };
    let target = format!("{open}{host}{close}:{port}");
    let mut out = [b"CONNECT ", target.as_bytes(), b" HTTP/1.1\r\n"].concat();
    field(&mut out, b"Host", target.as_bytes());
    if let Some(credentials) = authorization {
        field(&mut out, b"Proxy-Authorization", credentials.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Whether no proxy is used for that host: it is this machine, or on the list.
fn is_excepted(exceptions: &str, host: &str, port: u16) -> bool {
    let ip = host.parse::<IpAddr>().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    let host = host.to_ascii_lowercase();
    exceptions.split(',').any(|exception| {
        let exception = exception.trim().to_ascii_lowercase();
        exception == "*" || matches(&exception, &host, ip, port)
    })
}

/// Whether one entry of the list matches that host: by address, by network, or by domain, perhaps with a port.
fn matches(exception: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if let Some((network, bits)) = exception.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse(), bits.parse())
    {
        return ip.is_some_and(|ip| is_in(ip, network, bits));
    }
    let (name, excepted_port) = split_port(exception);
    if excepted_port.is_some_and(|excepted| !excepted.is_empty() && excepted != port.to_string()) {
        return false;
    }
    if let Ok(excepted) = name.parse::<IpAddr>() {
        return ip == Some(excepted);
    }
    // A domain includes all names below it; with a dot or a star before it, only these.
    let domain = name.strip_prefix('*').filter(|rest| rest.starts_with('.'));
    let domain = domain.unwrap_or(name);
    let below = domain.strip_prefix('.');
    let under = host.strip_suffix(below.unwrap_or(domain));
    ip.is_none()
        && !domain.is_empty()
        && under.is_some_and(|under| under.ends_with('.') || under.is_empty() && below.is_none())
}

/// Splits `name:port` and `[v6]:port`. Text without a port, or an IPv6 address without brackets, is only a name.
fn split_port(exception: &str) -> (&str, Option<&str>) {
    match exception.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, Some(port)),
        Some((name, port)) if name.starts_with('[') && name.ends_with(']') => {
            (&name[1..name.len() - 1], Some(port))
        }
        _ => (exception, None),
    }
}

/// Whether an address is in a network with that many bits.
fn is_in(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (ip, network, len) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            (ip.to_bits().into(), network.to_bits().into(), 32)
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let differing: u128 = ip ^ network;
    bits <= len && differing.checked_shr(len - bits).unwrap_or(0) == 0
}
