//! Turns the head that a client sent into the head that is relayed: authorization, tenant, extra fields, hop-by-hop
//! removal, path join, session label.
//!
//! Order of the outgoing fields: `Host`; the SDK's fields unchanged, without those replaced or not forwarded; the
//! fields of the settings; `X-Forwarded-Host`. The ring adds `Content-Length` last.

use crate::config::{Labels, Remote};
use crate::http1::fields;
use crate::http1::head::Request;
use crate::http1::write::{field, percent_encoded};
use crate::times::query::Unique;

use super::labels;

/// Fields that are not forwarded: hop-by-hop (RFC 9110 section 7.6.1), those we answer ourselves, and those written
/// again. `Accept-Encoding` belongs to the reader of the answer, which is this program.
const NOT_FORWARDED: [&str; 13] = [
    "Host",
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Expect",
    "Content-Length",
    "Accept-Encoding",
];

/// The host name the SDK used for us, for the server's logs.
const FORWARDED_HOST: &str = "X-Forwarded-Host";

/// What is added to a query.
#[derive(Debug, Clone, Copy)]
pub struct Added<'a> {
    /// The sandbox's session id.
    pub session: u64,
    /// The labels of the settings.
    pub labels: &'a Labels,
    /// Times that replace those in the query.
    pub times: Unique,
}

impl Added<'_> {
    /// Only a session id.
    #[must_use]
    pub const fn session(session: u64) -> Self {
        Self {
            session,
            labels: const { &Labels::new() },
            times: Unique {
                from: None,
                until: None,
            },
        }
    }
}

/// Writes the head to relay into `out`, without the length and the empty line.
pub fn head(out: &mut Vec<u8>, request: &Request, remote: &Remote, added: &Added) {
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    target(out, request.target, &remote.path, added);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(out, b"Host", remote.authority.as_bytes());
    let is_set = |name: &str| {
        let mut set = remote.fields.iter();
        set.any(|(set, _)| fields::is_same_name(set, name))
    };
    let names_some = fields::value(request.headers, "connection").is_some();
    for h in request.headers {
        let stays = NOT_FORWARDED
            .iter()
            .any(|left| fields::is_same_name(left, h.name))
            || fields::is_same_name(h.name, FORWARDED_HOST)
            || is_set(h.name)
            || names_some && fields::names_token(request.headers, "connection", h.name);
        if !stays {
            field(out, h.name.as_bytes(), h.value);
        }
    }
    if let Some(credentials) = &remote.fallback_authorization
        && !is_set("Authorization")
        && fields::value(request.headers, "authorization").is_none()
    {
        field(out, b"Authorization", credentials.as_bytes());
    }
    for (name, value) in remote.fields.iter().skip(remote.withheld) {
        field(out, name.as_bytes(), value.as_bytes());
    }
    if let Some(host) = request.host()
        && !is_set(FORWARDED_HOST)
    {
        field(out, FORWARDED_HOST.as_bytes(), host);
    }
}

/// Writes the server's base path, the cleaned request path, and the query.
pub fn target(out: &mut Vec<u8>, target: &str, base: &str, added: &Added) {
    // `*` means the server as a whole (RFC 9112 section 3.2.4).
    if target == "*" {
        return out.push(b'*');
    }
    let target = origin_form(target);
    let target = target.split_once('#').map_or(target, |(before, _)| before);
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    clean_path(out, base, path);
    if let Some(query) = query {
        out.push(b'?');
        let labelled = labels::with_labels(query, added.session, added.labels);
        let query = labelled.as_deref().unwrap_or(query.as_bytes());
        added.times.write(query, |piece| extend_ascii(out, piece));
    }
}

/// Appends a part of a target. Bytes that a URI cannot hold (RFC 3986) are percent-encoded; the rest is unchanged.
fn extend_ascii(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_ascii() {
        return out.extend_from_slice(text);
    }
    for &b in text {
        if b.is_ascii() {
            out.push(b);
        } else {
            out.extend_from_slice(&percent_encoded(b));
        }
    }
}

/// The path and query of an absolute-form target (RFC 9112 section 3.2.2); other targets unchanged.
fn origin_form(target: &str) -> &str {
    if target.starts_with('/') {
        return target;
    }
    match target.split_once("://") {
        Some((_, rest)) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
        None => target,
    }
}

/// Joins two paths as Go's `path.Join` does: one slash between segments, `.` and `..` resolved, none at the end.
///
/// The server answers a double slash, which Node's SDK sends, with a redirect that loses the profile. Percent-encoded
/// bytes are part of a segment and stay.
fn clean_path(out: &mut Vec<u8>, base: &str, path: &str) {
    let start = out.len();
    for segment in base.split('/').chain(path.split('/')) {
        match segment {
            "" | "." => {}
            ".." => {
                let parent = out[start..].iter().rposition(|&b| b == b'/').unwrap_or(0);
                out.truncate(start + parent);
            }
            _ => {
                out.push(b'/');
                extend_ascii(out, segment.as_bytes());
            }
        }
    }
    if out.len() == start {
        out.push(b'/');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head;

    const ADDED: Added = Added::session(0x0123_4567_89ab_cdef);
    use crate::http1::header_slots;

    fn relayed(request: &str, remote: &Remote) -> String {
        let mut slots = header_slots();
        let request = head::request(request.as_bytes(), &mut slots).unwrap();
        let mut out = Vec::new();
        head(&mut out, &request, remote, &ADDED);
        String::from_utf8(out).unwrap()
    }

    fn remote(url: &str, fields: &[(&str, &str)]) -> Remote {
        let mut remote = Remote::parse(url).unwrap();
        remote.fields = fields
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        remote
    }

    #[test]
    fn targets() {
        let joined = |base: &str, target: &str| {
            let mut out = Vec::new();
            super::target(&mut out, target, base, &ADDED);
            String::from_utf8(out).unwrap()
        };
        for (base, target, expected) in [
            ("", "/ingest", "/ingest"),
            ("", "//ingest?a=//b", "/ingest?a=//b"),
            ("/base", "//ingest/", "/base/ingest"),
            ("/base", "/a/./b/../c", "/base/a/c"),
            ("/base", "/../../..", "/"),
            ("", "/", "/"),
            ("", "/a%2Fb%2e%2e/%zz", "/a%2Fb%2e%2e/%zz"),
            ("", "http://localhost:4040/x?y", "/x?y"),
            ("", "http://localhost:4040", "/"),
            ("", "http://localhost:4040?q", "/?q"),
            ("/base", "*", "*"),
            ("", "/é?é", "/%C3%A9?%C3%A9"),
            ("", "/x#fragment", "/x"),
            ("", "/x?", "/x?"),
            (
                "",
                "/x?name=a",
                "/x?name=a%7B__session_id__%3D0123456789abcdef%7D",
            ),
        ] {
            assert_eq!(joined(base, target), expected, "{base:?} {target:?}");
        }
    }

    #[test]
    fn hop_by_hop_and_own_fields_are_not_forwarded() {
        let request = "POST /ingest HTTP/1.1\r\nUser-Agent: x\r\nhost: localhost:4040\r\nConnection: close, X-Hop\r\nx-hop: 1\r\n\
            Keep-Alive: 3\r\nTE: trailers\r\nExpect: 100-continue\r\nProxy-Authorization: p\r\nTransfer-Encoding: chunked\r\n\
            Accept-Encoding: \r\nX-Forwarded-Host: evil\r\nAccept: */*\r\nX-Empty: \r\n\r\n";
        assert_eq!(
            relayed(request, &remote("http://remote:8080/", &[])),
            "POST /ingest HTTP/1.1\r\nHost: remote:8080\r\nUser-Agent: x\r\nAccept: */*\r\nX-Empty: \r\n\
             X-Forwarded-Host: localhost:4040\r\n"
        );
    }

    #[test]
    fn set_fields_replace_and_are_never_repeated() {
        let request = "POST / HTTP/1.1\r\nHost: l\r\nauthorization: sdk\r\nX-Scope-Orgid: sdk\r\nx-scope-orgid: twice\r\n\r\n";
        let set = remote(
            "https://u:p@r",
            &[
                ("Authorization", "Bearer t"),
                ("X-Scope-OrgID", "me"),
                ("X-Forwarded-Host", "f"),
            ],
        );
        assert_eq!(
            relayed(request, &set),
            "POST / HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer t\r\nX-Scope-OrgID: me\r\nX-Forwarded-Host: f\r\n"
        );
        let unset = remote("https://u:p@r", &[]);
        assert!(relayed(request, &unset).contains("\r\nauthorization: sdk\r\n"));
        let without = relayed("POST / HTTP/1.1\r\nHost: l\r\n\r\n", &unset);
        assert_eq!(without.matches("uthorization").count(), 1);
        assert!(without.contains("\r\nAuthorization: Basic dTpw\r\n"));
    }
}
