//! The address of the server and the fields set beside it: what is accepted is well-formed, reads the same when it is
//! written down again, and gives heads that no setting can break.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use pyroscope_lambda_extension::config::{Config, Remote};
use pyroscope_lambda_extension::http1::{head, header_slots};
use pyroscope_lambda_extension::relay::forward::{self, Added};

/// The settings of which the input holds the values, one after another, as the environment would: ended by NUL.
const SETTINGS: [&str; 6] = [
    "PYROSCOPE_REMOTE_ADDRESS",
    "PYROSCOPE_HTTP_HEADERS",
    "PYROSCOPE_AUTH_TOKEN",
    "PYROSCOPE_TENANT_ID",
    "PYROSCOPE_BASIC_AUTH_USER",
    "PYROSCOPE_BASIC_AUTH_PASSWORD",
];

const REQUEST: &[u8] =
    b"POST /ingest?name=app HTTP/1.1\r\nHost: localhost:4040\r\nAuthorization: Bearer mine\r\nX-Scope-OrgID: mine\r\nX-Own: 1\r\nContent-Length: 0\r\n\r\n";

const ADDED: Added = Added::session(0x0123_4567_89ab_cdef);

fuzz_target!(|values: &str| -> Corpus {
    let values: Vec<&str> = values.splitn(SETTINGS.len(), '\0').collect();
    if values.last().is_some_and(|last| last.contains('\0')) {
        return Corpus::Reject;
    }
    let config = Config::read(|name| {
        let at = SETTINGS.iter().position(|setting| *setting == name)?;
        values.get(at).map(|value| (*value).to_owned())
    });
    let Some(remote) = config.remote else {
        return Corpus::Keep;
    };
    check_address(&remote);
    check_fields(&remote);
    check_head(&remote);
    Corpus::Keep
});

fn check_address(remote: &Remote) {
    let scheme = if remote.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", remote.authority, remote.path);
    let plain = Remote {
        fields: Vec::new(),
        withheld: 0,
        fallback_authorization: None,
        ..remote.clone()
    };
    assert_eq!(
        Remote::parse(&url),
        Ok(plain),
        "the address written down again"
    );
    assert!(remote.port > 0 && !remote.host.is_empty());
    let text = format!("{}{}{}", remote.host, remote.authority, remote.path);
    assert!(text.bytes().all(|b| b.is_ascii_graphic()));
    assert!(!text.contains(['?', '#', '@']) || remote.path.contains('@'));
    assert!(remote.path.is_empty() || remote.path.starts_with('/') && !remote.path.ends_with('/'));
}

fn check_fields(remote: &Remote) {
    for (at, (name, value)) in remote.fields.iter().enumerate() {
        assert!(!name.is_empty() && !name.contains([' ', ':', '\r', '\n', '\t']));
        assert!(
            !value.contains(|c: char| c.is_ascii_control() && c != '\t'),
            "a control character in a field"
        );
        let twice = |other: &&(String, String)| other.0.eq_ignore_ascii_case(name);
        assert_eq!(
            remote.fields[at + 1..].iter().find(twice),
            None,
            "a name twice"
        );
        for ours in ["host", "content-length", "transfer-encoding", "connection"] {
            assert!(!name.eq_ignore_ascii_case(ours), "{ours} is not settable");
        }
    }
}

/// The parser takes what these settings make of a request, and finds every field that was set, once.
fn check_head(remote: &Remote) {
    let mut slots = header_slots();
    let request = head::request(REQUEST, &mut slots).expect("a good request");
    let mut out = Vec::new();
    forward::head(&mut out, &request, remote, &ADDED);
    out.extend_from_slice(b"\r\n");
    if remote.fields.len() > 90 {
        return; // The parser's own limit of fields.
    }
    let mut slots = header_slots();
    let relayed = head::request(&out, &mut slots).expect("a well-formed head");
    let framing = relayed.framing().expect("one host and no doubt");
    assert!(framing.body.is_done() && framing.keep_alive);
    let values = |name: &str| -> Vec<&[u8]> {
        let lines = relayed.headers.iter();
        lines
            .filter(|h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value)
            .collect()
    };
    assert_eq!(values("Host"), [remote.authority.as_bytes()]);
    assert_eq!(values("Authorization").len(), 1);
    for (name, value) in &remote.fields {
        assert_eq!(
            values(name),
            [value.as_bytes().trim_ascii()],
            "{name} as it was set"
        );
    }
}
