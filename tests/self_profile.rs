//! Does the extension's profile of itself reach the server, and is it true?

#[path = "support/decode/mod.rs"]
mod decode;
mod support;

use std::fs;
use std::thread;
use std::time::Instant;

use decode::Decoded;
use nix::sys::signal::Signal;
use support::certificates::Authority;
use support::client::with_length;
use support::extensions_api::ExtensionsApi;
use support::monitor::GUARD;
use support::pyroscope::{Pyroscope, Request, Tls};
use support::sandbox::{Extension, Sandbox};

const APP: &str = "pyroscope.lambda.extension";

/// Everything it does when the server is https.
const STAGES: [&str; 13] = [
    "start",
    "loop;sleep",
    "loop;log",
    "loop;report;accept",
    "loop;report;connect",
    "loop;report;read",
    "loop;report;parse",
    "loop;report;handshake",
    "loop;report;decrypt",
    "loop;act;step",
    "loop;act;perform",
    "loop;act;encrypt",
    "loop;act;write",
];

#[test]
fn its_frames_say_what_it_did_and_its_total_is_the_cpu_time() {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::by(&authority)).quick();
    let roots = authority.pem_file();
    let mut extension = Sandbox::relay_only(&server)
        .set(
            "SSL_CERT_FILE",
            roots.path().to_str().expect("a path in UTF-8"),
        )
        .set("PYROSCOPE_SELF_PROFILING", "true")
        .set("PYROSCOPE_AUTH_TOKEN", "token")
        .set("PYROSCOPE_TENANT_ID", "tenant")
        .set("PYROSCOPE_LOG_LEVEL", "debug")
        .listening();
    let mut client = extension.client();
    let body = vec![b'x'; 64 << 10];
    for count in 1..=PAYLOADS {
        client.send(with_length(
            "POST /ingest?name=shop HTTP/1.1\r\nHost: localhost:4040\r\n",
            &body,
        ));
        client.expect_ok();
        server.wait_answered_count(count);
    }
    extension.signal(Signal::SIGTERM);
    let cpu_ns = cpu_time_at_end(&extension);
    extension.expect_exit(0);

    let requests = server.complete();
    let (own, clients): (Vec<_>, Vec<_>) = requests.iter().partition(|request| is_own(request));
    let profiles: Vec<Decoded> = own.iter().map(|request| decoded(request)).collect();
    let last = own.last().expect("a profile of the extension");
    assert_eq!(
        last.header("Authorization").as_deref(),
        Some("Bearer token")
    );
    assert_eq!(last.header("X-Scope-OrgID").as_deref(), Some("tenant"));
    let session = &profiles[0].labels["__session_id__"];
    assert!(clients[0].target().contains(session.as_str()), "{session}");

    let sum = |part: &str| -> i64 {
        let of_each = profiles.iter().filter_map(|profile| profile.value_of(part));
        of_each.sum()
    };
    for stage in STAGES {
        for frame in stage.split(';') {
            assert!(sum(frame) > 0, "{frame} is missing: {profiles:?}");
        }
    }
    assert_eq!(profiles[0].sample_types, ["cpu:nanoseconds"]);
    assert_eq!(
        sum("loop"),
        sum("act") + sum("report") + sum("sleep") + sum("log")
    );
    let total_ns = sum("start") + sum("loop");
    eprintln!("profiled {total_ns} ns, the kernel counted {cpu_ns} ns");
    for (name, ns) in &profiles.last().expect("a profile").functions {
        eprintln!("{name:>10} {ns:>10}");
    }
    assert!(
        (total_ns - cpu_ns).abs() * 5 <= cpu_ns,
        "profiled {total_ns} ns, but the kernel counted {cpu_ns} ns"
    );

    let totals = extension.totals();
    let sent = (PAYLOADS + own.len()) as u64;
    totals.expect(sent, 0);
    assert_eq!(totals.count("self_profiles"), own.len() as u64);
}

#[test]
fn without_a_payload_one_comes_at_shutdown_within_lambdas_deadline() {
    let lambda = ExtensionsApi::start();
    let server = Pyroscope::http();
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_SELF_PROFILING", "1")
        .listening();
    lambda.wait_next();
    lambda.shutdown(GUARD);
    extension.expect_exit(0);
    let own = server.wait_only();
    let profile = decoded(&own);
    assert!(profile.value_of("start") > Some(0));
    assert!(profile.value_of("lambda") > Some(0), "{profile:?}");
    for secret in ["encrypt", "decrypt", "handshake"] {
        assert_eq!(profile.value_of(secret), None, "there is no TLS");
    }
    extension.totals().expect(1, 0);
}

#[test]
fn off_there_is_none() {
    let server = Pyroscope::http();
    let mut extension = Sandbox::relay_only(&server).listening();
    assert_eq!(extension.post("/ingest?name=shop", b"x").status, 200);
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    assert!(!is_own(&server.wait_only()));
    extension.totals().expect(1, 0);
}

/// Enough for half a second of CPU time in a debug build.
const PAYLOADS: usize = 1000;

fn is_own(request: &Request) -> bool {
    request.target().contains(&format!("name={APP}%7B"))
}

#[track_caller]
fn decoded(request: &Request) -> Decoded {
    let found = decode::profiles(
        &request.target(),
        &request.head.headers(),
        request.payload(),
    );
    let profile = found.expect("a profile").remove(0);
    assert_eq!(profile.app, APP);
    profile
}

/// CPU time of the process, read when it has ended but is not reaped yet, so that none is missing. The kernel's
/// account is of the first thread; there is no other, as no name is looked up.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the guard of a wait for the kernel, which tells nobody"
)]
fn cpu_time_at_end(extension: &Extension) -> i64 {
    let since = Instant::now();
    while !extension.status("State:").starts_with('Z') {
        assert!(since.elapsed() < GUARD, "the process does not end");
        thread::yield_now();
    }
    let stat = fs::read_to_string(format!("/proc/{}/schedstat", extension.pid()));
    let stat = stat.expect("the kernel's account of the process");
    let ns = stat.split_whitespace().next().expect("a first number");
    ns.parse().expect("a number of nanoseconds")
}
