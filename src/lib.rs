//! Relays continuous profiles from an AWS Lambda function to Pyroscope.
//!
//! Pyroscope's SDKs upload to `localhost:4040`; this process takes each upload, answers at once, and sends it on.
//! It runs as a Lambda extension beside the function, in a sandbox that freezes between invocations.
//!
//! ```text
//!                    ┌────────────────── relay: pure, decides ──────────────────┐
//!   SDK ──POST──▶ inlet ──body──▶ ring ──oldest first──▶ uplink ── https ──▶ Pyroscope
//!       ◀──200──     │  one per client    256 slots          │ PYROSCOPE_NUM_WORKERS
//!                    │                                       └─ backend: is it down?
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
//! | what happens next, and in which order | `relay/step.rs`; SHUTDOWN: `relay/shutdown.rs`; what is due: `relay/timers.rs` |
//! | freezes, seen and unseen | `relay/wakes.rs`; when one is noticed: `shell/freeze.rs` |
//! | what an attempt's end means, retries | `relay/outcome.rs`; when the remote counts as down: `relay/server.rs` |
//! | who goes out when, how many connections | `relay/dispatch.rs` |
//! | when Lambda may freeze us: flush modes | `relay/flush.rs`, its states: `relay/phase.rs`; what telemetry says: `lambda/telemetry.rs` |
//! | memory, who gives way, the account | `relay/ring/` |
//! | how a client is served | `relay/inlet/`; how many there may be, where they connect to: `relay/clients.rs` |
//! | the relayed request | `relay/forward.rs`, its `name` label: `relay/labels.rs`; the times in it: `times/` |
//! | a request to the remote, how its connection died | `relay/uplink/` |
//! | a connection to the remote | `relay/transport.rs`, a proxy's: `relay/tunnel.rs`; TLS: `tls/`, whom it trusts: `tls/trust.rs` |
//! | addresses and trusted roots | `relay/peers.rs` |
//! | credentials by reference: when they are read | `relay/credentials/`, one request to a store: `relay/inquiry.rs` |
//! | what AWS's stores are asked, and answer | `aws/store.rs`, signatures: `aws/sigv4.rs`; what a setting may name: `config/reference.rs` |
//! | what is logged of a server's answer | `relay/phrases.rs`; how often: `relay/report.rs` |
//! | the Extensions API | `lambda/` |
//! | HTTP framing, for all three sides | `http1/` |
//! | a setting | `config/`; a log line's form: `log/`, how it is written: `shell/stderr.rs` |
//! | `--help`, `--version`, `--check` | `cli.rs`, and `shell/check.rs` for the doing |
//! | what core and shell say to each other | `contract.rs` |
//! | sockets, polling, signals, DNS | `shell/` |
//! | the profile of the extension itself | `profile.rs`; into the ring: `relay/itself.rs`; the clock: `shell/stages.rs` |
//!
//! Imports run downward: main → shell → cli, relay → inlet, uplink, lambda → ring, forward → labels, times, http1 →
//! profile, json, config, log, contract.

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
