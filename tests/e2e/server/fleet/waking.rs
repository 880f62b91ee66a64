//! A Java function that wakes for 100 ms every five minutes, fifty times, before a server that takes half a second.
//!
//! The agent makes up for each interval that it missed with an upload of nothing, so what is real waits in line with
//! what is not. Time is compressed, but for the 100 ms and the server's half second: the agent uploads every 100 ms
//! instead of every 10 s and is stopped for 3 s instead of five minutes, so it misses thirty intervals each time too; and
//! its wall clock goes five minutes further meanwhile (libfaketime), so that what is real spans those. Function and
//! extensions are stopped as Lambda stops them: when both have asked for what is next. The server is a stand-in, one
//! for each extension, as the real one would not take what is hours behind.
//!
//! How many of the thirty it gets done while it is awake depends on the machine. So there is `java-waking-replayed` too:
//! in each wake one real upload and then thirty of nothing, as the agent sent them, all of them at once.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use super::Fleet;
use super::frozen::Clock;
use super::runtime_api::RuntimeApi;
use super::sandbox::{Function, Pair, UPLOAD_GUARD, addresses};
use super::tap::{Request, Tap};
use super::times::{moved_to, span};
use crate::Stage;
use crate::decode::{self, Decoded};
use crate::subjects::subjects;
use crate::support::client::Client;
use crate::support::monitor::let_pass;
use crate::support::pyroscope::{self, Pyroscope};

const NAME: &str = "java-waking";

pub const NAMES: [&str; 2] = [NAME, "java-waking-replayed"];

/// Runs what has this name, says what came of it, and returns what is wrong.
pub fn live(stage: &Stage, name: &str) -> Option<String> {
    eprintln!("e2e: {name}, {WAKES} times …");
    let ended = if name == NAME {
        try_live(stage)
    } else {
        replayed()
    };
    match ended {
        Ok((lines, wrong)) => {
            for line in lines {
                println!("{line}");
            }
            wrong
        }
        Err(error) => Some(format!("{name}: {error}")),
    }
}

fn try_live(stage: &Stage) -> Result<(Vec<String>, Option<String>), String> {
    let all = subjects(&stage.parts);
    let mut found = all.iter().filter(|subject| subject.missing.is_none());
    let subject = found
        .find(|subject| subject.name == "java")
        .ok_or("no Java here")?;
    let servers = [Pyroscope::http(), Pyroscope::http()];
    let [address, first, second] = addresses(NUMBER);
    let urls = servers.each_ref().map(Pyroscope::url);
    let pair = Pair::before([&urls[0], &urls[1]], "", [first, second], "none");
    let tap = Tap::listening(address, pair.addresses())?;
    let runtime = RuntimeApi::start(r#"{"seconds":0.1}"#, 0)?;
    let clock = Clock::behind(subject, NAME, FIVE_MINUTES * WAKES, false)?;
    let mut variables = clock.variables()?;
    variables.push(("FUNCTION_UPLOAD_INTERVAL", "100ms".to_owned()));
    let fleet = Fleet::of(NAME, format!("fleet.{NAME}"));
    let function = Function::start(subject, &fleet.service, &runtime, address, NAME, &variables)?;
    runtime.invoke(UPLOAD_GUARD)?;
    for wake in 1..=WAKES {
        function.signal(Signal::SIGSTOP)?;
        pair.freeze();
        clock.set(FIVE_MINUTES * (WAKES - wake))?;
        let_pass(PAUSE);
        pair.thaw(true);
        function.signal(Signal::SIGCONT)?;
        runtime.invoke(UPLOAD_GUARD)?;
    }
    // The end comes as Lambda brings it: the function is gone, and two seconds are left.
    drop(function);
    tap.wait_closed(UPLOAD_GUARD)?;
    let accounts = pair.shut_down_within(Duration::from_secs(2));
    let sent = tap.requests();
    let real = sent.iter().filter_map(identity).collect::<BTreeSet<_>>();
    let of_nothing = sent
        .iter()
        .filter(|request| span(request).is_ok_and(|(begin, end)| begin == end));
    let mut lines = vec![format!(
        "{NAME}: {} uploads in {WAKES} wakes of 100 ms, {} of them with samples, {} of no time at all",
        sent.len(),
        real.len(),
        of_nothing.count()
    )];
    let arrived = servers.map(|server| {
        let requests = server.complete().into_iter();
        let requests: Vec<_> = requests
            .map(|request| {
                let headers = request.head.headers();
                let profiles = decode::profiles(&request.target(), &headers, request.payload());
                (request.payload().to_vec(), profiles)
            })
            .collect();
        let real = requests
            .iter()
            .filter(|(body, profiles)| is_real(profiles) && real.contains(body));
        (requests.len(), real.count())
    });
    for (which, ((all, arrived), account)) in arrived.iter().zip(accounts).enumerate() {
        let name = ["as it is", "with unchanged times"][which];
        lines.push(format!(
            "{NAME}: {name}, of {} with samples {arrived} arrived among {all}; relayed {account}",
            real.len()
        ));
    }
    let wrong = (arrived[0].1 != real.len() || real.is_empty()).then(|| {
        format!(
            "{NAME}: of {} profiles {} arrived",
            real.len(),
            arrived[0].1
        )
    });
    Ok((lines, wrong))
}

/// The uploads without the function.
fn replayed() -> Result<(Vec<String>, Option<String>), String> {
    let name = NAMES[1];
    let read = |bytes| Request::read(bytes).map(|(request, _)| request);
    let real = read(REAL).ok_or("a capture that is not whole")?;
    let of_nothing = read(OF_NOTHING).ok_or("a capture that is not whole")?;
    let servers = [Pyroscope::http(), Pyroscope::http()];
    let [_, first, second] = addresses(NUMBER);
    let urls = servers.each_ref().map(Pyroscope::url);
    let pair = Pair::before([&urls[0], &urls[1]], "", [first, second], "none");
    let mut sdks = pair.addresses().map(Client::connect);
    for wake in 0..WAKES {
        if wake > 0 {
            pair.freeze();
            let_pass(FROZEN);
            pair.thaw(true);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or_default();
        let real = moved_to(&real, now)?.raw();
        let of_nothing = moved_to(&of_nothing, now)?.raw();
        // Both at once, so that both are awake for as long.
        thread::scope(|scope| {
            for sdk in &mut sdks {
                scope.spawn(|| {
                    for upload in 0..=MISSED {
                        sdk.send(if upload == 0 { &real } else { &of_nothing });
                        sdk.expect_ok();
                    }
                });
            }
        });
        let_pass(AWAKE);
    }
    drop(sdks);
    let accounts = pair.shut_down_within(Duration::from_secs(2));
    let arrived = servers.map(|server| {
        let requests = server.complete();
        let is_real = |request: &&pyroscope::Request| request.payload() == real.body.decoded;
        requests.iter().filter(is_real).count()
    });
    let lines = arrived
        .iter()
        .zip(accounts)
        .enumerate()
        .map(|(which, (arrived, account))| {
            let how = ["as it is", "with unchanged times"][which];
            format!("{name}: {how}, of {WAKES} real uploads {arrived} arrived; relayed {account}")
        });
    let wrong = (arrived[0] != WAKES as usize)
        .then(|| format!("{name}: of {WAKES} real uploads {} arrived", arrived[0]));
    Ok((lines.collect(), wrong))
}

/// The body of a request that has samples in it. What the extension changes of a JFR's is its query.
fn identity(request: &Request) -> Option<Vec<u8>> {
    is_real(&request.profiles()).then(|| request.body.decoded.clone())
}

fn is_real(profiles: &Result<Vec<Decoded>, String>) -> bool {
    let any = |profiles: &Vec<Decoded>| {
        profiles
            .iter()
            .any(|one| one.totals.iter().any(|sum| *sum > 0))
    };
    profiles.as_ref().is_ok_and(any)
}

const REAL: &[u8] = include_bytes!("captures/java.http");
const OF_NOTHING: &[u8] = include_bytes!("captures/java-empty.http");

const WAKES: u32 = 50;

/// Intervals of 10 s in five minutes.
const MISSED: usize = 30;

const AWAKE: Duration = Duration::from_millis(100);

/// Long enough for the server's answers, which come meanwhile.
const FROZEN: Duration = Duration::from_secs(1);

const FIVE_MINUTES: u32 = 300;

/// As they pass.
const PAUSE: Duration = Duration::from_secs(3);

/// No fleet's sandbox has it.
const NUMBER: u8 = 100;
