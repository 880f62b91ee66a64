//! Name lookups: `getaddrinfo` on a thread that ends with its answer.
//!
//! The system's resolver knows every way a name can be configured, and blocks. So each lookup gets a thread
//! with a small stack, and wakes the loop when it is done.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::{Registry, Token, Waker};

use crate::contract::Peer;

/// Stack of a lookup: musl's resolver keeps its answers in some 20 KiB of it.
const STACK_BYTES: usize = 64 * 1024;

/// Most addresses taken from one answer.
const ADDRESSES_MAX: usize = 8;

type Answer = (Peer, Result<Vec<SocketAddr>, String>);

/// Lookups under way.
#[derive(Debug)]
pub(super) struct Dns {
    waker: Arc<Waker>,
    sender: Sender<Answer>,
    receiver: Receiver<Answer>,
}

impl Dns {
    /// Prepares lookups whose end is told under `token`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let (sender, receiver) = channel();
        Ok(Self {
            waker: Arc::new(Waker::new(registry, token)?),
            sender,
            receiver,
        })
    }

    /// Looks up `name`, which is `host:port`.
    ///
    /// # Errors
    /// No thread could be had.
    #[expect(clippy::disallowed_methods, reason = "the one thread besides the loop")]
    pub(super) fn resolve(&self, peer: Peer, name: String) -> io::Result<()> {
        let (waker, sender) = (Arc::clone(&self.waker), self.sender.clone());
        let lookup = move || {
            let found = name
                .to_socket_addrs()
                .map(|found| found.take(ADDRESSES_MAX).collect());
            // The loop is gone only when the process is.
            let _ = sender.send((peer, found.map_err(|error| error.to_string())));
            let _ = waker.wake();
        };
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(lookup)?;
        Ok(())
    }

    /// The next answer that has come.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        self.receiver.try_recv().ok()
    }
}
