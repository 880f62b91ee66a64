//! What becomes of uploads when the system gives no more descriptors, or no thread?

#![expect(clippy::disallowed_methods, reason = "a wait has an end here")]

mod support;

use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use support::client::{Client, post};
use support::monitor::GUARD;
use support::pyroscope::Pyroscope;
use support::sandbox::Sandbox;

/// Enough to start with, and for a connection or two to the server.
const DESCRIPTORS: usize = 24;

/// Clients take all descriptors. Those that are not accepted for want of one wait in the kernel, which tells of them
/// only once: when others have left, they must be remembered, though no other comes and nothing else is due.
#[test]
fn clients_that_found_no_descriptor_are_served_when_others_have_left() {
    let server = Pyroscope::http();
    let mut extension = Sandbox::relay_only(&server)
        .descriptors(DESCRIPTORS)
        .listening();
    let mut clients: Vec<Client> = (0..2 * DESCRIPTORS).map(|_| extension.client()).collect();
    let since = Instant::now();
    while extension.open_files() < DESCRIPTORS {
        assert!(since.elapsed() < GUARD, "descriptors are left");
        thread::yield_now();
    }
    extension.wait_asleep();
    let mut last = clients.split_off(2 * DESCRIPTORS - 1);
    last[0].send(post("/ingest", b"last"));
    drop(clients);
    last[0].expect_ok();
    server.wait_answered(1);
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
}

/// The log says what is missing: the name server has nothing to do with it.
#[test]
fn a_lookup_without_a_thread_is_not_the_names_fault() {
    let server = Pyroscope::http();
    let address = format!("http://localhost:{}", server.addr().port());
    let mut extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_REMOTE_ADDRESS", address)
        .single_threaded()
        .listening();
    assert_eq!(extension.post("/ingest", b"waits").status, 200);
    let line = extension.wait_complaint(&["cannot reach the server"]);
    assert!(
        line.contains("cause=\"no thread for the name lookup: Resource temporarily unavailable"),
        "{line}"
    );
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    extension.totals().expect(0, 1);
}
