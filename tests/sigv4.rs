//! Are our signatures those that AWS's own signer makes? The files are written by tests/aws/vectors.

use std::collections::BTreeMap;

use pyroscope_lambda_extension::aws::sigv4::{self, Keys, Request, Scope};
use pyroscope_lambda_extension::config::Config;
use pyroscope_lambda_extension::config::reference::{KeySource, Place, Stored};
use pyroscope_lambda_extension::json;

const BOTOCORE: &str = include_str!("aws/botocore.jsonl");
const PUBLISHED: &str = include_str!("aws/published.jsonl");

/// One line's members, numbers as they are written.
fn members(line: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    json::object(line, |name, value| {
        let text = match value {
            json::Value::String(text) => text.into_owned(),
            json::Value::Number(text) => text.to_owned(),
            other => panic!("{other:?}"),
        };
        all.insert(name.into_owned(), text);
    })
    .expect("an object");
    all
}

/// What the settings name with `value`, and the keys they give.
fn stored(vector: &BTreeMap<String, String>) -> (Box<Stored>, Keys) {
    let read = Config::read(|name| {
        let name = match name {
            "PYROSCOPE_TENANT_ID" => "value",
            "AWS_ACCESS_KEY_ID" => "id",
            "AWS_SECRET_ACCESS_KEY" => "secret",
            "AWS_SESSION_TOKEN" => "token",
            other => other,
        };
        vector.get(name).cloned()
    });
    assert_eq!(read.notes, []);
    let references = read.references.expect("a reference");
    let KeySource::Given(keys) = references.keys else {
        panic!("keys are given");
    };
    let source = references.sources.into_iter().next();
    match source.expect("one source").place {
        Place::Store(stored) => (stored, keys),
        Place::File(path) => panic!("{path}"),
    }
}

#[test]
fn requests_are_signed_and_addressed_as_botocore_does() {
    let mut count = 0;
    for line in BOTOCORE.lines() {
        let vector = members(line);
        let (stored, keys) = stored(&vector);
        let seconds: u64 = vector["seconds"].parse().expect("a number");
        // What is left of a second is not in the signature.
        let request = stored.request(&keys, seconds * 1000 + 999);
        let request = String::from_utf8(request).expect("text");
        let (head, body) = request.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.split("\r\n");
        let start = format!("POST {} HTTP/1.1", vector["path"]);
        assert_eq!(lines.next(), Some(start.as_str()), "{line}");
        let fields: BTreeMap<&str, &str> = lines
            .map(|line| line.split_once(": ").expect("a field"))
            .collect();
        assert_eq!(fields["host"], vector["host"], "{line}");
        assert_eq!(fields["content-length"], body.len().to_string());
        let (credential, signed) = fields["authorization"]
            .split_once(", SignedHeaders=")
            .expect("an authorization");
        assert_eq!(signed, vector["signed"], "{line}");
        let (service, region) = (stored.secret.service.name(), &stored.secret.region);
        let day = &fields["x-amz-date"][..8];
        assert_eq!(
            credential,
            format!(
                "AWS4-HMAC-SHA256 Credential={}/{day}/{region}/{service}/aws4_request",
                keys.id
            )
        );
        count += 1;
    }
    assert!(count >= 200, "{count}");
}

#[test]
fn awss_published_examples_are_signed_as_published() {
    let mut keys = Keys {
        id: "AKIDEXAMPLE".to_owned(),
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        token: String::new(),
    };
    let mut count = 0;
    for line in PUBLISHED.lines() {
        let vector = members(line);
        let fields: Vec<(&str, &str)> = vector["fields"]
            .lines()
            .map(|field| field.split_once(':').expect("a field"))
            .collect();
        let token = fields
            .iter()
            .find(|(name, _)| *name == "x-amz-security-token");
        keys.token = token.map_or_else(String::new, |(_, token)| (*token).to_owned());
        let request = Request {
            method: &vector["method"],
            path: &vector["path"],
            query: &vector["query"],
            fields: &fields,
            body: vector["body"].as_bytes(),
        };
        let scope = Scope {
            time: &vector["time"],
            region: &vector["region"],
            service: &vector["service"],
        };
        let authorization = sigv4::authorization(&request, scope, &keys);
        assert_eq!(authorization, vector["authorization"], "{line}");
        count += 1;
    }
    assert!(count >= 20, "{count}");
}
