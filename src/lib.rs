//! Relays continuous profiles from an AWS Lambda function to Pyroscope.
//!
//! Pyroscope's SDKs upload to `localhost:4040`; this process takes each upload, answers at once, and sends it on.
//! It runs as a Lambda extension beside the function, in a sandbox that freezes between invocations.
//!
//! ```text
//!                    ┌────────────────── relay: pure, decides ──────────────────┐
//!   SDK ──POST──▶ inlet ──body──▶ ring ──oldest first──▶ uplink ── https ──▶ Pyroscope
//!       ◀──200──     │  one per client    256 slots          │ PYROSCOPE_NUM_WORKERS
//!                    │                                       └─ server: is it down?
//!                    │          step: all policy
//!   Lambda ◀────▶ lambda: register, next, INVOKE, SHUTDOWN
//!                    └──────────────────────────┬───────────────────────────────┘
//!                            facts in, commands out: bytes, times, ids
//!                    ┌──────────────────────────┴───────────────────────────────┐
//!                    └─── shell: the poll, the sockets, the clock, a DNS thread ─┘
//! ```
//!
//! # What holds
//!
//! * The core never touches a socket, a clock, the environment or a thread.
//! * Handlers record facts; [`relay::Relay::step`] decides. No handler starts work on another connection.
//! * Every payload answered with 200 ends as relayed or as lost for a named reason, or is still in the ring.
//! * Asking Lambda for the next event is the permission to freeze us, so it is one visible decision in `step`.
//! * After registering, the process does not exit by itself: Lambda would fail the function for it.
//!
//! # Where a change belongs
//!
//! | to change | go to |
//! |---|---|
//! | what happens next, and in which order | `relay/step.rs`; what is due when: `relay/timers.rs` |
//! | what happens at SHUTDOWN | `relay/shutdown.rs`; what is logged then: `relay/report.rs` |
//! | freezes | detected in `shell/freeze.rs`, handled in `relay/wakes.rs` |
//! | retries and their pauses, what the end of an attempt means | `relay/outcome.rs`; when the server counts as down: `relay/server.rs` |
//! | which payload is sent next, how many connections | `relay/dispatch.rs` |
//! | flush modes: when Lambda may freeze us | `relay/flush.rs`; the values of the setting: `config/mod.rs`; states: `relay/phase.rs`; telemetry: `lambda/telemetry.rs` |
//! | memory, what is dropped when it is full, the account | `relay/ring/` |
//! | how a client is served | `relay/inlet/`; how many clients, on which addresses: `relay/clients.rs` |
//! | the relayed request | `relay/forward.rs`; the label in a profile's name: `relay/labels.rs`; the times in it: `times/` |
//! | a request to the server, and how it ends | `relay/uplink/` |
//! | a connection to the server | `relay/transport.rs`, through a proxy: `relay/tunnel.rs`; TLS: `tls/`, trusted roots: `tls/trust.rs`, its errors in words: `tls/words.rs` |
//! | to which part a connection belongs | `relay/owner.rs`; what a fact does: `relay/mod.rs` |
//! | name lookups, when roots are read | `relay/peers.rs` |
//! | credentials by reference | `relay/credentials/`, one request to a store: `relay/inquiry.rs`; their syntax: `config/reference.rs`, ARNs: `config/reference/arn.rs` |
//! | requests to AWS's stores, and their answers | `aws/store.rs`, signatures: `aws/sigv4.rs` |
//! | what is logged, how often | `relay/report.rs`; of a server's answer: `relay/phrases.rs` |
//! | the format of a log line | `log/`; how it is written: `shell/stderr.rs` |
//! | the Extensions API | `lambda/` |
//! | HTTP framing, for all three sides | `http1/`; why a request is refused, and with which status: `http1/refusal.rs` |
//! | a setting | `config/mod.rs`, those of the server: `config/server.rs`; its line of `--help` in `cli.rs`; JSON in settings and events: `json.rs` |
//! | `--help`, `--version`, `--check` | `cli.rs`; the steps of `--check`: `shell/check.rs`, its verdict: `shell/check/verdict.rs` |
//! | the types that core and shell share | `contract.rs` |
//! | sockets, polling, signals, DNS, files of roots | `shell/` |
//! | the profile of the extension itself | `profile.rs`; into the ring: `relay/itself.rs`; the clock: `shell/stages.rs` |
//!
//! Imports go one way, from left to right: main → shell → cli, relay → lambda, profile, tls, times → config → aws → http1,
//! json, log, contract. `config` uses `aws`, because a setting may name a secret there. Inside `relay`: policy (`impl
//! Relay`) → credentials → inlet, uplink → forward, transport → ring, labels, tunnel.

#![forbid(unsafe_code)]
#![warn(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications
)]
#![warn(clippy::all, clippy::pedantic, clippy::missing_const_for_fn)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::dbg_macro
)]
#![allow(
    clippy::cast_possible_truncation, // on the 64-bit targets we build for, usize and u64 are one size
    clippy::cast_precision_loss,      // one place does as Go does, in floating point
    clippy::module_name_repetitions
)]

pub mod aws;
pub mod cli;
pub mod config;
pub mod contract;
pub mod http1;
pub mod json;
pub mod lambda;
pub mod log;
pub mod profile;
pub mod relay;
pub mod shell;
pub mod times;
pub mod tls;
