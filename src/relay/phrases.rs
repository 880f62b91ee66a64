//! What is logged of a server's answer: its status, and known phrases.
//!
//! A server may quote what it received, whole or in part, raw or encoded, and that includes credentials. So no text of
//! an answer is logged. It is searched for known phrases of servers, and a phrase that was found is logged from this
//! list. Of a redirect its target is logged, without the parts that may hold secrets.

/// Phrases that say more than the status, one per line. If a server adds a number, a name or a quotation, the phrase
/// ends before it or begins after it.
///
/// The sources: Pyroscope's validation, its distributor and `/ingest`; the hash ring of its servers; proxies in front
/// of it: Envoy, nginx, load balancers.
const PHRASES: &str = "\
pushing IngestInput-pprof failed
parsing IngestInput-pprof failed
failed to parse pprof
invalid_argument
resource_exhausted
deadline_exceeded
outside of ingestion window
next reset at
push rate limit
active series limit exceeded
exceeds the size limit
exceeds the samples count limit
exceeds the sample labels limit
size exceeds limit
larger than configured
request body too large
at least one label pair is required
service name is not provided
invalid metric name
invalid label name
invalid label value
label names; limit
label name too long
label value too long
duplicate label name
unknown profile type
no profiles received
empty profile
string index out of range
empty ring
live replicas required
too many unhealthy instances
service is unavailable
context deadline exceeded
connection refused
no healthy upstream
upstream connect error
upstream request timeout
local_rate_limited
plain HTTP request was sent to HTTPS port
HTTP request to an HTTPS server
404 page not found
default backend";

/// Most bytes of a redirect's target.
const PLACE_BYTES_MAX: usize = 200;

/// An answer as text: its status, and what is known about its redirect target and its body.
pub(crate) fn words(status: u16, place: &str, body: &[u8]) -> String {
    let mut words = ["status ", &status.to_string()].concat();
    let mut joint = ": ";
    let mut add = |phrase: &str| {
        words += joint;
        words += phrase;
        joint = ", ";
    };
    match status {
        // A server that refuses credentials may well quote them, and the status says what is wrong.
        401 | 403 => {}
        300..=399 if place.is_empty() => {}
        300..=399 => add(place),
        _ => PHRASES
            .split('\n')
            .filter(|phrase| contains(body, phrase.as_bytes()))
            .for_each(add),
    }
    words
}

/// Whether `phrase` is in `text`.
pub(crate) fn contains(text: &[u8], phrase: &[u8]) -> bool {
    text.windows(phrase.len()).any(|part| part == phrase)
}

/// Scheme, host and path of a `Location`, without user, password, parameters and query; empty if it has none of these.
pub(crate) fn place(location: &[u8]) -> String {
    let location = String::from_utf8_lossy(location);
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let location = &location[..end];
    let (scheme, rest) = match location.split_once("//") {
        Some((scheme, rest)) if is_web(scheme) => (scheme, rest),
        _ if location.starts_with('/') => ("", location),
        _ => return String::new(),
    };
    let (authority, path) = if rest.len() < location.len() {
        rest.split_at(rest.find('/').unwrap_or(rest.len()))
    } else {
        ("", rest)
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    let path = path.split(';').next().unwrap_or_default();
    // If a password is not encoded, the host seems to end too early.
    if path.contains('@') {
        return String::new();
    }
    let slashes = if authority.is_empty() { "" } else { "//" };
    let mut place = [scheme, slashes, host, path].concat();
    place.truncate(place.floor_char_boundary(PLACE_BYTES_MAX));
    place
}

/// Whether a host follows this scheme.
fn is_web(scheme: &str) -> bool {
    ["", "http:", "https:"]
        .iter()
        .any(|web| scheme.eq_ignore_ascii_case(web))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_only_what_is_known_is_named() {
        let answer = |status, body: &str, place| words(status, place, body.as_bytes());
        assert_eq!(answer(500, "s3cret", ""), "status 500");
        assert_eq!(
            answer(422, "s3cret invalid_argument: s3cret empty profile", ""),
            "status 422: invalid_argument, empty profile"
        );
        assert_eq!(answer(404, "404 page not foun", ""), "status 404");
        for status in [401, 403] {
            let quoting = answer(status, "invalid_argument", "");
            assert_eq!(quoting, format!("status {status}"));
        }
        for (place, named) in [("", "status 302"), ("/login", "status 302: /login")] {
            assert_eq!(answer(302, "empty profile", place), named);
        }
    }

    #[test]
    fn of_a_place_what_may_be_secret_is_left_out() {
        for (location, named) in [
            ("/login;s3cret?s3cret#s3cret", "/login"),
            (
                "https://us3r:s3cret@host:1/a/b?s3cret",
                "https://host:1/a/b",
            ),
            ("HTTP://host", "HTTP://host"),
            ("//s3cret@host/a", "//host/a"),
            ("https://us3r:s3/cret@host/", ""),
            ("ftp://s3cret@host/", ""),
            ("s3cret", ""),
            ("mailto:s3cret", ""),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(place(location.as_bytes()), named, "{location}");
        }
        let long = "/".repeat(PLACE_BYTES_MAX - 1) + "\u{e9}";
        assert_eq!(place(long.as_bytes()).len(), PLACE_BYTES_MAX - 1);
    }
}
