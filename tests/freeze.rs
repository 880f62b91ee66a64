//! Does everything arrive though the sandbox is frozen at the worst moment, whatever the server does meanwhile?
//!
//! The real program is stopped at each stage of an upload, as Lambda's freeze does; the server then waits, answers,
//! closes or resets; Lambda has the next INVOKE ready; and the program goes on. What was acknowledged must arrive,
//! and nothing twice unless the answer was lost with its connection.
//!
//! A freeze lasts 1.2 s, which the program notices by a wait that overslept or, if most of that wait was still to
//! come, does not: both must do. FREEZE_SECONDS says another length; at 10 and more, the 10 s that an attempt may
//! take are over before it goes on.

#![expect(
    clippy::disallowed_methods,
    reason = "the cases run side by side, and the length of a freeze is a setting of this test"
)]

mod support;

use std::time::Duration;

use support::cases::side_by_side;
use support::certificates::Authority;
use support::client::{chunked, post};
use support::extensions_api::ExtensionsApi;
use support::monitor::{GUARD, let_pass};
use support::name_server::{Mood, NameServer};
use support::play::{Gate, Play};
use support::pyroscope::{Pyroscope, Tls};
use support::sandbox::{Extension, Sandbox, Totals};
use tempfile::NamedTempFile;

/// What the server does while the sandbox is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Nothing: it goes on when the sandbox does.
    Waits,
    /// Goes on at once.
    GoesOn,
    Closes,
    Resets,
    GoesOnAndCloses,
    GoesOnAndResets,
}

use Server::{Closes, GoesOn, GoesOnAndCloses, GoesOnAndResets, Resets, Waits};

const ALL: [Server; 6] = [
    Waits,
    GoesOn,
    Closes,
    Resets,
    GoesOnAndCloses,
    GoesOnAndResets,
];

/// What came of a case.
struct Outcome {
    totals: Totals,
    /// Bodies of the requests that came whole, in order.
    arrived: Vec<Vec<u8>>,
    /// Tells its log if it is not what was expected.
    _extension: Extension,
}

impl Outcome {
    /// Everything arrived, once.
    #[track_caller]
    fn expect_once(&self, bodies: &[Vec<u8>], resent: u64) {
        self.expect(bodies, resent, bodies.len());
    }

    /// Everything arrived, and some of it twice, because the answer was lost.
    #[track_caller]
    fn expect(&self, bodies: &[Vec<u8>], resent: u64, arrivals: usize) {
        let mut arrived = self.arrived.clone();
        assert_eq!(arrived.len(), arrivals, "requests came whole");
        arrived.sort();
        arrived.dedup();
        assert!(arrived == bodies, "what arrived is not what was sent");
        self.totals.expect(bodies.len() as u64, 0);
        assert_eq!(self.totals.count("resent"), resent, "{}", self.totals.0);
    }
}

/// A sandbox that has been invoked once, its Lambda and its server.
struct Bench {
    lambda: ExtensionsApi,
    server: Pyroscope,
    extension: Extension,
    _certificate: Option<NamedTempFile>,
}

impl Bench {
    fn http(server: Pyroscope) -> Self {
        Self::with(server, |sandbox| sandbox, None)
    }

    /// Over TLS, or not.
    fn over(tls: bool) -> Self {
        if !tls {
            return Self::http(Pyroscope::http());
        }
        Self::over_tls(|sandbox| sandbox)
    }

    fn over_tls(setting: impl FnOnce(Sandbox) -> Sandbox) -> Self {
        let authority = Authority::new("Bench Root");
        let file = authority.pem_file();
        let path = file.path().display().to_string();
        Self::with(
            Pyroscope::https(Tls::by(&authority)),
            |sandbox| setting(sandbox.set("SSL_CERT_FILE", path)),
            Some(file),
        )
    }

    fn with(
        server: Pyroscope,
        setting: impl FnOnce(Sandbox) -> Sandbox,
        certificate: Option<NamedTempFile>,
    ) -> Self {
        let lambda = ExtensionsApi::start();
        let extension = setting(Sandbox::with(&lambda, &server)).listening();
        lambda.invoke_and_wait();
        Self {
            lambda,
            server,
            extension,
            _certificate: certificate,
        }
    }

    #[track_caller]
    fn post(&self, body: &[u8]) {
        assert_eq!(self.extension.post("/ingest", body).status, 200);
    }

    /// Freezes, lets `meanwhile` happen, and thaws with the INVOKE that a thaw is for.
    #[track_caller]
    fn freeze_while(&self, meanwhile: impl FnOnce()) {
        self.freeze_for(freeze(), meanwhile);
    }

    #[track_caller]
    fn freeze_for(&self, length: Duration, meanwhile: impl FnOnce()) {
        self.lambda.wait_next();
        self.extension.freeze();
        meanwhile();
        let_pass(length);
        self.lambda.invoke_frozen();
        self.extension.thaw();
        self.lambda.wait_next();
    }

    /// Waits for the answers to `count` requests, and shuts down.
    #[track_caller]
    fn end(mut self, count: usize) -> Outcome {
        self.server.wait_answered(count);
        self.lambda.shutdown(Duration::from_secs(2));
        self.extension.expect_exit(0);
        let arrived = self.server.complete();
        Outcome {
            totals: self.extension.totals(),
            arrived: arrived
                .iter()
                .map(|request| request.payload().to_vec())
                .collect(),
            _extension: self.extension,
        }
    }
}

/// How long a freeze lasts.
fn freeze() -> Duration {
    let set = std::env::var("FREEZE_SECONDS").ok();
    let seconds = set.map_or(1.2, |text| {
        text.parse().expect("FREEZE_SECONDS is a number of seconds")
    });
    Duration::from_secs_f64(seconds)
}

/// Each of these, in clear and over TLS.
fn over_both(cases: &[Server]) -> impl Iterator<Item = (Server, bool)> {
    cases
        .iter()
        .flat_map(|&server| [(server, false), (server, true)])
}

// The stages of an upload.

/// The name server has been asked and says nothing; while all is frozen, or only after the thaw, it answers, or says
/// that there is no such name.
#[test]
fn while_resolving() {
    side_by_side([Waits, GoesOn, Resets], |meanwhile| {
        let (server, names) = (Pyroscope::http(), NameServer::silent());
        let (port, resolv_conf) = (server.addr().port(), names.resolv_conf());
        let setting = |sandbox: Sandbox| {
            let address = format!("http://server.bench.test:{port}");
            sandbox
                .resolving_by(resolv_conf.path())
                .set("PYROSCOPE_REMOTE_ADDRESS", address)
        };
        let bench = Bench::with(server, setting, None);
        bench.post(b"resolving");
        names.wait_asked();
        bench.freeze_while(|| match meanwhile {
            GoesOn => names.say(Mood::Answers),
            Resets => names.say(Mood::Denies),
            _ => {}
        });
        if meanwhile == Resets {
            bench.extension.wait_complaint(&["name lookup"]);
        }
        names.say(Mood::Answers);
        bench.end(1).expect_once(&[b"resolving".to_vec()], 0);
    });
}

/// The server has no room for another connection, so that the kernel asks again and again.
#[test]
fn while_connecting() {
    side_by_side(
        [Waits, GoesOn, Closes, GoesOnAndCloses, GoesOnAndResets],
        |meanwhile| {
            let bench = Bench::http(Pyroscope::refusing(None));
            let mut crowd = Some(bench.server.crowd());
            let mut leave = || {
                if let Some(crowd) = crowd.take() {
                    crowd.leave();
                }
            };
            bench.post(b"connecting");
            bench.extension.wait_connecting(bench.server.addr());
            bench.freeze_while(|| match meanwhile {
                Waits => {}
                GoesOn => leave(),
                Closes => bench.server.refuse(),
                // Room is made, the connection is made by the kernel, and it ends.
                _ => {
                    leave();
                    // The crowd's own, and that of the extension.
                    bench.server.wait_connections(2);
                    end_all(&bench.server, meanwhile);
                }
            });
            match meanwhile {
                Waits => leave(),
                Closes => bench.server.accept(),
                _ => {}
            }
            bench.end(1).expect_once(&[b"connecting".to_vec()], 0);
        },
    );
}

/// The server has read the `ClientHello`.
#[test]
fn while_shaking_hands() {
    side_by_side([Waits, GoesOn, Closes, Resets], |meanwhile| {
        let (bench, gate) = (Bench::over(true), Gate::new());
        bench.server.hold_greetings(&gate);
        bench.post(b"handshake");
        bench.server.wait_hellos(1);
        bench.freeze_while(|| {
            end_all(&bench.server, meanwhile);
            if meanwhile != Waits {
                gate.open();
            }
        });
        gate.open();
        bench.end(1).expect_once(&[b"handshake".to_vec()], 0);
    });
}

/// The server has the first byte of a request too large for all buffers between here and there, and reads no more.
#[test]
fn while_half_sent() {
    side_by_side(
        over_both(&[Waits, GoesOn, Closes, Resets]),
        |(meanwhile, tls)| {
            let (bench, gate) = (Bench::over(tls), Gate::new());
            bench
                .server
                .next(Play::answer(200).at_once().unread_until(&gate));
            let body = vec![b'h'; LARGE];
            bench.post(&body);
            bench.server.wait_begun(1);
            bench.freeze_while(|| {
                if meanwhile == GoesOn {
                    gate.open();
                }
                end_all(&bench.server, meanwhile);
            });
            gate.open();
            let resent = u64::from(matches!(meanwhile, Closes | Resets));
            bench.end(1).expect_once(&[body], resent);
        },
    );
}

/// The server has the whole request; what it says while the sandbox is frozen counts, even if it then closes.
#[test]
fn while_waiting_for_the_answer() {
    side_by_side(over_both(&ALL), |(meanwhile, tls)| {
        let (bench, gate) = (Bench::over(tls), Gate::new());
        bench.server.next(Play::answer(200).unanswered_until(&gate));
        bench.post(b"waiting");
        bench.server.wait_complete(1);
        bench.freeze_while(|| {
            if matches!(meanwhile, GoesOn | GoesOnAndCloses | GoesOnAndResets) {
                gate.open();
                bench.server.wait_answered(1);
            }
            end_all(&bench.server, meanwhile);
        });
        gate.open();
        // Nobody can know that the server had it all: it comes again.
        let lost = matches!(meanwhile, Closes | Resets);
        let arrivals = 1 + usize::from(lost);
        bench
            .end(1)
            .expect(&[b"waiting".to_vec()], u64::from(lost), arrivals);
    });
}

/// A connection that has carried one upload, and the next upload comes while all stands still.
#[test]
fn while_idle() {
    side_by_side(over_both(&[Waits, Closes, Resets]), |(meanwhile, tls)| {
        let bench = Bench::over(tls);
        let mut client = bench.extension.client();
        client.send(post("/ingest", b"idle 1"));
        client.expect_ok();
        bench.server.wait_answered(1);
        bench.server.wait_idle(1);
        bench.server.wait_read();
        bench.extension.wait_asleep();
        bench.freeze_while(|| {
            end_all(&bench.server, meanwhile);
            client.send(post("/ingest", b"idle 2"));
        });
        client.expect_ok();
        bench.server.wait_answered(2);
        if tls {
            assert_eq!(bench.server.handshakes().0, 1, "one in full");
        }
        let bodies = [b"idle 1".to_vec(), b"idle 2".to_vec()];
        bench.end(2).expect_once(&bodies, 0);
    });
}

/// Nothing is under way and nothing is due, so that no event shows how long the freeze was. The connection must be
/// closed after it all the same: its other end may have forgotten it.
#[test]
fn an_idle_connection_is_closed_after_a_freeze_that_no_timer_ran_in() {
    let bench = Bench::over(false);
    let unused_kib = bench.extension.status_kib("VmRSS:");
    bench.post(&[b'i'; 4 << 20]);
    bench.server.wait_answered(1);
    bench.server.wait_idle(1);
    // The last timer of an upload gives its memory back.
    let kib = bench
        .extension
        .wait_kib_at_most("VmRSS:", unused_kib + 2048, GUARD);
    assert!(kib <= unused_kib + 2048, "{kib} KiB are kept");
    bench.extension.wait_asleep();
    bench.freeze_for(freeze().max(Duration::from_secs(2)), || {});
    bench.server.wait_ended(0);
    bench.extension.wait_log("Thawed");
    bench.post(b"after");
    let bodies = [b"after".to_vec(), vec![b'i'; 4 << 20]];
    bench.end(2).expect_once(&bodies, 0);
}

/// To watch for a freeze costs CPU time, so it is done only while there is a connection that one could harm.
#[test]
fn without_a_connection_to_the_server_nothing_wakes_it() {
    let bench = Bench::over(false);
    let mut client = bench.extension.client();
    client.send("not HTTP\r\n\r\n");
    assert_eq!(client.response().status, 400);
    client.expect_end();
    drop(client);
    let woken = || {
        bench.extension.wait_asleep();
        bench.extension.status("voluntary_ctxt_switches:")
    };
    let before = woken();
    let_pass(Duration::from_millis(1600));
    assert_eq!(woken(), before, "it woke up");
    bench.end(0).expect_once(&[], 0);
}

/// Ends every connection as the case has it.
fn end_all(server: &Pyroscope, meanwhile: Server) {
    match meanwhile {
        Waits | GoesOn => {}
        Closes | GoesOnAndCloses => server.close_all(),
        Resets | GoesOnAndResets => server.reset_all(),
    }
}

// The function's side.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    /// Was frozen in the middle of its body too, and goes on.
    GoesOn,
    /// Sends the rest at once, which the extension finds at the thaw, and closes its side.
    EndsWell,
    Dies,
}

/// A client has sent half of its body when both it and the extension are frozen.
#[test]
fn while_a_client_sends() {
    let cases = [Function::GoesOn, Function::EndsWell, Function::Dies];
    let both = cases
        .iter()
        .flat_map(|&function| [(function, false), (function, true)]);
    side_by_side(both, |(function, in_chunks)| {
        let bench = Bench::over(false);
        let body = vec![b'c'; 100_000];
        let bytes = if in_chunks {
            let head = b"POST /ingest HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\n";
            [&head[..], &chunked(&body, 30_000)].concat()
        } else {
            post("/ingest", &body)
        };
        let (half, rest) = bytes.split_at(50_000);
        let mut client = bench.extension.client();
        client.send_segments(&[half]);
        let mut dying = Some(client);
        bench.freeze_while(|| match function {
            Function::GoesOn => {}
            Function::EndsWell => {
                let client = dying.as_mut().expect("a client");
                client.send(rest);
                client.half_close();
            }
            Function::Dies => dying = None,
        });
        if let Some(client) = &mut dying {
            if function == Function::GoesOn {
                client.send(rest);
            }
            client.expect_ok();
            bench.end(1).expect_once(&[body], 0);
        } else {
            bench.end(0).expect_once(&[], 0);
        }
    });
}

// Time.

/// An attempt has 3 s, and is frozen for longer than that: it goes on as if nothing had been. So it does when it is
/// stopped at work, as while it encrypts, instead of in its sleep.
#[test]
fn frozen_time_does_not_count_against_an_attempt() {
    let length = freeze().max(Duration::from_secs(4));
    side_by_side([false, true, true], |at_work| {
        let gate = Gate::new();
        let bench = Bench::over_tls(|sandbox| sandbox.set("PYROSCOPE_TIMEOUT", "3s"));
        if at_work {
            bench
                .server
                .next(Play::answer(200).at_once().unread_until(&gate));
            let body = vec![b't'; LARGE];
            bench.post(&body);
            bench.server.wait_begun(1);
            bench.freeze_for(length, || gate.open());
            bench.end(1).expect_once(&[body], 0);
        } else {
            bench.server.next(Play::answer(200).unanswered_until(&gate));
            bench.post(b"in time");
            bench.server.wait_complete(1);
            bench.extension.wait_asleep();
            bench.freeze_for(length, || {});
            gate.open();
            bench.end(1).expect_once(&[b"in time".to_vec()], 0);
        }
    });
}

/// A freeze too short to be noticed, and yet longer than the time an attempt has left: the answer came before it
/// goes on, and what has arrived counts before what is late.
#[test]
fn what_has_arrived_counts_before_what_is_late() {
    // On a busy machine the attempt's time may be over before the freeze begins, which shows nothing.
    for _ in 0..10 {
        let (bench, gate) = (
            Bench::with(
                Pyroscope::http(),
                |sandbox| sandbox.set("PYROSCOPE_TIMEOUT", "900ms"),
                None,
            ),
            Gate::new(),
        );
        bench.server.next(Play::answer(200).unanswered_until(&gate));
        bench.post(b"in time");
        bench.server.wait_complete(1);
        let mut was_late = false;
        bench.freeze_for(Duration::from_millis(950), || {
            was_late = !bench.extension.log_with(&["timed out"]).is_empty();
            gate.open();
            bench.server.wait_answered(1);
        });
        if !was_late {
            return bench.end(1).expect_once(&[b"in time".to_vec()], 0);
        }
    }
    panic!("ten times too late");
}

/// More than a socket's two buffers hold, and less than the ring.
const LARGE: usize = 12 << 20;
