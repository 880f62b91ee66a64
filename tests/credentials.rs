//! Credentials by reference, from the binary's point of view: what is asked of AWS's stores and when, and what arrives.

mod support;

use std::fs;
use std::time::Duration;

use support::certificates::{Authority, OUR_NAMES};
use support::client::Response;
use support::extensions_api::ExtensionsApi;
use support::play::{Gate, Play};
use support::proxy::{ESTABLISHED, Manner, Proxy};
use support::pyroscope::{Pyroscope, Request};
use support::sandbox::{Extension, Sandbox};
use support::store::{CONTAINER_TOKEN, ID, Mood, SECRET, Store, TOKEN};

const TWO_SECONDS: Duration = Duration::from_secs(2);

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:pyroscope-AbCdEf";
const PARAMETER: &str = "arn:aws:ssm:eu-central-1:123456789012:parameter/pyroscope/tenant";

/// What is kept, and what no line may hold.
const KEPT: [&str; 5] = [
    "t0ken-of-today",
    "t0ken-of-yesterday",
    "s3cret-user",
    "s3cret-password",
    "s3cret-tenant",
];

/// A sandbox whose credentials are in that store.
fn sandbox(store: &Store, server: &Pyroscope) -> Sandbox {
    Sandbox::new()
        .server(server)
        .set("AWS_ENDPOINT_URL", store.url())
        .set("AWS_ACCESS_KEY_ID", ID)
        .set("AWS_SECRET_ACCESS_KEY", SECRET)
        .set("AWS_SESSION_TOKEN", TOKEN)
        .set("PYROSCOPE_AUTH_TOKEN", ARN)
}

/// It runs, and must not log what it comes to know.
fn listening(sandbox: Sandbox) -> Extension {
    let mut extension = sandbox.listening();
    for secret in KEPT.iter().chain(&[SECRET, TOKEN, CONTAINER_TOKEN]) {
        extension.must_not_log(secret);
    }
    extension
}

#[track_caller]
fn post(extension: &Extension) {
    let response: Response = extension.post("/ingest", b"profile");
    assert_eq!(response.status, 200);
}

fn authorization(request: &Request) -> String {
    request.header("Authorization").unwrap_or_default()
}

#[track_caller]
fn end(extension: &mut Extension, lambda: &ExtensionsApi, relayed: u64, lost: u64) {
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    extension.totals().expect(relayed, lost);
}

#[test]
fn a_secret_is_asked_for_when_the_function_runs_and_sent_with_every_profile() {
    let (store, server, lambda) = (
        Store::http(),
        Pyroscope::http().quick(),
        ExtensionsApi::start(),
    );
    store.keep(ARN, KEPT[0]);
    let mut extension = listening(sandbox(&store, &server).lambda(&lambda));
    lambda.wait_next();
    extension.wait_asleep();
    assert_eq!(store.asked().len(), 0, "the init goes on");
    lambda.invoke_and_wait();
    let asked = store.wait_asked(1);
    assert_eq!(asked[0].what, "GetSecretValue");
    assert_eq!(asked[0].members["SecretId"], ARN);
    assert_eq!(asked[0].host, store.addr().to_string());
    for count in 1..=3 {
        post(&extension);
        let answered = server.wait_answered(count);
        let sent = authorization(&answered[count - 1]);
        assert_eq!(sent, format!("Bearer {}", KEPT[0]));
        assert_eq!(answered[count - 1].payload(), b"profile");
    }
    assert_eq!(store.asked().len(), 1, "once");
    end(&mut extension, &lambda, 3, 0);
}

#[test]
fn members_of_one_secret_are_asked_for_once_and_a_parameter_beside_it() {
    let (store, server, lambda) = (
        Store::http(),
        Pyroscope::http().quick(),
        ExtensionsApi::start(),
    );
    let secret = format!(r#"{{"user":"{}","pass":"{}"}}"#, KEPT[2], KEPT[3]);
    store.keep_version(ARN, "AWSPREVIOUS", &secret);
    store.keep(PARAMETER, KEPT[4]);
    let mut extension = listening(
        sandbox(&store, &server)
            .lambda(&lambda)
            .set("PYROSCOPE_AUTH_TOKEN", "")
            .set(
                "PYROSCOPE_BASIC_AUTH_USER",
                format!("{ARN}:user:AWSPREVIOUS:"),
            )
            .set(
                "PYROSCOPE_BASIC_AUTH_PASSWORD",
                format!("{ARN}:pass:AWSPREVIOUS:"),
            )
            .set(
                "PYROSCOPE_HTTP_HEADERS",
                format!(r#"{{"X-Scope-OrgID":"{PARAMETER}","X-Plain":"plain"}}"#),
            ),
    );
    lambda.invoke_and_wait();
    post(&extension);
    let request = server.wait_answered(1).remove(0);
    assert_eq!(
        authorization(&request),
        "Basic czNjcmV0LXVzZXI6czNjcmV0LXBhc3N3b3Jk"
    );
    assert_eq!(request.header("X-Scope-OrgID").as_deref(), Some(KEPT[4]));
    assert_eq!(request.header("X-Plain").as_deref(), Some("plain"));
    let asked = store.asked();
    let what: Vec<&str> = asked.iter().map(|asked| asked.what.as_str()).collect();
    assert_eq!(what, ["GetSecretValue", "GetParameter"]);
    assert_eq!(asked[0].members["VersionStage"], "AWSPREVIOUS");
    assert_eq!(asked[1].members["Name"], PARAMETER);
    end(&mut extension, &lambda, 1, 0);
}

#[test]
fn a_token_that_was_rotated_is_read_again_and_nothing_is_lost() {
    let (store, server, lambda) = (
        Store::http(),
        Pyroscope::http().quick(),
        ExtensionsApi::start(),
    );
    store.keep(ARN, KEPT[1]);
    let mut extension = listening(sandbox(&store, &server).lambda(&lambda));
    lambda.invoke_and_wait();
    post(&extension);
    server.wait_answered(1);
    store.keep(ARN, KEPT[0]);
    server.next(Play::answer(401));
    post(&extension);
    let sent: Vec<String> = server.wait_answered(3).iter().map(authorization).collect();
    let tokens = [KEPT[1], KEPT[1], KEPT[0]].map(|token| format!("Bearer {token}"));
    assert_eq!(sent, tokens);
    extension.wait_log_with(&["level=info", "they are read again", "status 401"]);

    // Another refusal so soon waits for the minute to be over. Those are the core's tests.
    server.always(Play::answer(403));
    post(&extension);
    extension.wait_log("The server refuses the credentials, profiles wait");
    assert_eq!(store.asked().len(), 2);
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    let totals = extension.totals();
    totals.expect(2, 1);
    assert_eq!(totals.count("lost_credentials"), 1);
}

#[test]
fn a_file_is_read_without_its_last_line_break() {
    let (server, lambda) = (Pyroscope::http().quick(), ExtensionsApi::start());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("the token");
    fs::write(&path, [KEPT[0], "\n"].concat()).unwrap();
    let url = format!("file://{}", path.display());
    let mut extension = listening(Sandbox::with(&lambda, &server).set("PYROSCOPE_AUTH_TOKEN", url));
    lambda.invoke_and_wait();
    post(&extension);
    let sent = authorization(&server.wait_answered(1)[0]);
    assert_eq!(sent, format!("Bearer {}", KEPT[0]));
    end(&mut extension, &lambda, 1, 0);
}

#[test]
fn what_a_store_refuses_is_logged_with_the_variable_the_code_and_the_permission() {
    for (mood, cause) in [
        (
            Some(Mood::Error(
                400,
                "AccessDeniedException",
                "User: arn:aws:sts::123456789012:assumed-role/r/f is not authorized to perform: secretsmanager:GetSecretValue",
            )),
            "AccessDeniedException, the function's role needs the permission secretsmanager:GetSecretValue",
        ),
        (
            Some(Mood::Error(400, "ThrottlingException", "Rate exceeded")),
            "ThrottlingException",
        ),
        (Some(Mood::Dead), "connection closed"),
        (None, "ResourceNotFoundException"),
    ] {
        let (store, server, lambda) = (
            Store::http(),
            Pyroscope::http().quick(),
            ExtensionsApi::start(),
        );
        match mood {
            Some(mood) => {
                store.keep(ARN, KEPT[0]);
                store.always(mood);
            }
            None => store.keep(PARAMETER, KEPT[4]),
        }
        let mut extension = listening(sandbox(&store, &server).lambda(&lambda));
        lambda.invoke_and_wait();
        post(&extension);
        extension.wait_log_with(&[
            "level=error",
            "Cannot read a credential, profiles wait",
            cause,
            "variable=PYROSCOPE_AUTH_TOKEN",
        ]);
        // Nothing needs to be deployed: the permission is given, the secret is put there.
        store.keep(ARN, KEPT[0]);
        store.recover();
        let sent = authorization(&server.wait_answered(1)[0]);
        assert_eq!(sent, format!("Bearer {}", KEPT[0]));
        extension.wait_log_with(&["level=info", "The credentials were read"]);
        let lines = extension.log_with(&["level=error"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        end(&mut extension, &lambda, 1, 0);
    }
}

#[test]
fn a_store_that_is_slow_holds_up_profiles_and_nobody_else() {
    let (store, server, lambda) = (
        Store::http(),
        Pyroscope::http().quick(),
        ExtensionsApi::start(),
    );
    store.keep(ARN, KEPT[0]);
    let gate = Gate::new();
    store.always(Mood::Slow(gate.clone()));
    let mut extension = listening(sandbox(&store, &server).lambda(&lambda));
    lambda.invoke_and_wait();
    store.wait_asked(1);
    for _ in 0..3 {
        post(&extension);
        lambda.invoke_and_wait();
    }
    assert_eq!(server.requests().len(), 0);
    gate.open();
    for request in server.wait_answered(3) {
        assert_eq!(authorization(&request), format!("Bearer {}", KEPT[0]));
    }
    end(&mut extension, &lambda, 3, 0);
}

#[test]
fn what_is_left_without_credentials_is_counted_so() {
    let (store, server, lambda) = (
        Store::http(),
        Pyroscope::http().quick(),
        ExtensionsApi::start(),
    );
    store.always(Mood::Error(400, "AccessDeniedException", ""));
    let mut extension = listening(sandbox(&store, &server).lambda(&lambda));
    lambda.invoke_and_wait();
    post(&extension);
    extension.wait_log("Cannot read a credential");
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    let totals = extension.totals();
    totals.expect(0, 1);
    assert_eq!(totals.count("lost_credentials"), 1);
    assert_eq!(server.requests().len(), 0, "nothing goes without them");
}

#[test]
fn a_store_is_reached_by_tls_and_through_the_proxy() {
    let authority = Authority::new("Bench Root");
    let store = Store::https(authority.leaf(&["store.invalid"]));
    store.keep(ARN, KEPT[0]);
    let proxy = Proxy::start(Manner::Tunnel(store.addr(), ESTABLISHED.to_vec()));
    let (server, lambda) = (Pyroscope::http().quick(), ExtensionsApi::start());
    let roots = authority.pem_file();
    let mut extension = listening(
        sandbox(&store, &server)
            .lambda(&lambda)
            .set("AWS_ENDPOINT_URL", "https://store.invalid")
            .set("HTTPS_PROXY", format!("http://{}", proxy.addr()))
            .set("SSL_CERT_FILE", roots.path().to_str().unwrap()),
    );
    lambda.invoke_and_wait();
    post(&extension);
    let sent = authorization(&server.wait_answered(1)[0]);
    assert_eq!(sent, format!("Bearer {}", KEPT[0]));
    let asked = proxy.wait_asked(1);
    assert_eq!(asked[0].start_line(), "CONNECT store.invalid:443 HTTP/1.1");
    assert_eq!(store.asked()[0].host, "store.invalid");
    end(&mut extension, &lambda, 1, 0);
}

#[test]
fn a_store_whose_certificate_is_nobodys_is_not_asked() {
    let store = Store::https(Authority::new("Nobody").leaf(&OUR_NAMES));
    let (server, lambda) = (Pyroscope::http().quick(), ExtensionsApi::start());
    let mut extension = listening(sandbox(&store, &server).lambda(&lambda));
    lambda.invoke_and_wait();
    post(&extension);
    extension.wait_log_with(&["Cannot read a credential", "the server's certificate"]);
    assert_eq!(store.asked().len(), 0);
    end(&mut extension, &lambda, 0, 1);
}

#[test]
fn after_a_snapshot_the_keys_are_asked_for_first() {
    let (store, server, lambda) = (
        Store::http(),
        Pyroscope::http().quick(),
        ExtensionsApi::start(),
    );
    store.keep(ARN, KEPT[0]);
    let uri = format!("{}/2021-04-23/credentials", store.url());
    let mut extension = listening(
        sandbox(&store, &server)
            .lambda(&lambda)
            .set("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
            .set("AWS_ACCESS_KEY_ID", "")
            .set("AWS_SECRET_ACCESS_KEY", "")
            .set("AWS_SESSION_TOKEN", "")
            .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
            .set("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN),
    );
    lambda.wait_next();
    post(&extension);
    extension.wait_asleep();
    assert_eq!(store.asked().len(), 0, "no secret is in the snapshot");
    lambda.invoke_and_wait();
    let sent = authorization(&server.wait_answered(1)[0]);
    assert_eq!(sent, format!("Bearer {}", KEPT[0]));
    let asked = store.asked();
    let what: Vec<&str> = asked.iter().map(|asked| asked.what.as_str()).collect();
    assert_eq!(what, ["keys", "GetSecretValue"]);
    end(&mut extension, &lambda, 1, 0);
}

/// A freeze in the middle, in which the store hangs up without a word that arrives.
#[test]
fn a_freeze_while_it_is_read_costs_no_profile() {
    let (store, server, lambda) = (
        Store::http(),
        Pyroscope::http().quick(),
        ExtensionsApi::start(),
    );
    store.keep(ARN, KEPT[0]);
    let never = Gate::new();
    store.always(Mood::Slow(never));
    let mut extension = listening(sandbox(&store, &server).lambda(&lambda));
    lambda.invoke_and_wait();
    store.wait_asked(1);
    post(&extension);
    extension.freeze();
    support::monitor::let_pass(Duration::from_millis(2500));
    store.recover();
    extension.thaw();
    let sent = authorization(&server.wait_answered(1)[0]);
    assert_eq!(sent, format!("Bearer {}", KEPT[0]));
    assert_eq!(store.asked().len(), 2);
    assert_eq!(extension.log_with(&["level=error"]).len(), 0);
    end(&mut extension, &lambda, 1, 0);
}

/// What Lambda sees of the init is the same, byte by byte and in the same order.
#[test]
fn registering_and_the_first_next_are_as_without() {
    let calls = |sandbox: Sandbox| {
        let lambda = ExtensionsApi::start();
        let extension = sandbox.lambda(&lambda).listening();
        lambda.wait_next();
        extension.wait_asleep();
        let files = extension.sockets();
        let calls = lambda.calls();
        let calls: Vec<String> = calls
            .into_iter()
            .map(|call| call.head.text().replace(&lambda.address(), "API"))
            .collect();
        (calls, files)
    };
    let (store, server) = (Store::http(), Pyroscope::http());
    let plain = calls(Sandbox::new().server(&server));
    let by_reference = calls(sandbox(&store, &server));
    assert_eq!(format!("{plain:?}"), format!("{by_reference:?}"));
    assert_eq!(store.asked().len(), 0);
}

#[test]
fn a_bad_place_costs_one_line_that_names_the_variable() {
    for (value, problem) in [
        (
            "arn:aws:s3:::bucket",
            "the region is none of that partition's",
        ),
        (
            "arn:aws:s3:eu-west-1:123456789012:x",
            "the service must be secretsmanager or ssm",
        ),
        ("arn:oops", "an ARN has six parts"),
        (
            "arn:aws-iso:ssm:us-iso-east-1:123456789012:parameter/s3cretname",
            "the partition must be aws, aws-cn or aws-us-gov",
        ),
        (
            "arn:aws:ssm:EU-WEST-1:123456789012:parameter/s3cretname",
            "the region is none of that partition's",
        ),
        (
            "arn:aws:ssm:cn-north-1:123456789012:parameter/s3cretname",
            "the region is none of that partition's",
        ),
        (
            "arn:aws:ssm:eu-west-1:1234:parameter/s3cretname",
            "the account must be a number of 12 digits",
        ),
        (
            "arn:aws:ssm:eu-west-1:123456789012:s3cretname",
            "it must end in parameter/NAME",
        ),
        (
            "arn:aws:secretsmanager:eu-west-1:123456789012:s3cretname",
            "it must end in secret:NAME[:json-key:version-stage:version-id]",
        ),
        (
            "file://s3cretname",
            "file:// must be followed by an absolute path",
        ),
    ] {
        for (variable, value) in [
            ("PYROSCOPE_AUTH_TOKEN", value.to_owned()),
            ("PYROSCOPE_TENANT_ID", value.to_owned()),
            (
                "PYROSCOPE_HTTP_HEADERS",
                format!(r#"{{"X-Key":"{value}"}}"#),
            ),
        ] {
            let extension = Sandbox::new()
                .set("PYROSCOPE_DEV_MODE", "true")
                .set("PYROSCOPE_REMOTE_ADDRESS", "http://127.0.0.1:9")
                .set(variable, &value)
                .start();
            extension.wait_log("Starting relay");
            let lines = extension.log_with(&["variable="]);
            assert_eq!(lines.len(), 1, "{value}: {lines:?}");
            assert!(
                lines[0].contains("level=error msg=\"Unusable setting\""),
                "{lines:?}"
            );
            assert!(lines[0].contains(problem), "{lines:?}");
            assert!(
                lines[0].ends_with(&format!(" variable={variable}")),
                "{lines:?}"
            );
            assert!(!lines[0].contains("s3cretname"), "{lines:?}");
        }
    }
}

/// Runs `--check` with the sandbox's settings: its status, and what it said.
fn check(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = support::sandbox::command(&["--check"])
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the binary to run");
    let text = String::from_utf8(output.stdout).expect("text");
    for secret in KEPT.iter().chain(&[SECRET, TOKEN]) {
        assert!(!text.contains(secret), "{text}");
    }
    (output.status.code(), text)
}

#[test]
fn a_check_reads_them_and_says_each_step() {
    let (store, server) = (Store::http(), Pyroscope::http().quick());
    store.keep(ARN, KEPT[0]);
    let (url, address) = (store.url(), server.url());
    let at = store.addr().to_string();
    let mut variables = vec![
        ("PYROSCOPE_REMOTE_ADDRESS", address.as_str()),
        ("PYROSCOPE_AUTH_TOKEN", ARN),
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", TOKEN),
    ];
    let (status, text) = check(&variables);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains(&format!(
            "secret    ok   PYROSCOPE_AUTH_TOKEN is read from {at}\n"
        )),
        "{text}"
    );
    assert!(
        text.contains("with credentials from PYROSCOPE_AUTH_TOKEN\n"),
        "{text}"
    );
    assert_eq!(
        authorization(&server.wait_answered(1)[0]),
        format!("Bearer {}", KEPT[0])
    );

    store.always(Mood::Error(400, "AccessDeniedException", "not authorized"));
    let (status, text) = check(&variables);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.ends_with(&format!("Profiles would not arrive: PYROSCOPE_AUTH_TOKEN cannot be read from {at}: AccessDeniedException, the function's role needs the permission secretsmanager:GetSecretValue.\n")),
        "{text}"
    );

    variables[1].1 = "file:///nowhere/token";
    let (status, text) = check(&variables);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.ends_with(
            "secret    bad  PYROSCOPE_AUTH_TOKEN cannot be read from /nowhere/token: not found\n\
             Profiles would not arrive: PYROSCOPE_AUTH_TOKEN cannot be read from /nowhere/token: not found.\n"
        ),
        "{text}"
    );
    assert_eq!(server.requests().len(), 1);
}

/// It is the store's address that is wrong, not Pyroscope's.
#[test]
fn a_check_names_the_setting_that_leads_to_the_store() {
    let port = support::sandbox::ReservedPort::new();
    let nobody = format!("http://127.0.0.1:{}", port.number);
    let wants_tls = Pyroscope::http();
    wants_tls.always(
        Play::raw(
            "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        )
        .then_close(),
    );
    let tls = wants_tls.url();
    for own in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER"] {
        for (url, reason) in [
            (
                &tls,
                format!(
                    "{}: TLS is spoken here: {own} must begin with https",
                    wants_tls.host()
                ),
            ),
            (
                &nobody,
                format!(
                    "{} cannot be reached: connection refused. Check {own}: host and port",
                    nobody.strip_prefix("http://").unwrap()
                ),
            ),
        ] {
            let (status, text) = check(&[
                ("PYROSCOPE_REMOTE_ADDRESS", "http://127.0.0.1:9"),
                ("PYROSCOPE_AUTH_TOKEN", ARN),
                (own, url),
                ("AWS_ACCESS_KEY_ID", ID),
                ("AWS_SECRET_ACCESS_KEY", SECRET),
            ]);
            assert_eq!(status, Some(1), "{text}");
            let verdict = format!("\nProfiles would not arrive: {reason}.\n");
            assert!(text.ends_with(&verdict), "{verdict} in:\n{text}");
        }
    }
}
