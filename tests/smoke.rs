//! Does it live? One sandbox from start to shutdown, as short as can be. Also run on the arm64 binary, under emulation.

mod support;

use std::time::Duration;

use support::extensions_api::ExtensionsApi;
use support::pyroscope::Pyroscope;
use support::sandbox::Sandbox;

#[test]
fn a_sandbox_from_start_to_shutdown() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let mut extension = Sandbox::with(&lambda, &server)
        .named("any-name-the-layer-has")
        .start();

    let registration = lambda.wait_registered();
    assert_eq!(registration.name, "any-name-the-layer-has");
    let mut events = registration.events;
    events.sort();
    assert_eq!(events, ["INVOKE", "SHUTDOWN"]);

    lambda.invoke_and_wait();
    assert_eq!(extension.post("/ingest?name=smoke", b"profile").status, 200);
    let relayed = server.wait_only();
    assert_eq!(
        (relayed.path().as_str(), relayed.payload()),
        ("/ingest", b"profile".as_slice())
    );

    server.wait_answered(1);
    lambda.shutdown(Duration::from_secs(2));
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
}
