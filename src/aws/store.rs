//! Secrets Manager and Parameter Store: the request for a secret, and its answer. Also how a sandbox restored from a
//! snapshot gets its keys.
//!
//! Only known words of an answer are logged: an endpoint may belong to anyone, and may quote the keys it received.

use crate::http1::fields::is_field_value;
use crate::http1::write::{field, number};
use crate::json::{self, Value};
use crate::log::time;

use super::sigv4::{self, Keys, Request, Scope};

/// Most bytes of an answer's body. Secrets Manager limits a secret to 64 KiB, and JSON may escape it.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The error codes that may be logged: AWS's own words, one per line.
const CODES: &str = "\
AccessDeniedException
ResourceNotFoundException
ParameterNotFound
ParameterVersionNotFound
ThrottlingException
TooManyRequestsException
DecryptionFailure
InvalidKeyId
InternalServiceError
InternalServerError
InternalFailure
ServiceUnavailable
InvalidParameterException
InvalidRequestException
ValidationException
UnrecognizedClientException
InvalidClientTokenId
ExpiredTokenException
ExpiredToken
InvalidSignatureException
SignatureDoesNotMatch
IncompleteSignature
MissingAuthenticationToken
RequestExpired
OptInRequired";

/// The error when there are no keys to sign with.
pub const NO_KEYS: &str = "no AWS keys: AWS_ACCESS_KEY_ID is not set";

/// The error for a file that is not text.
pub const NOT_TEXT: &str = "it is not text";

/// The AWS services that keep secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// AWS Secrets Manager.
    SecretsManager,
    /// AWS Systems Manager's Parameter Store.
    Ssm,
}

impl Service {
    /// Its name in ARNs, in addresses and in signatures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager",
            Self::Ssm => "ssm",
        }
    }

    const fn target(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager.GetSecretValue",
            Self::Ssm => "AmazonSSM.GetParameter",
        }
    }

    const fn permission(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager:GetSecretValue",
            Self::Ssm => "ssm:GetParameter",
        }
    }
}

/// One secret in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The service.
    pub service: Service,
    /// Its region.
    pub region: String,
    /// The JSON object that names it in a request.
    pub body: String,
}

impl Secret {
    /// The request for it at the endpoint with that authority and path, signed at that time.
    #[must_use]
    pub fn request(&self, authority: &str, path: &str, keys: &Keys, unix_ms: u64) -> Vec<u8> {
        let mut time = Vec::new();
        time::write(&mut time, sigv4::TIME_LAYOUT, unix_ms);
        let time = str::from_utf8(&time).unwrap_or_default();
        let path = whole(path);
        let mut fields = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", authority),
            ("x-amz-date", time),
            ("x-amz-security-token", keys.token.as_str()),
            ("x-amz-target", self.service.target()),
        ];
        fields.retain(|(_, value)| !value.is_empty());
        let body = self.body.as_bytes();
        let request = Request {
            method: "POST",
            path,
            query: "",
            fields: &fields,
            body,
        };
        let scope = Scope {
            time,
            region: &self.region,
            service: self.service.name(),
        };
        let authorization = sigv4::authorization(&request, scope, keys);
        fields.push(("authorization", &authorization));
        let mut out = start("POST ", path);
        for (name, value) in fields {
            field(&mut out, name.as_bytes(), value.as_bytes());
        }
        out.extend_from_slice(b"content-length: ");
        number(&mut out, body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
        out
    }

    /// Its value in an answer.
    ///
    /// # Errors
    /// Why there is none, as text for the log.
    pub fn value(&self, status: u16, body: &[u8]) -> Result<String, String> {
        let text = str::from_utf8(body).unwrap_or_default();
        if status != 200 {
            return Err(self.refusal(status, text));
        }
        match self.service {
            Service::SecretsManager if member(text, "SecretBinary").is_some() => {
                Err("the secret is binary, not text".to_owned())
            }
            Service::SecretsManager => member(text, "SecretString").ok_or_else(not_understood),
            Service::Ssm => member(text, "Parameter")
                .and_then(|parameter| member(&parameter, "Value"))
                .ok_or_else(not_understood),
        }
    }

    /// AWS's error code, and what may help.
    fn refusal(&self, status: u16, text: &str) -> String {
        let kind = member(text, "__type").unwrap_or_default();
        // Some services put the error's origin before it.
        let kind = kind.rsplit('#').next().unwrap_or_default();
        let code = CODES.split('\n').find(|code| *code == kind);
        let code = code.unwrap_or_default();
        let message = member(text, "Message").or_else(|| member(text, "message"));
        let message = message.unwrap_or_default();
        if code.is_empty() {
            return ["status ", &status.to_string()].concat();
        }
        let contains = |words: &str| {
            let mut parts = message.as_bytes().windows(words.len().max(1));
            words.is_empty() || parts.any(|part| part == words.as_bytes())
        };
        let hint = HINTS
            .iter()
            .find(|hint| hint.code == code && contains(hint.word));
        let (hint, permission) = match hint {
            Some(hint) if hint.text.ends_with(' ') => (hint.text, self.service.permission()),
            Some(hint) => (hint.text, ""),
            None => ("", ""),
        };
        [code, hint, permission].concat()
    }
}

/// What helps with an error.
struct Hint {
    code: &'static str,
    /// A word in AWS's message.
    word: &'static str,
    /// If it ends with a blank, the service's permission follows.
    text: &'static str,
}

const KMS: &str = ", the function's role needs the permission kms:Decrypt for its key";
const CLOCK: &str = ", the clock of this machine is off";

const NOT_FOUND: &str = ", nothing has this ARN: check its name, region and account";

/// The first match counts. The stores call KMS on behalf of the function.
const HINTS: [Hint; 9] = [
    hint("AccessDeniedException", "kms:", KMS),
    hint("AccessDeniedException", "KMS", KMS),
    hint("AccessDeniedException", "ciphertext", KMS),
    // Permissions of the service itself follow.
    hint(
        "AccessDeniedException",
        "",
        ", the function's role needs the permission ",
    ),
    hint("InvalidSignatureException", "Signature expired", CLOCK),
    hint("InvalidSignatureException", "not yet current", CLOCK),
    hint("ResourceNotFoundException", "", NOT_FOUND),
    hint("ParameterNotFound", "", NOT_FOUND),
    hint("ParameterVersionNotFound", "", NOT_FOUND),
];

const fn hint(code: &'static str, word: &'static str, text: &'static str) -> Hint {
    Hint { code, word, text }
}

fn not_understood() -> String {
    "the answer is not one of this service".to_owned()
}

/// The request for keys, if Lambda gives none in the environment.
#[must_use]
pub fn keys_request(authority: &str, path: &str, token: Option<&str>) -> Vec<u8> {
    let mut out = start("GET ", whole(path));
    field(&mut out, b"host", authority.as_bytes());
    if let Some(token) = token {
        field(&mut out, b"authorization", token.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The keys in an answer.
///
/// # Errors
/// Why there are none, as text for the log.
pub fn keys(status: u16, body: &[u8]) -> Result<Keys, String> {
    if status != 200 {
        return Err(["no AWS keys: status ", &status.to_string()].concat());
    }
    let text = str::from_utf8(body).unwrap_or_default();
    let member = |name| member(text, name).filter(|value| is_field_value(value.as_bytes()));
    match (member("AccessKeyId"), member("SecretAccessKey")) {
        (Some(id), Some(secret)) => Ok(Keys {
            id,
            secret,
            token: member("Token").unwrap_or_default(),
        }),
        _ => Err("no AWS keys: the answer has none".to_owned()),
    }
}

/// The member of that name in a JSON object: a string or number as text, an object as it is written.
#[must_use]
pub fn member(object: &str, name: &str) -> Option<String> {
    let mut found = None;
    let parsed = json::object(object, |other, value| {
        if other == name {
            found = match value {
                Value::String(text) => Some(text.into_owned()),
                Value::Number(text) | Value::Nested(text) => Some(text.to_owned()),
                Value::Other => None,
            };
        }
    });
    found.filter(|_| parsed.is_ok())
}

/// The path as it is sent: an endpoint's may be empty.
const fn whole(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// The start of every request. Each has its own connection, because the next one usually goes to another host or comes
/// an hour later.
fn start(method: &str, path: &str) -> Vec<u8> {
    let mut out = [method, path, " HTTP/1.1\r\n"].concat().into_bytes();
    let program = concat!("pyroscope-lambda-extension/", env!("CARGO_PKG_VERSION"));
    field(&mut out, b"user-agent", program.as_bytes());
    field(&mut out, b"connection", b"close");
    out
}
