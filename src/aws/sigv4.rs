//! Signature Version 4: proves to AWS who sends a request, without sending the key.
//!
//! As in AWS's *Signature Version 4 signing process*: the request is written in a canonical form, and signed with a key
//! derived from the secret key for one day, one region and one service.

use ring::{digest, hmac};

use crate::http1::write::percent_encoded;

/// AWS's format of the signing time, a layout for [`crate::log::time::write`].
pub const TIME_LAYOUT: &str = "20060102T150405Z";

/// The length of its first part, the day.
const DAY_BYTES: usize = 8;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The AWS keys of the sender.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// `AWS_SESSION_TOKEN`, empty if there is none.
    pub token: String,
}

/// The request to sign.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The method.
    pub method: &'r str,
    /// The path as it is sent, from its first slash.
    pub path: &'r str,
    /// The query as it is signed: encoded and sorted.
    pub query: &'r str,
    /// The fields to sign, with lower-case names, sorted by name; values without blanks around them.
    pub fields: &'r [(&'r str, &'r str)],
    /// The body.
    pub body: &'r [u8],
}

/// When and where a signature is valid.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'s> {
    /// The time, in [`TIME_LAYOUT`]; sent as `X-Amz-Date`.
    pub time: &'s str,
    /// The region.
    pub region: &'s str,
    /// The service's name in signatures.
    pub service: &'s str,
}

impl Scope<'_> {
    fn day(&self) -> &str {
        self.time.get(..DAY_BYTES).unwrap_or_default()
    }

    fn words(&self) -> String {
        [
            self.day(),
            "/",
            self.region,
            "/",
            self.service,
            "/aws4_request",
        ]
        .concat()
    }
}

/// The value of the request's `Authorization`.
#[must_use]
pub fn authorization(request: &Request, scope: Scope, keys: &Keys) -> String {
    let (canonical, names) = canonical(request);
    let words = scope.words();
    let hash = hex(hash(canonical.as_bytes()).as_ref());
    let to_sign = [ALGORITHM, "\n", scope.time, "\n", &words, "\n", &hash].concat();
    let signature = hex(sign(key(scope, keys).as_ref(), to_sign.as_bytes()).as_ref());
    [
        ALGORITHM,
        " Credential=",
        &keys.id,
        "/",
        &words,
        ", SignedHeaders=",
        &names,
        ", Signature=",
        &signature,
    ]
    .concat()
}

/// The canonical request, and the names of the signed fields.
fn canonical(request: &Request) -> (String, String) {
    let mut path = String::new();
    // The path is encoded twice here, as it is already encoded once in the request; only S3 differs.
    for byte in request.path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            for digit in percent_encoded(byte) {
                path.push(char::from(digit));
            }
        }
    }
    let (mut lines, mut names) = (String::new(), String::new());
    for (name, value) in request.fields {
        lines += &[name, ":", value, "\n"].concat();
        if !names.is_empty() {
            names.push(';');
        }
        names += name;
    }
    let canonical = [
        request.method,
        "\n",
        &path,
        "\n",
        request.query,
        "\n",
        &lines,
        "\n",
        &names,
        "\n",
        &hex(hash(request.body).as_ref()),
    ];
    (canonical.concat(), names)
}

/// The key for that scope.
fn key(scope: Scope, keys: &Keys) -> hmac::Tag {
    let secret = ["AWS4", &keys.secret].concat();
    let mut key = sign(secret.as_bytes(), scope.day().as_bytes());
    for part in [scope.region, scope.service, "aws4_request"] {
        key = sign(key.as_ref(), part.as_bytes());
    }
    key
}

fn sign(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

fn hash(text: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, text)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::new();
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(DIGITS[usize::from(nibble)]));
        }
    }
    out
}
