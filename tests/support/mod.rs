//! The bench: everything outside the extension, scripted, and the extension itself as a child process.
//!
//! ```text
//!   Client ──▶ the extension under test (Sandbox) ──▶ Pyroscope     the server: http or https
//!   (an SDK)        │            ▲                    (Certificates made at test time)
//!                   ▼            │ signals, log lines
//!             ExtensionsApi   (Lambda's side)
//! ```
//!
//! Rules of the bench:
//! - Nothing here sleeps. What must have happened is waited for ([`monitor`]), with a guard that fails loudly.
//! - What was received is kept byte for byte ([`message`]); a test compares bytes, not an idea of them.
//! - Every listener takes a port of its own from the kernel, so tests run side by side.
//! - The stand-ins are strict: what the real service would refuse fails the test.
//! - No log line holds a secret ([`secrets`]): every sandbox looks, in every test.
//!
//! Used by the integration tests as `mod support;`, by the demo and the end-to-end programs through `#[path]`.

#![allow(dead_code, reason = "each program uses its own part of the bench")]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans on clocks, threads and the environment are for the extension, not for its surroundings"
)]

pub mod cases;
pub mod certificates;
pub mod client;
pub mod extensions_api;
pub mod message;
pub mod monitor;
pub mod name_server;
pub mod pieces;
pub mod play;
pub mod proxy;
pub mod pyroscope;
pub mod sandbox;
pub mod secrets;
pub mod store;
