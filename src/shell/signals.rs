//! SIGTERM and SIGINT as readable events: the signals are blocked, and read from a descriptor.

use std::io;
use std::os::fd::AsRawFd as _;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that ask us to exit.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Takes the signals over; their arrival is reported under `token`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        registry.register(
            &mut SourceFd(&descriptor.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        // This comes last: until now a signal ends the process, as it would without us.
        set.thread_block()?;
        Ok(Self { descriptor })
    }

    /// Whether one has arrived.
    pub(super) fn arrived(&mut self) -> bool {
        matches!(self.descriptor.read_signal(), Ok(Some(_)))
    }
}
