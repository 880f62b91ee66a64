//! A thousand sandboxes, all in the same second: requests that SDKs sent, replayed through as many extensions.
//!
//! Each sandbox is two processes of the extension, each registered and invoked, that get one and the same request; a
//! few dozen sandboxes run at a time, since what counts is not when they send, but the time in what they send, and
//! that is in the same second for all. An SDK with times of whole seconds writes the same for all, one with
//! milliseconds any of the thousand. The requests are in `captures`, as they were seen, and only the time is changed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Fleet;
use super::sandbox::{Account, Pair};
use super::tap::Request;
use super::times::{moved_to, resolution, times};
use crate::Stage;
use crate::support::client::Client;

/// A capture: its name, the package it is of, the request.
const CAPTURES: [(&str, &str, &[u8]); 4] = [
    (
        "thousand-rust",
        "pyroscope 2.1.5",
        include_bytes!("captures/rust.http"),
    ),
    (
        "thousand-python-ingest",
        "pyroscope-io 0.8.16",
        include_bytes!("captures/python-ingest.http"),
    ),
    (
        "thousand-java",
        "io.pyroscope:agent 2.9.2",
        include_bytes!("captures/java.http"),
    ),
    (
        "thousand-nodejs",
        "@pyroscope/nodejs 0.6.4",
        include_bytes!("captures/nodejs.http"),
    ),
];

pub fn names() -> impl Iterator<Item = String> {
    CAPTURES.iter().map(|(name, _, _)| (*name).to_owned())
}

pub fn live(stage: &Stage, name: &str) -> Fleet {
    let mut fleet = Fleet::of(name, String::new());
    if let Err(error) = try_live(stage, &mut fleet) {
        fleet.wrong.push(error);
    }
    fleet
}

fn try_live(stage: &Stage, fleet: &mut Fleet) -> Result<(), String> {
    let mut captures = CAPTURES.iter();
    let capture = captures.find(|(name, _, _)| *name == fleet.name);
    let (_, sdk, bytes) = capture.ok_or("no capture")?;
    let (request, _) = Request::read(bytes).ok_or("a capture that is not whole")?;
    let profiles = request.profiles()?;
    let profile = profiles.first().ok_or("a capture without a profile")?;
    fleet.service.clone_from(&profile.app);
    (*sdk).clone_into(&mut fleet.sdk);
    fleet.sandboxes = SANDBOXES;
    let second = this_second();
    let (_, is_coarse) = resolution(&times(&request)?);
    let time = |number| {
        if is_coarse {
            second
        } else {
            second + any_ms(number)
        }
    };
    fleet.requests = (0..SANDBOXES)
        .map(|number| moved_to(&request, time(number)))
        .collect::<Result<_, _>>()?;
    let certificate = stage.authority.pem_file();
    let (next, requests, certificate) = (AtomicUsize::new(0), &fleet.requests, certificate.path());
    let workers: Vec<_> = thread::scope(|scope| {
        let work = || {
            let mut sums = <[Account; 2]>::default();
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                for (sum, account) in sums.iter_mut().zip(one(request, certificate)) {
                    sum.add(account);
                }
            }
            sums
        };
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    for sums in workers {
        let sums = sums.map_err(|_| "a sandbox panicked")?;
        for (sum, account) in fleet.accounts.iter_mut().zip(sums) {
            sum.add(account);
        }
    }
    Ok(())
}

/// A sandbox that uploads once.
fn one(request: &Request, certificate: &Path) -> [Account; 2] {
    let pair = Pair::start(certificate, [ANY_PORT; 2]);
    for address in pair.addresses() {
        let mut sdk = Client::connect(address);
        sdk.send(request.raw());
        sdk.expect_ok();
    }
    pair.shut_down()
}

/// The second in which all is: one that is over, and with which an interval of ten begins.
fn this_second() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let tens = now.unwrap_or_default().as_secs() / 10;
    i64::try_from(tens.saturating_sub(1) * 10).unwrap_or_default() * 1_000_000_000
}

/// A millisecond of the second, by chance, and the same one each time: Fibonacci hashing.
fn any_ms(number: usize) -> i64 {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    i64::try_from((mixed >> 33) % 1000).unwrap_or_default() * 1_000_000
}

pub const SANDBOXES: usize = 1000;

/// Each is two processes.
const AT_A_TIME: usize = 24;

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
