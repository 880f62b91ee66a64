//! What the program prints for a person at a shell: options, settings, and what an answer to `--check` means.
//!
//! Only texts and choices are here; `shell/check.rs` does the check. Lambda starts us without arguments.

/// The action that an argument asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Print this text.
    Print(&'static str),
    /// Check whether profiles would arrive.
    Check,
}

/// The action that `argument` asks for; `None` if it is unknown.
#[must_use]
pub fn parse_argument(argument: &str) -> Option<Action> {
    match argument {
        "--help" | "-h" => Some(Action::Print(HELP)),
        "--version" | "-V" => Some(Action::Print(VERSION)),
        "--check" => Some(Action::Check),
        _ => None,
    }
}

/// The usage line.
macro_rules! usage {
    () => {
        "Usage: pyroscope-lambda-extension [--check | --help | --version]"
    };
}

/// The answer to an unknown argument. It does not quote the argument, which may hold a token.
pub const UNKNOWN: &str = concat!("Unknown argument. ", usage!());

/// The message outside of Lambda, where Lambda's variable is not set.
pub const NOT_LAMBDA: &str = "AWS_LAMBDA_RUNTIME_API is not set: this is not Lambda. \
    PYROSCOPE_DEV_MODE=true runs the relay alone, --help tells more.";

const VERSION: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n");

/// All options, and all settings with their defaults.
const HELP: &str = concat!(
    usage!(),
    "

Relays continuous profiles from an AWS Lambda function to Pyroscope; Lambda starts it as an
extension, without arguments.

  --check        says whether profiles would arrive, and if not, why: resolves, connects, shakes
                 hands, sends an empty profile; exits with 0 or 1
  -h, --help     this
  -V, --version  the version

Settings are environment variables. An empty one counts as unset. [Defaults]
Token, user, password, tenant and headers may be the ARN of a secret in Secrets Manager or of a
parameter in Parameter Store, or file:///path: they are read while the function runs.

  PYROSCOPE_REMOTE_ADDRESS       URL of the server, http or https; may hold port, path,
                                 user:password [https://profiles-prod-001.grafana.net]
  PYROSCOPE_AUTH_TOKEN           sent as 'Authorization: Bearer'
  PYROSCOPE_BASIC_AUTH_USER      sent as 'Authorization: Basic', with
  PYROSCOPE_BASIC_AUTH_PASSWORD  this; both are needed; the token wins
  PYROSCOPE_TENANT_ID            sent as X-Scope-OrgID
  PYROSCOPE_HTTP_HEADERS         a JSON object of strings: more headers for each request [{}]
  PYROSCOPE_TIMEOUT              one attempt, from name lookup to answer, like 300ms or 1m30s [10s]
  PYROSCOPE_NUM_WORKERS          connections to the server at once [5]
  PYROSCOPE_FLUSH_MODE           what the sandbox is kept awake for: none, invoke (until what was
                                 queued is sent), end (until the function is done and all is sent)
                                 [none]
  PYROSCOPE_FLUSH_ON_INVOKE      true: the same as PYROSCOPE_FLUSH_MODE=invoke [false]
  PYROSCOPE_UNIQUE_TIMES         false: leave the times of profiles as the SDK wrote them, and each
                                 body as it is [true]
  PYROSCOPE_LABELS               a JSON object of strings: labels for each profile; ${NAME} in
                                 a value is that variable [{}]
  PYROSCOPE_SAMPLE               the share of profiles to keep, above 0 and at most 1 [1]
  PYROSCOPE_SELF_PROFILING       true: profile the extension itself, too [false]
  PYROSCOPE_DEV_MODE             true: only relay, outside Lambda [false]
  PYROSCOPE_LISTEN_ADDRESS       where SDKs upload to [localhost:4040]
  PYROSCOPE_BUFFER_BYTES         most bytes of waiting profiles
                                 [an eighth of the function's memory, 8 to 64 MiB]
  HTTPS_PROXY, NO_PROXY          http:// proxy to reach an https server through, and where not to
                                 use it: names, addresses, networks; lower case too
  SSL_CERT_FILE, SSL_CERT_DIR    PEM file, directories of such: certificate authorities to trust

  PYROSCOPE_LOG_LEVEL                    error, warn, info, debug or trace [info]
  PYROSCOPE_LOG_FORMAT                   text or json [text]
  PYROSCOPE_LOG_TIMESTAMP_FORMAT         a layout of Go's time package [2006-01-02T15:04:05Z07:00]
  PYROSCOPE_LOG_TIMESTAMP_DISABLE        true: no time in log lines [false]
  PYROSCOPE_LOG_TIMESTAMP_FIELD_NAME     another name for the field [time]
  PYROSCOPE_LOG_LEVEL_FIELD_NAME         for [level]
  PYROSCOPE_LOG_MSG_FIELD_NAME           for [msg]
  PYROSCOPE_LOG_LOGRUS_ERROR_FIELD_NAME  for [logrus_error]
"
);

/// What the answer to an empty request means: whether profiles are accepted, and why; then, as a separate sentence,
/// what helps if they are not.
///
/// The server checks the credentials before the request, so an error about the request means that the credentials are
/// accepted. A page for a browser is never Pyroscope's answer to an upload, whatever its status.
#[must_use]
pub const fn verdict(status: u16, is_page: bool) -> (bool, &'static str) {
    match status {
        200..=299 | 400 | 415 | 422 if is_page => (
            false,
            "a web page answered, perhaps a login, and not Pyroscope. \
            Check host and path of PYROSCOPE_REMOTE_ADDRESS",
        ),
        200..=299 => (true, "profiles are welcome"),
        400 | 415 | 422 => (true, "profiles are welcome, unlike this empty one"),
        300..=399 => (
            false,
            "a redirect, and redirects are not followed. Check PYROSCOPE_REMOTE_ADDRESS",
        ),
        401 | 403 => (false, "refused "),
        404 | 405 => (
            false,
            "no Pyroscope here. Check host and path of PYROSCOPE_REMOTE_ADDRESS",
        ),
        407 => (false, "a proxy on the way wants credentials"),
        429 => (
            false,
            "the server is over its limit for now. Try again later, or raise the limit",
        ),
        408 | 500..=599 => (
            false,
            "the server, or a proxy before it, failed. Try again, then look at the server's log",
        ),
        _ => (
            false,
            "refused, which Pyroscope would not do to an empty profile. Check PYROSCOPE_REMOTE_ADDRESS",
        ),
    }
}

/// Recognizes the answer to a plain HTTP request on a TLS port: a text from Go's server and nginx, a TLS alert from
/// others.
#[must_use]
pub fn wants_tls(answer: &[u8]) -> bool {
    const ALERT: u8 = 21;
    answer.first() == Some(&ALERT) || answer.windows(5).any(|word| word == b"HTTPS")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    /// Every variable that is read, when all are unset or all are set.
    fn variables() -> BTreeSet<String> {
        let names = RefCell::new(BTreeSet::new());
        for value in [None, Some("1".to_owned())] {
            let _ = Config::read(|name| {
                names.borrow_mut().insert(name.to_owned());
                value.clone()
            });
        }
        names.into_inner()
    }

    #[test]
    fn help_names_every_setting_and_no_other() {
        let table = HELP.split_once("[Defaults]").unwrap().1;
        let named: BTreeSet<String> = table
            .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
            .filter(|word| word.len() > 1 && word.contains('_'))
            .map(str::to_owned)
            .collect();
        let mut read = variables();
        read.retain(|name| !name.starts_with("AWS_")); // Lambda's own
        read.retain(|name| !name.ends_with("_proxy")); // said to be the same as in capitals
        assert_eq!(named, read);
    }

    #[test]
    fn help_fits_the_screen() {
        for line in HELP.lines() {
            assert!(line.chars().count() <= 100, "{line}");
            assert_eq!(line.trim_end(), line);
        }
    }

    #[test]
    fn arguments() {
        assert_eq!(parse_argument("--version"), Some(Action::Print(VERSION)));
        assert_eq!(parse_argument("-V"), parse_argument("--version"));
        assert_eq!(parse_argument("-h"), parse_argument("--help"));
        assert_eq!(parse_argument("--check"), Some(Action::Check));
        for other in ["", "-", "check", "--check=1", "--HELP", "-v"] {
            assert_eq!(parse_argument(other), None);
        }
    }

    #[test]
    fn verdicts() {
        for status in [200, 204, 400, 415, 422] {
            assert!(verdict(status, false).0, "{status}");
            assert!(!verdict(status, true).0, "{status}");
        }
        for status in [301, 401, 403, 404, 405, 407, 408, 413, 418, 429, 500, 503] {
            assert!(!verdict(status, false).0, "{status}");
        }
        assert!(wants_tls(&[21, 3, 3, 0, 2]));
        assert!(wants_tls(
            b"Client sent an HTTP request to an HTTPS server.\n"
        ));
        assert!(!wants_tls(b"{\"code\":\"invalid_argument\"}"));
    }
}
