//! Name lookups: `getaddrinfo` on a thread that ends with its answer.
//!
//! The system's resolver supports every way to configure names, and blocks. So each lookup gets a thread with a small
//! stack, which wakes the loop when it is done.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};

use mio::{Registry, Token, Waker};

use crate::contract::Peer;

/// Stack size of a lookup: musl's resolver keeps its answers in about 20 KiB of it.
const STACK_BYTES: usize = 64 * 1024;

/// Most addresses taken from one answer.
const ADDRESSES_MAX: usize = 8;

type Answer = (Peer, Result<Vec<SocketAddr>, String>);

/// The current lookups.
#[derive(Debug)]
pub(super) struct Dns {
    shared: Arc<Shared>,
}

/// What the loop shares with the threads. A channel would need 7 KB more code.
#[derive(Debug)]
struct Shared {
    waker: Waker,
    /// In the order of their arrival.
    answers: Mutex<VecDeque<Answer>>,
}

impl Dns {
    /// Prepares lookups, whose end is reported under `token`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(registry: &Registry, token: Token) -> Result<Self, String> {
        let waker = Waker::new(registry, token)
            .map_err(|error| refused("no descriptor for the name lookup: ", &error))?;
        Ok(Self {
            shared: Arc::new(Shared {
                waker,
                answers: Mutex::default(),
            }),
        })
    }

    /// Looks up `name`, which is `host:port`.
    ///
    /// # Errors
    /// No thread could be started.
    #[expect(clippy::disallowed_methods, reason = "the one thread besides the loop")]
    pub(super) fn resolve(&self, peer: Peer, name: String) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let lookup = move || {
            let found = name
                .to_socket_addrs()
                .map(|found| found.take(ADDRESSES_MAX).collect())
                .map_err(|error| error.to_string());
            // No code panics while it holds the lock, so locking always succeeds.
            if let Ok(mut answers) = shared.answers.lock() {
                answers.push_back((peer, found));
            }
            // The loop ends only with the process.
            let _ = shared.waker.wake();
        };
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(lookup)
            .map_err(|error| refused("no thread for the name lookup: ", &error))?;
        Ok(())
    }

    /// The next answer that has arrived.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.shared.answers.lock().ok()?.pop_front()
    }
}

/// Why a lookup could not be started.
fn refused(what: &str, error: &io::Error) -> String {
    [what, &error.to_string()].concat()
}
