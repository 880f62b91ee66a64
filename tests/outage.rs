//! Does an outage stay within its memory, and what comes of what was acknowledged in it?

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use support::client::post;
use support::pyroscope::Pyroscope;
use support::sandbox::Sandbox;

const PAYLOADS: u64 = 1000;
const PAYLOAD_BYTES: usize = 64 * 1024;

/// What the ring holds at most where the function's memory is not known, in KiB.
const RING_KIB: u64 = 16 * 1024;

/// What everything but the ring may take beside it, and what may stay behind, in KiB.
const BESIDE_KIB: u64 = 1024;

/// Memory is given back when the ring has been empty for a while; this is the longest while there is.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);

/// One client posts 1,000 payloads of 64 KiB to a relay whose server is dead, which then comes back.
#[test]
fn an_outage_stays_within_its_memory_and_its_account() {
    let server = Pyroscope::refusing(None).quick();
    let mut extension = Sandbox::relay_only(&server)
        // The GNU library keeps what is freed, unless told; that of the binary that is shipped does not.
        .set("MALLOC_MMAP_THRESHOLD_", "16384")
        .listening();
    extension.wait_asleep();
    let idle = extension.status_kib("VmRSS:");

    let mut client = extension.client();
    let mut body = vec![7; PAYLOAD_BYTES];
    for number in 0..PAYLOADS {
        body[..8].copy_from_slice(&number.to_be_bytes());
        client.send(post("/ingest", &body));
        client.expect_ok();
    }
    let peak = extension.status_kib("VmHWM:");
    assert!(
        peak <= idle + RING_KIB + BESIDE_KIB,
        "{peak} KiB at the peak, {idle} KiB idle"
    );

    server.accept();
    let left = extension.wait_kib_at_most("VmRSS:", idle + BESIDE_KIB, GIVEN_BACK_WITHIN);
    println!("VmRSS {idle} KiB idle, {peak} KiB at the peak, {left} KiB after");
    assert!(
        left <= idle + BESIDE_KIB,
        "{left} KiB are kept, {idle} KiB were idle"
    );

    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    let arrived = numbers(&server);
    let kept = arrived.len() as u64;
    let newest: Vec<u64> = (PAYLOADS - kept..PAYLOADS).collect();
    assert_eq!(arrived, newest, "the newest arrive, each once");
    // Each takes a page more than its body for its head, and another for where the allocator puts it.
    let fitting = RING_KIB / (PAYLOAD_BYTES as u64 / 1024 + 8);
    assert!(kept > fitting - 10, "{kept} were kept, {fitting} would fit");
    let totals = extension.totals();
    totals.expect(kept, PAYLOADS - kept);
    assert_eq!(totals.count("lost_full"), PAYLOADS - kept, "{}", totals.0);
    assert_eq!(totals.count("resent"), 0, "{}", totals.0);
}

/// The numbers of the payloads that came, in order.
fn numbers(server: &Pyroscope) -> Vec<u64> {
    let number = |body: &[u8]| u64::from_be_bytes(body[..8].try_into().expect("eight bytes"));
    let mut numbers: Vec<u64> = server
        .complete()
        .iter()
        .map(|request| number(request.payload()))
        .collect();
    numbers.sort_unstable();
    numbers
}
