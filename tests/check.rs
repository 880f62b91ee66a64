//! What a person at a shell is told: `--help`, `--version`, and whether `--check` finds what is wrong, and tells no secret.

#![expect(clippy::disallowed_methods, reason = "waits are measured here")]

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::version::{TLS12, TLS13};
use socket2::{Domain, Socket, Type};
use support::certificates::{Authority, OUR_NAMES, pem_file};
use support::extensions_api::ExtensionsApi;
use support::monitor::GUARD;
use support::play::{Gate, Play, Step, response};
use support::proxy::{ESTABLISHED, Manner, Proxy};
use support::pyroscope::{Pyroscope, Tls};
use support::sandbox::{ReservedPort, Sandbox, runner};

/// Part of every value that nobody may see: as it is, percent-encoded, and how Basic credentials begin.
const SECRETS: [&str; 3] = ["s3cret", "s3c%72et", "dXMzci1z"];

/// The tests may be told to try another one.
fn binary() -> String {
    let built = env!("CARGO_BIN_EXE_pyroscope-lambda-extension");
    std::env::var("EXTENSION_BINARY").unwrap_or_else(|_| built.to_owned())
}

/// Runs the binary with these arguments in this environment and nothing else.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(arguments, variables);
    command.output().expect("the binary to run")
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut words = runner();
    words.push(binary());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
}

/// The same, on a terminal: what is seen there.
fn run_on_terminal(arguments: &[&str], variables: &[(&str, &str)]) -> (ExitStatus, String) {
    let terminal = openpty(None, None).expect("a terminal");
    let stdout = terminal.slave.try_clone().expect("a descriptor");
    let mut command = command(arguments, variables);
    let mut child = command
        .stdout(stdout)
        .stderr(terminal.slave)
        .spawn()
        .expect("the binary to run");
    drop(command); // and with it our side of what the child writes to
    let mut seen = Vec::new();
    // Ends with an error once nobody has the other side: what was read until then counts.
    let _ = File::from(terminal.master).read_to_end(&mut seen);
    let status = child.wait().expect("its exit status");
    let text = String::from_utf8(seen).expect("text");
    (status, text.replace("\r\n", "\n"))
}

/// What `--check` said.
struct Told {
    status: Option<i32>,
    /// Line by line, one for each step.
    text: String,
    /// The last line.
    verdict: String,
}

/// Runs `--check`, and sees that no secret is told, and that the verdict and the exit status agree.
#[track_caller]
fn check(variables: &[(&str, &str)]) -> Told {
    let output = run(&["--check"], variables);
    assert_eq!(output.stderr, b"", "all is on standard output");
    let text = String::from_utf8(output.stdout).expect("text");
    println!("{text}"); // for who reads the test's output
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }
    assert!(
        !text.replace('\n', "").contains(char::is_control),
        "{text:?}"
    );
    let end = text.trim_end().rfind('\n').map_or(0, |end| end + 1);
    let (text, verdict) = text.split_at(end);
    for line in text.lines() {
        assert!(
            line.chars().nth(10).is_some_and(|c| c != ' ') && line.chars().nth(9) == Some(' '),
            "not aligned: {line}"
        );
    }
    let agreed = if verdict.starts_with("Profiles would arrive") {
        0
    } else {
        assert!(verdict.starts_with("Profiles would not arrive: "));
        1
    };
    assert_eq!(output.status.code(), Some(agreed), "{verdict}");
    assert!(verdict.ends_with(".\n"), "{verdict}");
    Told {
        status: output.status.code(),
        text: text.to_owned(),
        verdict: verdict.trim_end().to_owned(),
    }
}

impl Told {
    /// The steps and how they went, such as `connect ok`.
    fn steps(&self) -> Vec<String> {
        let words = |line: &str| {
            let mut words = line.split_whitespace().take(2);
            [words.next().unwrap_or(""), words.next().unwrap_or("")].join(" ")
        };
        self.text.lines().map(words).collect()
    }

    /// All is well.
    #[track_caller]
    fn expect_good(&self) {
        assert_eq!(self.status, Some(0), "{}", self.text);
        assert!(self.steps().iter().all(|step| step.ends_with(" ok")));
        assert_eq!(self.steps().last().map(String::as_str), Some("answer ok"));
        assert_eq!(self.verdict, "Profiles would arrive.");
    }

    /// Profiles would not arrive, for this reason.
    #[track_caller]
    fn expect_verdict(&self, reason: &str) {
        assert_eq!(
            self.verdict,
            format!("Profiles would not arrive: {reason}.")
        );
    }

    /// Exactly one step is bad, and its line holds all of `parts`; so does the verdict.
    #[track_caller]
    fn expect_bad(&self, step: &str, parts: &[&str]) {
        assert_eq!(self.status, Some(1), "{}", self.text);
        self.expect_bad_line(step, parts);
        let (_, reason) = self.text.rsplit_once(" bad  ").expect("a bad line");
        assert!(self.verdict.contains(reason.trim_end()), "{}", self.verdict);
    }

    /// Exactly one step is bad, and its line holds all of `parts`.
    #[track_caller]
    fn expect_bad_line(&self, step: &str, parts: &[&str]) {
        let bad: Vec<&str> = (self.text.lines())
            .filter(|line| line.split_whitespace().nth(1) == Some("bad"))
            .collect();
        assert_eq!(bad.len(), 1, "bad lines in:\n{}", self.text);
        assert!(bad[0].starts_with(step), "{}", bad[0]);
        for part in parts {
            assert!(bad[0].contains(part), "{part} in: {}", bad[0]);
        }
    }
}

/// A server at this address, a timeout above what any answer takes, and more.
fn settings<'v>(address: &'v str, more: &[(&'v str, &'v str)]) -> Vec<(&'v str, &'v str)> {
    let mut all = vec![
        ("PYROSCOPE_REMOTE_ADDRESS", address),
        ("PYROSCOPE_TIMEOUT", "30s"),
    ];
    all.extend_from_slice(more);
    all
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a path in UTF-8")
}

const USAGE: &str = "Usage: pyroscope-lambda-extension [--check | --help | --version]";

#[test]
fn help_and_version_are_printed() {
    let help = run(&["--help"], &[]);
    assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0));
    let text = String::from_utf8(help.stdout).expect("text");
    for word in ["--check", "PYROSCOPE_REMOTE_ADDRESS", "[10s]"] {
        assert!(text.contains(word), "{word} in:\n{text}");
    }
    assert!(text.starts_with(&format!("{USAGE}\n\n")), "{text}");
    assert_eq!(run(&["-h"], &[]).stdout, text.as_bytes());
    for argument in ["--version", "-V"] {
        let version = run(&[argument], &[]);
        assert_eq!(version.status.code(), Some(0));
        let told = format!("pyroscope-lambda-extension {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(version.stdout, told.as_bytes());
    }
}

/// Even where everything is set for a run: it is not begun, and what was written is not repeated.
#[test]
fn other_arguments_are_refused() {
    let lambda = ExtensionsApi::start();
    let address = lambda.address();
    let variables = [("AWS_LAMBDA_RUNTIME_API", address.as_str())];
    for arguments in [
        &["--token=s3cret"][..],
        &["check"],
        &["--check", "--check"],
        &[""],
    ] {
        let output = run(arguments, &variables);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(text, format!("Unknown argument. {USAGE}\n"));
    }
}

/// What is no log is no log line: only where a machine may read it.
#[test]
fn on_a_terminal_errors_are_sentences() {
    let not_lambda = "AWS_LAMBDA_RUNTIME_API is not set: this is not Lambda. \
        PYROSCOPE_DEV_MODE=true runs the relay alone, --help tells more.\n";
    let (status, text) = run_on_terminal(&[], &[]);
    assert_eq!((status.code(), text.as_str()), (Some(1), not_lambda));
    let (status, text) = run_on_terminal(&["--chekc"], &[]);
    let unknown = format!("Unknown argument. {USAGE}\n");
    assert_eq!((status.code(), text), (Some(2), unknown));
    let logged = run(&[], &[]).stderr;
    assert!(logged.starts_with(b"time="), "{logged:?}");
}

/// A value that does not say true is the likeliest reason why there is no Lambda.
#[test]
fn a_dev_mode_that_does_not_say_true_is_named() {
    let variables = [("PYROSCOPE_DEV_MODE", "yes")];
    let problem = "PYROSCOPE_DEV_MODE \"yes\" is neither true nor false, using the default false\n";
    let (status, text) = run_on_terminal(&[], &variables);
    assert_eq!(status.code(), Some(1));
    assert!(text.starts_with(problem), "{text}");
    let logged = String::from_utf8(run(&[], &variables).stderr).expect("text");
    assert_eq!(logged.lines().count(), 2, "{logged}");
    assert!(logged.contains("neither true nor false"), "{logged}");
}

/// Red and green, on a terminal alone, unless `NO_COLOR` is set to something (no-color.org).
#[test]
fn on_a_terminal_the_verdict_is_in_colour() {
    let server = Pyroscope::http();
    let (good, bad) = (server.url(), "nonsense");
    for (address, mark, verdict, rest) in [
        (
            good.as_str(),
            "answer    \x1b[32mok   \x1b[0mstatus 200",
            "\x1b[32mProfiles would arrive\x1b[0m.\n",
            "",
        ),
        (
            bad,
            "settings  \x1b[31mbad  \x1b[0mPYROSCOPE_REMOTE_ADDRESS is",
            "\x1b[31mProfiles would not arrive\x1b[0m: PYROSCOPE_REMOTE_ADDRESS is",
            "lost.\n",
        ),
    ] {
        for empty in [&[][..], &[("NO_COLOR", "")]] {
            let (_, text) = run_on_terminal(&["--check"], &settings(address, empty));
            assert!(text.contains(mark) && text.contains(verdict), "{text:?}");
            assert!(text.ends_with(rest), "{text:?}");
        }
        let plain = [("NO_COLOR", "1")];
        let (_, text) = run_on_terminal(&["--check"], &settings(address, &plain));
        assert!(!text.contains('\x1b'), "{text:?}");
        let told = check(&settings(address, &[]));
        assert_eq!(text, format!("{}{}\n", told.text, told.verdict));
    }
}

#[test]
fn without_lambda_help_is_pointed_at() {
    let output = run(&[], &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("AWS_LAMBDA_RUNTIME_API") && text.contains("--help"));
}

/// The request is the one a relayed profile makes, but for the profile.
#[test]
fn a_good_server() {
    let server = Pyroscope::http();
    let address = format!("{}/base/", server.url());
    let told = check(&settings(
        &address,
        &[
            ("PYROSCOPE_AUTH_TOKEN", "t0ken-s3cret"),
            ("PYROSCOPE_TENANT_ID", "t3nant-s3cret"),
            ("PYROSCOPE_HTTP_HEADERS", r#"{"X-More":"h3ader-s3cret"}"#),
        ],
    ));
    told.expect_good();
    let used = "with credentials from PYROSCOPE_AUTH_TOKEN, PYROSCOPE_TENANT_ID";
    assert!(told.text.contains(used));
    assert_eq!(
        told.steps(),
        [
            "settings ok",
            "name ok",
            "connect ok",
            "request ok",
            "answer ok"
        ]
    );
    let request = server.wait_only();
    assert_eq!(request.target(), "/base/push.v1.PusherService/Push");
    assert_eq!(request.payload(), b"");
    for (name, value) in [
        ("Host", server.host().as_str()),
        ("Authorization", "Bearer t0ken-s3cret"),
        ("X-Scope-OrgID", "t3nant-s3cret"),
        ("X-More", "h3ader-s3cret"),
        ("X-Forwarded-Host", "localhost:4040"),
        ("Content-Type", "application/proto"),
        ("Content-Length", "0"),
    ] {
        assert_eq!(request.header(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn a_good_server_over_tls() {
    for (version, words) in [(&TLS12, "version 1.2"), (&TLS13, "version 1.3")] {
        let authority = Authority::new("Bench Root");
        let server = Pyroscope::https(Tls::by(&authority).only(version));
        let roots = authority.pem_file();
        let roots = ("SSL_CERT_FILE", path(roots.path()));
        let told = check(&settings(&server.url(), &[roots]));
        told.expect_good();
        for part in [
            words,
            "trusted by a built-in root or SSL_CERT_FILE",
            "1 from SSL_CERT_FILE",
        ] {
            assert!(told.text.contains(part), "{part} in:\n{}", told.text);
        }
        server.wait_only();
    }
}

/// Pyroscope finds fault with an empty profile, after it has let us in.
#[test]
fn answers_that_mean_that_it_works() {
    for status in [200, 202, 204, 400, 415, 422] {
        let server = Pyroscope::http();
        let body: &[u8] = br#"{"code":"invalid_argument","message":"no profiles received"}"#;
        let body = if status == 204 { b"" } else { body };
        server.always(Play::raw(response(status, &[], body)));
        let told = check(&settings(&server.url(), &[]));
        told.expect_good();
        assert!(told.text.contains(&format!("status {status}")));
    }
}

#[test]
fn answers_that_mean_that_it_does_not() {
    let look = "Check host and path of PYROSCOPE_REMOTE_ADDRESS";
    let other =
        "refused, which Pyroscope would not do to an empty profile. Check PYROSCOPE_REMOTE_ADDRESS";
    let nothing = format!("no Pyroscope here. {look}");
    let limit = "the server is over its limit for now. Try again later, or raise the limit";
    let fails =
        "the server, or a proxy before it, failed. Try again, then look at the server's log";
    for (status, reason) in [
        (404, nothing.as_str()),
        (405, &nothing),
        (413, other),
        (429, limit),
        (500, fails),
        (502, fails),
        (503, fails),
    ] {
        let server = Pyroscope::http();
        server.always(Play::answer(status));
        let told = check(&settings(&server.url(), &[]));
        told.expect_bad("answer", &[&format!("status {status}")]);
        told.expect_verdict(&format!("status {status}; {reason}"));
    }
}

/// Those that are on the relay's list: any others may be what we sent.
#[test]
fn the_servers_words() {
    for (status, body, words) in [
        (
            503,
            "no healthy upstream",
            "status 503: no healthy upstream; the server",
        ),
        (
            500,
            "s3cret: empty ring for t0ken-s3cret",
            "status 500: empty ring; the server",
        ),
        (
            404,
            "404 page not found",
            "status 404: 404 page not found; no Pyroscope",
        ),
        (502, "t0ken-s3cret", "status 502; the server"),
    ] {
        let server = Pyroscope::http();
        server.always(Play::raw(response(status, &[], body.as_bytes())));
        let token = [("PYROSCOPE_AUTH_TOKEN", "t0ken-s3cret")];
        check(&settings(&server.url(), &token)).expect_bad("answer", &[words]);
    }
}

/// Though they come after much else, piece by piece.
#[test]
fn the_servers_words_at_the_end_of_a_long_answer() {
    let server = Pyroscope::http();
    let body = " ".repeat(3000) + "no healthy upstream";
    server.always(Play::bytewise(response(503, &[], body.as_bytes())));
    let told = check(&settings(&server.url(), &[]));
    told.expect_bad("answer", &["status 503: no healthy upstream; the server"]);
}

/// What a login answers with, or a server of web pages. Pyroscope says what it says as JSON, protobuf or plain text, or
/// says nothing.
#[test]
fn a_page_is_not_pyroscopes_answer() {
    let html = "<!doctype html><title>Log in</title>";
    for (status, kind) in [
        (200, "text/html; charset=utf-8"),
        (200, "Text/HTML"),
        (201, "application/xhtml+xml"),
        (400, "text/html"),
    ] {
        let server = Pyroscope::http();
        let fields = [("Content-Type", kind)];
        server.always(Play::raw(response(status, &fields, html.as_bytes())));
        let told = check(&settings(&server.url(), &[]));
        told.expect_bad("answer", &["a web page answered, "]);
        told.expect_verdict(&format!(
            "status {status}; a web page answered, perhaps a login, and not Pyroscope. \
             Check host and path of PYROSCOPE_REMOTE_ADDRESS"
        ));
    }
    for (status, kind, body) in [
        (200, "application/proto", ""),
        (200, "application/json", "{}"),
        (200, "text/plain; charset=utf-8", "OK"),
        (200, "", html),
        (204, "", ""),
    ] {
        let server = Pyroscope::http();
        let fields = [("Content-Type", kind)];
        server.always(Play::raw(response(status, &fields, body.as_bytes())));
        check(&settings(&server.url(), &[])).expect_good();
    }
}

#[test]
fn a_redirect_is_told_without_what_may_be_secret_in_it() {
    let server = Pyroscope::http();
    let location = "https://us3r-s3cret:passw0rd-s3cret@else.where/login?t=s3cret#s3cret";
    server.always(Play::raw(response(302, &[("Location", location)], b"")));
    let told = check(&settings(&server.url(), &[]));
    told.expect_bad("answer", &["status 302"]);
    told.expect_verdict(
        "status 302: https://else.where/login; a redirect, and redirects are not followed. \
         Check PYROSCOPE_REMOTE_ADDRESS",
    );
}

/// The variables that were used are named, and no others.
#[test]
fn refused_credentials() {
    let basic = [
        ("PYROSCOPE_BASIC_AUTH_USER", "us3r-s3cret"),
        ("PYROSCOPE_BASIC_AUTH_PASSWORD", "passw0rd-s3cret"),
    ];
    let token = ("PYROSCOPE_AUTH_TOKEN", "t0ken-s3cret");
    let tenant = ("PYROSCOPE_TENANT_ID", "t3nant-s3cret");
    let header = |name| ("PYROSCOPE_HTTP_HEADERS", name);
    let both = "PYROSCOPE_BASIC_AUTH_USER and PYROSCOPE_BASIC_AUTH_PASSWORD";
    for (more, named) in [
        (vec![token], "from PYROSCOPE_AUTH_TOKEN"),
        (vec![basic[0], basic[1], token], "from PYROSCOPE_AUTH_TOKEN"),
        (basic.to_vec(), &format!("from {both}")),
        (vec![tenant], "from PYROSCOPE_TENANT_ID"),
        (
            vec![token, tenant],
            "from PYROSCOPE_AUTH_TOKEN, PYROSCOPE_TENANT_ID",
        ),
        (
            vec![token, header(r#"{"authorization":"h3ader-s3cret"}"#)],
            "from PYROSCOPE_HTTP_HEADERS",
        ),
        (
            vec![token, header(r#"{"X-Other":"h3ader-s3cret"}"#)],
            "from PYROSCOPE_AUTH_TOKEN",
        ),
        (vec![], "without credentials (none are set)"),
    ] {
        for status in [401, 403] {
            let server = Pyroscope::http();
            let body = b"t0ken-s3cret, passw0rd-s3cret and t3nant-s3cret are wrong";
            server.always(Play::raw(response(status, &[], body)));
            let told = check(&settings(&server.url(), &more));
            told.expect_bad("answer", &[&format!("status {status}"), "refused"]);
            assert!(told.text.ends_with(&format!("{named}\n")), "{}", told.text);
            let advice = if more.iter().all(|set| *set == tenant) {
                "Set PYROSCOPE_AUTH_TOKEN, or PYROSCOPE_BASIC_AUTH_USER and PYROSCOPE_BASIC_AUTH_PASSWORD"
            } else {
                "Check user, password or token, and that they may write profiles"
            };
            let end = format!("{named}. {advice}.");
            assert!(told.verdict.ends_with(&end), "{}", told.verdict);
        }
    }
}

#[test]
fn refused_credentials_of_the_address() {
    let server = Pyroscope::http();
    server.always(Play::answer(401));
    let address = format!("http://us3r-s3cret:s3c%72et@{}", server.host());
    let told = check(&settings(&address, &[]));
    told.expect_bad("answer", &["the user in PYROSCOPE_REMOTE_ADDRESS"]);
}

#[test]
fn half_of_basic_authorization() {
    const USER: &str = "PYROSCOPE_BASIC_AUTH_USER";
    const PASSWORD: &str = "PYROSCOPE_BASIC_AUTH_PASSWORD";
    for (set, missing) in [(USER, PASSWORD), (PASSWORD, USER)] {
        let server = Pyroscope::http();
        server.next(Play::answer(401));
        let url = server.url();
        let half = settings(&url, &[(set, "us3r-s3cret")]);
        let problem = format!("{missing} is not set, so {set} is not used");
        let told = check(&half);
        assert!(told.text.contains(&format!("settings  bad  {problem}\n")));
        told.expect_verdict(&format!(
            "status 401; refused without credentials (none are set). {problem}"
        ));
        // Of a server that lets everybody in the truth is another.
        let told = check(&half);
        told.expect_bad_line("settings", &[&problem]);
        let verdict = format!("Profiles would arrive, but {problem}.");
        assert_eq!((told.status, told.verdict), (Some(0), verdict));
    }
}

/// It is not what a server refuses credentials for.
#[test]
fn another_bad_setting_is_not_why_credentials_are_refused() {
    let server = Pyroscope::http();
    server.always(Play::answer(401));
    let more = [
        ("PYROSCOPE_NUM_WORKERS", "many"),
        ("PYROSCOPE_AUTH_TOKEN", "t0ken-s3cret"),
    ];
    check(&settings(&server.url(), &more)).expect_verdict(
        "status 401; refused with credentials from PYROSCOPE_AUTH_TOKEN. Check user, password or token, \
         and that they may write profiles",
    );
}

#[test]
fn a_closed_port() {
    let port = ReservedPort::new();
    for host in ["127.0.0.1", "localhost"] {
        let told = check(&settings(&format!("http://{host}:{}", port.number), &[]));
        told.expect_bad("connect", &[host]);
        let refused = format!("127.0.0.1:{}: connection refused", port.number);
        assert!(told.text.contains(&refused), "{}", told.text);
        told.expect_verdict(&format!(
            "{host}:{} cannot be reached: connection refused. Check PYROSCOPE_REMOTE_ADDRESS: host and port",
            port.number
        ));
    }
}

/// However its address is written, and whether it runs or not.
#[test]
fn the_relay_itself() {
    let port = ReservedPort::new().number;
    let listen = format!("127.0.0.1:{port}");
    let mut relay = None;
    for _ in 0..2 {
        for host in ["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"] {
            let address = format!("http://{host}:{port}");
            let told = check(&settings(
                &address,
                &[("PYROSCOPE_LISTEN_ADDRESS", &listen)],
            ));
            told.expect_bad(
                "connect",
                &["PYROSCOPE_REMOTE_ADDRESS is this relay itself"],
            );
            told.expect_verdict(
                "PYROSCOPE_REMOTE_ADDRESS is this relay itself. It must lead to the server",
            );
        }
        let proxy = format!("http://0.0.0.0:{port}");
        let more = [
            ("PYROSCOPE_LISTEN_ADDRESS", &*listen),
            ("HTTPS_PROXY", &*proxy),
        ];
        let told = check(&settings("https://profiles.example", &more));
        told.expect_bad("connect", &["HTTPS_PROXY is this relay itself"]);
        let lambda = ExtensionsApi::start();
        let sandbox = Sandbox::new()
            .lambda(&lambda)
            .set("PYROSCOPE_LISTEN_ADDRESS", listen.as_str());
        relay.get_or_insert_with(|| sandbox.listening());
    }
}

/// Whatever this machine's resolver says about it; it may take its time.
#[test]
fn an_unknown_host() {
    let timeout = ("PYROSCOPE_TIMEOUT", "5s");
    let proxy = ("HTTPS_PROXY", "http://no.such.proxy.invalid:3128");
    for (more, host, setting) in [
        (
            &[timeout][..],
            "no.such.host.invalid",
            "PYROSCOPE_REMOTE_ADDRESS",
        ),
        (&[timeout, proxy], "no.such.proxy.invalid", "HTTPS_PROXY"),
    ] {
        let told = check(&settings("https://no.such.host.invalid", more));
        told.expect_bad("name", &[&format!("{host} cannot be resolved: ")]);
        let advice = format!(". Check {setting}, and the DNS of the function's network.");
        assert!(told.verdict.ends_with(&advice), "{}", told.verdict);
    }
}

#[test]
fn an_untrusted_certificate() {
    let server = Pyroscope::https(Tls::by(&Authority::new("Nobody's Root")));
    let known = Authority::new("Bench Root").pem_file();
    for more in [&[][..], &[("SSL_CERT_FILE", path(known.path()))]] {
        let told = check(&settings(&server.url(), more));
        told.expect_bad("tls", &[]);
        told.expect_verdict(
            "localhost: the server's certificate is issued by nobody we trust: \
             name a PEM file with its issuer in SSL_CERT_FILE",
        );
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_certificate_for_another_name() {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::with(authority.leaf(&["elsewhere.example"])));
    let roots = authority.pem_file();
    let told = check(&settings(
        &server.url(),
        &[("SSL_CERT_FILE", path(roots.path()))],
    ));
    told.expect_bad("tls", &[]);
    told.expect_verdict(
        "localhost: the server's certificate is not for the host in the address: use a name that it is for",
    );
    assert!(server.requests().is_empty());
}

#[test]
fn a_certificate_that_has_expired() {
    let authority = Authority::new("Bench Root");
    let key = rcgen::KeyPair::generate().expect("a key pair");
    let leaf = authority.issue(&OUR_NAMES, &key, |params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let server = Pyroscope::https(Tls::with(leaf));
    let roots = authority.pem_file();
    let roots = [("SSL_CERT_FILE", path(roots.path()))];
    let told = check(&settings(&server.url(), &roots));
    told.expect_bad("tls", &[]);
    told.expect_verdict("localhost: the server's certificate has expired: renew it on the server");
}

/// The name is the proxy's to look up.
#[test]
fn through_a_proxy() {
    const NAME: &str = "pyroscope.invalid";
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::with(authority.leaf(&[NAME])));
    let proxy = Proxy::start(Manner::Tunnel(server.addr(), ESTABLISHED.to_vec()));
    let roots = authority.pem_file();
    let (address, url) = (proxy.addr().to_string(), format!("https://{NAME}"));
    let variables = [
        ("SSL_CERT_FILE", path(roots.path())),
        ("HTTPS_PROXY", address.as_str()),
    ];
    let told = check(&settings(&url, &variables));
    told.expect_good();
    let line = "proxy     ok   127.0.0.1 reaches pyroscope.invalid\n";
    assert!(told.text.contains(line), "{}", told.text);

    let refused = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
    proxy.change_manner(Manner::Answer(refused.to_vec()));
    let told = check(&settings(&url, &variables));
    told.expect_bad(
        "proxy",
        &["127.0.0.1: status 407, it wants other credentials"],
    );
    assert!(
        told.verdict.ends_with(". Check HTTPS_PROXY."),
        "{}",
        told.verdict
    );

    let nobody = ReservedPort::new();
    let address = format!("127.0.0.1:{}", nobody.number);
    let told = check(&settings(&url, &[variables[0], ("HTTPS_PROXY", &address)]));
    told.expect_bad("connect", &[&*format!("{address} cannot be reached")]);
    let advice = ". Check HTTPS_PROXY: host and port.";
    assert!(told.verdict.contains(advice), "{}", told.verdict);
}

#[test]
fn roots_that_cannot_be_read() {
    let server = Pyroscope::https(Tls::by(&Authority::new("Nobody's Root")));
    let empty = tempfile::NamedTempFile::new().expect("a temporary file");
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let half = pem_file(&(Authority::new("Bench Root").pem().to_owned() + bad));
    for (file, words) in [
        ("/there/is/no/such/file.pem", "not found"),
        (path(empty.path()), "holds no certificate"),
        (
            path(half.path()),
            "1 of the certificates of SSL_CERT_FILE cannot be used",
        ),
    ] {
        let told = check(&settings(&server.url(), &[("SSL_CERT_FILE", file)]));
        assert_eq!(told.status, Some(1));
        let line = told
            .text
            .lines()
            .find(|line| line.starts_with("roots     bad"));
        let line = line.expect("a line about the roots");
        assert!(line.contains("SSL_CERT_FILE") && line.contains(words));
    }
}

#[test]
fn bad_addresses() {
    for address in [
        "ftp://host",
        "host:4040",
        "https://",
        "https://us3r-s3cret:passw0rd-s3cret@host:port",
        "https://host:t0ken-s3cret",
        "https://u%zz:s3cret@host",
    ] {
        let told = check(&settings(address, &[]));
        told.expect_bad("settings", &["PYROSCOPE_REMOTE_ADDRESS"]);
    }
}

#[test]
fn a_bad_address_is_why_whatever_else_is_bad() {
    let others = [
        ("PYROSCOPE_NUM_WORKERS", "many"),
        ("PYROSCOPE_HTTP_HEADERS", "none"),
        ("PYROSCOPE_LABELS", "none"),
    ];
    let told = check(&settings("ftp://host", &others));
    assert_eq!(told.text.matches("settings  bad").count(), 4);
    let verdict = "Profiles would not arrive: PYROSCOPE_REMOTE_ADDRESS ";
    assert!(told.verdict.starts_with(verdict), "{}", told.verdict);
}

/// It is told, the default is used, and the rest is tried: a profile would be, too.
#[test]
fn bad_values() {
    for (variable, value) in [
        ("PYROSCOPE_TIMEOUT", "soon"),
        ("PYROSCOPE_NUM_WORKERS", "many"),
        ("PYROSCOPE_HTTP_HEADERS", r#"["h3ader-s3cret"]"#),
        (
            "PYROSCOPE_HTTP_HEADERS",
            r#"{"\u001b[31m":"h3ader-s3cret"}"#,
        ),
        ("PYROSCOPE_AUTH_TOKEN", "t0ken-s3cret\n"),
    ] {
        let server = Pyroscope::http();
        let told = check(&settings(&server.url(), &[(variable, value)]));
        told.expect_bad_line("settings", &[variable]);
        assert!(told.steps().contains(&"answer ok".to_owned()));
        let verdict = format!("Profiles would arrive, but {variable} ");
        assert!(told.verdict.starts_with(&verdict), "{}", told.verdict);
    }
}

#[test]
fn a_server_that_never_answers() {
    let gate = Gate::new();
    let silent = Pyroscope::http();
    silent.always(Play::answer(200).unanswered_until(&gate));
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
    let mute = mute.local_addr().expect("a bound socket has an address");
    for (address, step, stage) in [
        (silent.url(), "answer", "127.0.0.1: the answer"),
        (
            format!("https://{mute}"),
            "tls",
            "127.0.0.1: the TLS handshake",
        ),
        (format!("http://{mute}"), "answer", "127.0.0.1: the answer"),
    ] {
        for (limit, time) in [("200ms", "200 ms"), ("1s", "1 s")] {
            let told = check(&settings(&address, &[("PYROSCOPE_TIMEOUT", limit)]));
            told.expect_bad(step, &[]);
            told.expect_verdict(&format!(
                "{stage} timed out after {time} (PYROSCOPE_TIMEOUT). \
                 Check PYROSCOPE_REMOTE_ADDRESS: http or https, host and port, and the server's load"
            ));
        }
    }
    gate.open();
}

/// A body that does not end says nothing more, and a status that came counts.
#[test]
fn an_answer_without_end() {
    let (server, gate) = (Pyroscope::http(), Gate::new());
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let begun = head.to_owned() + &" ".repeat(200_000);
    let rest = Step::Hold(gate.clone());
    server.always(Play(vec![Step::ReadHead, Step::Write(begun.into()), rest]));
    let since = Instant::now();
    check(&settings(&server.url(), &[])).expect_good();
    assert!(since.elapsed() < Duration::from_secs(30), "of the timeout");
    gate.open();
}

/// As a person stops it and lets it go on at a shell: the system then ends each wait early.
#[test]
fn a_check_that_is_stopped_goes_on() {
    let (server, gate) = (Pyroscope::http(), Gate::new());
    server.always(Play::answer(200).unanswered_until(&gate));
    let mut command = command(&["--check"], &settings(&server.url(), &[]));
    let child = command.stdout(Stdio::piped()).spawn();
    let child = child.expect("the binary to run");
    server.wait_complete(1);
    let pid = Pid::from_raw(child.id().try_into().expect("a process id"));
    let wait_for = |state: &str| {
        let stat = format!("/proc/{pid}/stat");
        let since = Instant::now();
        while !std::fs::read_to_string(&stat)
            .expect("a process")
            .contains(state)
        {
            assert!(since.elapsed() < GUARD, "it is not in{state}");
        }
    };
    wait_for(") S ");
    kill(pid, Signal::SIGSTOP).expect("a process to stop");
    wait_for(") T ");
    kill(pid, Signal::SIGCONT).expect("a process to go on");
    wait_for(") S ");
    gate.open();
    let output = child.wait_with_output().expect("its output");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.ends_with("Profiles would arrive.\n"), "{text}");
}

/// A port at that address at which nobody calls accept, and the one connection there is room for.
fn full(address: SocketAddr) -> (SocketAddr, Socket, TcpStream) {
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    full.bind(&address.into()).expect("a port of our own");
    full.listen(0).expect("a listener");
    let at = full.local_addr().expect("an address").as_socket();
    let at = at.expect("of IPv4");
    let first = TcpStream::connect(at).expect("the one there is room for");
    (at, full, first)
}

/// Each has its share of the time, and the last one all that is left.
#[test]
fn two_addresses_that_do_not_answer_take_the_time_there_is() {
    let (one, ..) = &full(([127, 0, 0, 1], 0).into());
    let (_two, ..) = &full(([127, 0, 0, 2], one.port()).into());
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    let names = "127.0.0.1 two.test\n127.0.0.2 two.test\n";
    std::fs::write(hosts.path(), names).expect("a temporary file");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let address = format!("http://two.test:{}", one.port());
    let since = Instant::now();
    let output = Command::new("/usr/bin/unshare")
        .args(["--mount", "/bin/sh", "-c", script, path(hosts.path())])
        .args(runner())
        .args([&binary(), "--check"])
        .env_clear()
        .env("PYROSCOPE_REMOTE_ADDRESS", address)
        .env("PYROSCOPE_TIMEOUT", "2s")
        .output()
        .expect("the binary to run, which takes root");
    let took = since.elapsed();
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.matches(": timed out\n").count(), 2, "{text}");
    let time = Duration::from_secs(2)..Duration::from_secs(4);
    assert!(time.contains(&took), "{took:?}");
}

/// The other stages in which time may run out.
#[test]
fn a_connection_that_is_never_taken() {
    let proxy = Proxy::start(Manner::Silence);
    let at = proxy.addr().to_string();
    let limit = ("PYROSCOPE_TIMEOUT", "200ms");
    let told = check(&settings(
        "https://pyroscope.invalid",
        &[limit, ("HTTPS_PROXY", &at)],
    ));
    told.expect_verdict(
        "127.0.0.1: its answer timed out after 200 ms (PYROSCOPE_TIMEOUT). Check HTTPS_PROXY",
    );
    let (full_at, ..) = &full(([127, 0, 0, 1], 0).into());
    let told = check(&settings(&format!("http://{full_at}"), &[limit]));
    told.expect_verdict(&format!(
        "{full_at} cannot be reached: connecting timed out after 200 ms (PYROSCOPE_TIMEOUT). \
         Check PYROSCOPE_REMOTE_ADDRESS, and in a VPC the routes, NAT gateway and security group"
    ));
}

#[test]
fn a_connection_that_is_reset() {
    let server = Pyroscope::http();
    server.always(Play::reset_unanswered());
    check(&settings(&server.url(), &[])).expect_bad("answer", &["connection reset"]);
}

#[test]
fn garbage_for_an_answer() {
    for (garbage, words) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "does not speak HTTP"),
        (b"\0\0\x12\x04\0\0\0\0\0", "does not speak HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Length"),
        (b"HTTP/1.1 200 OK\r\n", "connection closed"),
        (b"", "connection closed"),
    ] {
        let server = Pyroscope::http();
        server.always(Play::raw(garbage).then_close());
        check(&settings(&server.url(), &[])).expect_bad("answer", &[words]);
    }
}

/// A status that came counts, even if the body is broken off or malformed: so it does for a profile.
#[test]
fn an_answer_broken_off() {
    for body in ["5\r\nab", "zz\r\n"] {
        let server = Pyroscope::http();
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        server.always(Play::bytewise(format!("{head}{body}")).then_close());
        check(&settings(&server.url(), &[])).expect_good();
    }
}

/// http where https is meant, and the other way round: both end in something that looks like an answer.
#[test]
fn the_wrong_scheme() {
    for answer in [
        &b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"[..],
        b"\x15\x03\x03\0\x02\x02\x46",
    ] {
        let server = Pyroscope::http();
        server.always(Play::raw(answer).then_close());
        let told = check(&settings(&server.url(), &[]));
        told.expect_bad("answer", &[]);
        told.expect_verdict(
            "127.0.0.1: TLS is spoken here: PYROSCOPE_REMOTE_ADDRESS must begin with https",
        );
    }
    let server = Pyroscope::http();
    let refusal = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    server.always(Play(vec![Step::Write(refusal.into()), Step::Close]));
    let address = server.url().replace("http://", "https://");
    check(&settings(&address, &[])).expect_bad("tls", &["does not speak TLS"]);
}

/// In the environment of a sandbox it is still no extension: Lambda is not spoken to.
#[test]
fn it_does_not_register() {
    let (lambda, server) = (TcpListener::bind("127.0.0.1:0"), Pyroscope::http());
    let lambda = lambda.expect("a port of our own");
    lambda
        .set_nonblocking(true)
        .expect("a listener that returns");
    let address = lambda.local_addr().expect("its address").to_string();
    let api = [("AWS_LAMBDA_RUNTIME_API", address.as_str())];
    check(&settings(&server.url(), &api)).expect_good();
    let came = lambda.accept().map_err(|error| error.kind());
    assert!(matches!(came, Err(ErrorKind::WouldBlock)));
}
