//! The query's `name`: a session is added once and everything else in the query stays what it was, as an
//! independent reader of both sees it.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::{Corpus, fuzz_target};
use pyroscope_lambda_extension::config::Labels;
use pyroscope_lambda_extension::relay::labels::with_labels;

/// In hexadecimal digits, as it is written.
const SESSION: &[u8] = b"0123456789abcdef";

/// The application's name and its labels.
type Name = (Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>);

fuzz_target!(|query: &str| -> Corpus {
    let before = decoded(query);
    let name = before.as_ref().and_then(|pairs| named(pairs));
    let rewritten = with_labels(query, 0x0123_4567_89ab_cdef, &Labels::new());
    let Some(rewritten) = rewritten.map(|query| String::from_utf8(query).expect("ASCII")) else {
        let has_session = name
            .as_ref()
            .is_some_and(|(_, labels)| labels.contains_key(&b"__session_id__"[..]));
        assert!(
            name.is_none() || has_session,
            "a good name is left without a session"
        );
        return Corpus::Keep;
    };
    assert!(
        rewritten
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.~%+=&".contains(&b)),
        "not form-encoded"
    );
    let (before, mut name) = (before.expect("decodes"), name.expect("parses"));
    let after = decoded(&rewritten).expect("what is written decodes");
    let inserted = name.1.insert(b"__session_id__".to_vec(), SESSION.to_vec());
    assert_eq!(inserted, None, "a session is replaced");
    assert_eq!(named(&after), Some(name), "another name, or another label");
    assert_eq!(
        others(&before),
        others(&after),
        "another parameter than name"
    );
    assert_eq!(
        with_labels(&rewritten, 0xfedc_ba98_7654_3210, &Labels::new()),
        None,
        "a second session"
    );
    Corpus::Keep
});

/// Go's `url.ParseQuery`; `None` where it has an error.
fn decoded(query: &str) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let mut sides = pair.splitn(2, '=');
            let (key, value) = (sides.next()?, sides.next().unwrap_or_default());
            (!pair.contains(';')).then_some((unescaped(key)?, unescaped(value)?))
        })
        .collect()
}

/// Go's `url.QueryUnescape`.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.replace('+', " ").into_bytes();
    for part in parts {
        let digits = part.get(..2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(part[2..].replace('+', " ").as_bytes());
    }
    Some(out)
}

/// The first `name`, read as the server does, byte by byte; `None` where that refuses it.
fn named(pairs: &[(Vec<u8>, Vec<u8>)]) -> Option<Name> {
    enum State {
        App,
        Key,
        Value,
        Done,
    }
    let (_, text) = pairs.iter().find(|(key, _)| key == b"name")?;
    let (mut app, mut labels) = (Vec::new(), BTreeMap::new());
    let (mut state, mut key, mut value) = (State::App, Vec::new(), Vec::new());
    for &b in text
        .iter()
        .chain(b"{".iter().filter(|_| !text.contains(&b'{')))
    {
        match (&state, b) {
            (State::App, b'{') => state = State::Key,
            (State::App, _) => app.push(b),
            (State::Key, b'}') => state = State::Done,
            (State::Key, b'=') => state = State::Value,
            (State::Key, _) => key.push(b),
            (State::Value, b',' | b'}') => {
                let name = std::mem::take(&mut key).trim_ascii().to_vec();
                let good = |b: &u8| b.is_ascii_alphanumeric() || b"_.".contains(b);
                if name.is_empty() || !name.iter().all(good) {
                    return None;
                }
                labels.insert(name, std::mem::take(&mut value).trim_ascii().to_vec());
                state = State::Key;
            }
            (State::Value, _) => value.push(b),
            (State::Done, _) => break,
        }
    }
    let good = |b: &u8| b.is_ascii_alphanumeric() || b"_.-/".contains(b);
    let is_app = |app: &[u8]| !app.is_empty() && app.iter().all(good);
    let app = app.trim_ascii().to_vec();
    if !is_app(&app) {
        return None;
    }
    match labels.remove(&b"__name__"[..]) {
        None => Some((app, labels)),
        Some(other) => is_app(&other).then_some((other, labels)),
    }
}

/// Every parameter but `name`, in the order of the keys; equal keys stay in their order.
fn others(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut others: Vec<_> = pairs
        .iter()
        .filter(|(key, _)| key != b"name")
        .cloned()
        .collect();
    others.sort_by(|(a, _), (b, _)| a.cmp(b));
    others
}
