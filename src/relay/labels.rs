//! The `name` of a profile, `app{key=value,…}`, and its query string: adds `__session_id__` and the labels of the
//! settings.
//!
//! The grammar is the Pyroscope server's. A name that does not parse is left unchanged, and the server decides about
//! it.

use std::borrow::Cow;

use crate::config::Labels;
use crate::config::remote::percent_decode;
use crate::http1::write::percent_encoded;

/// The label that distinguishes sandboxes.
const SESSION_LABEL: &[u8] = b"__session_id__";

/// The label that holds the application's name if that is given inside the braces.
const NAME_LABEL: &[u8] = b"__name__";

/// Most labels of a name that is read, because each is compared with those before it. Pyroscope refuses more than 30.
const LABELS_MAX: usize = 256;

/// Initial capacity: SDKs send up to eight parameters, and few labels.
const PAIRS_USUAL: usize = 8;
const LABELS_USUAL: usize = 8;

/// Adds the session label and these labels to the `name` parameter of a raw query. An existing label stays.
///
/// `None`, and the query stays unchanged, if it has no `name`, cannot be decoded, has a name that does not parse, or
/// has all labels already. Otherwise the query is encoded again as Go's `url.Values.Encode` does: sorted by key.
#[must_use]
pub fn with_labels(query: &str, session: u64, labels: &Labels) -> Option<Vec<u8>> {
    let mut pairs = decode_query(query)?;
    let is_name = |pair: &Pair| *pair.0 == *b"name";
    let at = pairs.iter().position(is_name)?;
    let (_, name) = pairs.remove(at);
    let mut name = Name::parse(&name)?;
    let session = hexadecimal(session);
    let before = name.labels.len();
    name.add(SESSION_LABEL, &session);
    for (key, value) in labels {
        name.add(key.as_bytes(), value.as_bytes());
    }
    if name.labels.len() == before {
        return None;
    }
    // Only one name remains, as after url.Values.Set.
    pairs.retain(|pair| !is_name(pair));
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));

    let mut out = Vec::with_capacity(query.len() + ADDED_BYTES);
    let behind = pairs.partition_point(|(key, _)| **key < b"name"[..]);
    let (before, behind) = pairs.split_at(behind);
    for pair in before {
        encode_pair(&mut out, pair);
    }
    encode_key(&mut out, b"name");
    name.encode(&mut out);
    for pair in behind {
        encode_pair(&mut out, pair);
    }
    Some(out)
}

/// Sixteen lower-case digits, the server's format of a session id.
fn hexadecimal(session: u64) -> [u8; 16] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| HEX[(session >> (60 - 4 * i) & 15) as usize])
}

/// What a session adds to an encoded query, and some space for text that was not encoded before.
const ADDED_BYTES: usize = 96;

/// Key and value; borrowed from the query if nothing is to be decoded.
type Pair<'q> = (Cow<'q, [u8]>, Cow<'q, [u8]>);

/// A parsed name.
#[derive(Debug, PartialEq, Eq)]
struct Name<'t> {
    app: &'t [u8],
    /// No key occurs twice.
    labels: Vec<(&'t [u8], &'t [u8])>,
}

impl<'t> Name<'t> {
    /// Parses by the server's rules: the name before the first `{`, then `key=value` up to `,` or `}`. The last of two
    /// equal keys wins, an unclosed last pair is dropped, and pairs may follow a `}`.
    fn parse(text: &'t [u8]) -> Option<Self> {
        let open = text.iter().position(|&b| b == b'{').unwrap_or(text.len());
        let app = text[..open].trim_ascii();
        if !is_app(app) {
            return None;
        }
        let mut name = Self {
            app,
            labels: Vec::with_capacity(LABELS_USUAL),
        };
        let mut rest = text.get(open + 1..).unwrap_or_default();
        // A brace in place of a key ends the name, whatever follows.
        while let Some(at) = rest
            .iter()
            .position(|&b| b == b'=' || b == b'}')
            .filter(|&at| rest[at] == b'=')
        {
            let key = rest[..at].trim_ascii();
            let value_start = &rest[at + 1..];
            let Some(end) = value_start.iter().position(|&b| b == b',' || b == b'}') else {
                break;
            };
            let is_key = !key.is_empty() && key.iter().all(|&b| is_label_byte(b));
            if !is_key || name.labels.len() == LABELS_MAX {
                return None;
            }
            name.set(key, value_start[..end].trim_ascii());
            rest = &value_start[end + 1..];
        }
        // The replacement may hold anything, even a brace, and would then be read as another name.
        is_app(name.app).then_some(name)
    }

    /// Adds a label unless the name has it.
    fn add(&mut self, key: &'t [u8], value: &'t [u8]) {
        if !self.labels.iter().any(|(own, _)| *own == key) {
            self.labels.push((key, value));
        }
    }

    fn set(&mut self, key: &'t [u8], value: &'t [u8]) {
        if key == NAME_LABEL {
            self.app = value;
            return;
        }
        self.labels.retain(|(before, _)| *before != key);
        self.labels.push((key, value));
    }

    /// Appends `app{a=1,b=2}` with sorted keys, form-encoded.
    fn encode(mut self, out: &mut Vec<u8>) {
        self.labels.sort_unstable();
        form_encode(out, self.app);
        form_encode(out, b"{");
        for (i, (key, value)) in self.labels.iter().enumerate() {
            if i > 0 {
                form_encode(out, b",");
            }
            form_encode(out, key);
            form_encode(out, b"=");
            form_encode(out, value);
        }
        form_encode(out, b"}");
    }
}

fn is_app(app: &[u8]) -> bool {
    let good = |&b: &u8| is_label_byte(b) || b == b'-' || b == b'/';
    !app.is_empty() && app.iter().all(good)
}

const fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
}

/// Splits a form-encoded query into its pairs; `None` if Go's parser would refuse any of them.
fn decode_query(query: &str) -> Option<Vec<Pair<'_>>> {
    let mut pairs = Vec::with_capacity(PAIRS_USUAL);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return None;
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((form_decode(key)?, form_decode(value)?));
    }
    Some(pairs)
}

fn form_decode(text: &str) -> Option<Cow<'_, [u8]>> {
    if text.bytes().any(|b| b == b'%' || b == b'+') {
        percent_decode(text, b' ').map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(text.as_bytes()))
    }
}

fn encode_pair(out: &mut Vec<u8>, (key, value): &Pair) {
    encode_key(out, key);
    form_encode(out, value);
}

fn encode_key(out: &mut Vec<u8>, key: &[u8]) {
    if !out.is_empty() {
        out.push(b'&');
    }
    form_encode(out, key);
    out.push(b'=');
}

/// Go's `url.QueryEscape`.
fn form_encode(out: &mut Vec<u8>, text: &[u8]) {
    for &b in text {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(b);
            }
            b' ' => out.push(b'+'),
            _ => out.extend_from_slice(&percent_encoded(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(query: &str) -> Option<String> {
        let query = with_labels(query, 0x0123_4567_89ab_cdef, &Labels::new())?;
        Some(String::from_utf8(query).unwrap())
    }

    fn named(name: &str) -> Option<String> {
        let mut encoded = Vec::new();
        Name::parse(name.as_bytes())?.encode(&mut encoded);
        let encoded = String::from_utf8(encoded).unwrap();
        Some(String::from_utf8(form_decode(&encoded).unwrap().into_owned()).unwrap())
    }

    #[test]
    fn more_labels_than_anybody_has_are_left_alone() {
        let query = |count: u32| {
            let labels: Vec<String> = (0..count).map(|n| format!("k{n}=v,")).collect();
            let query = format!("name=a{{{}}}", labels.concat());
            with_labels(&query, 0x0123_4567_89ab_cdef, &Labels::new())
        };
        assert!(query(256).is_some());
        assert_eq!(query(257), None);
    }

    #[test]
    fn names() {
        for (name, normal) in [
            ("foo", "foo{}"),
            (" foo {}", "foo{}"),
            ("a/b-c.d_E9{}", "a/b-c.d_E9{}"),
            ("foo{b=2,a=1}", "foo{a=1,b=2}"),
            ("foo{ a = 1 , }", "foo{a=1}"),
            ("foo{a=1,a=2}", "foo{a=2}"),
            ("foo{a=}", "foo{a=}"),
            ("foo{a=x=y{z}", "foo{a=x=y{z}"),
            ("foo{a=1", "foo{}"),
            ("foo{a=1,b=2", "foo{a=1}"),
            ("foo{a=1}b=2}", "foo{a=1,b=2}"),
            ("foo{}b=2}", "foo{}"),
            ("foo{a}", "foo{}"),
            ("foo{a-b=1", "foo{}"),
            ("foo{otel.scope.name=x y}", "foo{otel.scope.name=x y}"),
            ("foo{__name__=bar}", "bar{}"),
            ("foo{a=é}", "foo{a=é}"),
        ] {
            assert_eq!(named(name).as_deref(), Some(normal), "{name:?}");
        }
        for name in [
            "",
            "{}",
            " {a=1}",
            "foo bar",
            "fo\u{e9}",
            "foo{,a=1}",
            "foo{a=1,,b=2}",
            "foo{a-b=1}",
            "foo{=1}",
            "foo{__name__=}",
            "foo{__name__=a b}",
            "foo{__name__=bar{a=1}",
        ] {
            assert_eq!(named(name), None, "{name:?}");
        }
    }

    #[test]
    fn the_session_is_added_and_the_query_encoded_anew() {
        assert_eq!(
            add("until=2&name=simple.golang.app%7Bfoo%3Dbar%7D&from=1&units=").as_deref(),
            Some(
                "from=1&name=simple.golang.app%7B__session_id__%3D0123456789abcdef%2Cfoo%3Dbar%7D&units=&until=2"
            )
        );
        assert_eq!(
            add("name=a%7Bk=v w+x/y%7D").as_deref(),
            Some("name=a%7B__session_id__%3D0123456789abcdef%2Ck%3Dv+w+x%2Fy%7D")
        );
        assert_eq!(
            add("name=a&name=b&x").as_deref(),
            Some("name=a%7B__session_id__%3D0123456789abcdef%7D&x=")
        );
        assert_eq!(
            add("name=a&x=+").as_deref(),
            Some("name=a%7B__session_id__%3D0123456789abcdef%7D&x=+")
        );
    }

    #[test]
    fn other_queries_are_left_alone() {
        for query in [
            "",
            "a=b",
            "name=",
            "name=%7B%7D",
            "name=a%zz",
            "name=a;b",
            "name=a&x=%4",
            "name=a&x=%",
            "name=a%7B__session_id__%3D1%7D",
        ] {
            assert_eq!(add(query), None, "{query:?}");
        }
    }
}
