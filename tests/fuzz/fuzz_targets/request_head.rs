//! Request heads: where one ends does not depend on how it is cut; what is accepted means the same when it is
//! written down and read again; and what is relayed for it is a head that no reader can misread.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pyroscope_lambda_extension::config::Remote;
use pyroscope_lambda_extension::http1::head::{self, Framing};
use pyroscope_lambda_extension::http1::header_slots;
use pyroscope_lambda_extension::http1::refusal::Refusal;
use pyroscope_lambda_extension::relay::forward::{self, Added};

/// A request's parts, owned.
type Parts = (String, String, Vec<(String, Vec<u8>)>);

const ADDED: Added = Added::session(0x0123_4567_89ab_cdef);

fuzz_target!(|wire: &[u8]| -> Corpus {
    let whole = head::end(wire, &mut 0);
    let mut searched = 0;
    let bytewise = (1..=wire.len()).find_map(|cut| head::end(&wire[..cut], &mut searched));
    assert_eq!(whole, bytewise, "the end moves with the cut");
    let Some(end) = whole else {
        return Corpus::Reject;
    };
    let Ok((parts, http10, framing)) = read(&wire[..end]) else {
        return Corpus::Keep;
    };
    let again = read(&written(&parts, http10)).expect("what was accepted is accepted again");
    assert_eq!((&parts, http10, &framing), (&again.0, again.1, &again.2));
    if framing.is_ok() {
        check_relayed(&wire[..end], &parts);
    }
    Corpus::Keep
});

fn read(head: &[u8]) -> Result<(Parts, bool, Result<Framing, Refusal>), Refusal> {
    let mut slots = header_slots();
    let request = head::request(head, &mut slots)?;
    let headers = request.headers.iter();
    let headers = headers
        .map(|h| (h.name.to_owned(), h.value.to_owned()))
        .collect();
    let parts = (
        request.method.to_owned(),
        request.target.to_owned(),
        headers,
    );
    Ok((parts, request.http10, request.framing()))
}

fn written((method, target, headers): &Parts, http10: bool) -> Vec<u8> {
    let version = if http10 { "1.0" } else { "1.1" };
    let mut out = format!("{method} {target} HTTP/{version}\r\n").into_bytes();
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The relayed head, read line by line without the parser under test.
fn check_relayed(head: &[u8], (method, _, inbound): &Parts) {
    let remote = Remote {
        fields: vec![("X-Scope-OrgID".to_owned(), "tenant".to_owned())],
        ..Remote::parse("https://user:password@remote:4040/base").expect("a good address")
    };
    let mut slots = header_slots();
    let request = head::request(head, &mut slots).expect("read before");
    let mut out = Vec::new();
    forward::head(&mut out, &request, &remote, &ADDED);

    let text = out
        .strip_suffix(b"\r\n")
        .expect("ends with a line's end, for the length to follow");
    let mut lines = Vec::new();
    for line in text.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(
            line.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f)),
            "a control character is relayed"
        );
        lines.push(line);
    }
    assert_eq!(
        text.iter().filter(|&&b| b == b'\n').count(),
        text.windows(2).filter(|pair| pair == b"\r\n").count(),
        "a bare line feed"
    );

    let first: Vec<&[u8]> = lines[0].split(|&b| b == b' ').collect();
    assert_eq!(first.len(), 3, "method, target and version");
    assert_eq!((first[0], first[2]), (method.as_bytes(), &b"HTTP/1.1"[..]));
    let is_path = first[1].starts_with(b"/") && !first[1].starts_with(b"//");
    assert!(is_path || first[1] == b"*");
    assert!(first[1].is_ascii());

    let fields: Vec<(String, &[u8])> = lines[1..].iter().map(|line| field(line)).collect();
    let count = |name: &str| fields.iter().filter(|(n, _)| n == name).count();
    assert_eq!((count("host"), count("x-scope-orgid")), (1, 1));
    assert!(count("x-forwarded-host") <= 1);
    for gone in [
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ] {
        assert_eq!(count(gone), 0, "{gone} is not to be relayed");
    }
    let nominated = inbound
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    for token in nominated.flat_map(|(_, value)| value.split(|&b| b == b',')) {
        let token = String::from_utf8_lossy(token.trim_ascii()).to_ascii_lowercase();
        let ours = ["host", "authorization", "x-scope-orgid", "x-forwarded-host"];
        assert!(
            ours.contains(&&*token) || count(&token) == 0,
            "{token} is for one hop"
        );
    }
}

fn field(line: &[u8]) -> (String, &[u8]) {
    let colon = line
        .iter()
        .position(|&b| b == b':')
        .expect("a field has a colon");
    let name = str::from_utf8(&line[..colon]).expect("a name is ASCII");
    assert!(!name.is_empty() && !name.contains([' ', '\t']));
    (name.to_ascii_lowercase(), line[colon + 1..].trim_ascii())
}
