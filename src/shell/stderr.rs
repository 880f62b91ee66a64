//! Writes the log to standard error, and never waits for its reader.
//!
//! If the reader is slow, a write to a full pipe would block the only thread. Standard error is not made non-blocking,
//! because other processes may write to the same pipe and would share that flag. `poll` says whether there is space,
//! and one write is no larger than what a pipe with space accepts.

use std::io::{ErrorKind, Write as _, stderr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::log::Log;

use super::clock;

/// Most bytes written at once. A pipe that is ready for writing accepts this many without blocking (`PIPE_BUF`).
const CHUNK_BYTES_MAX: usize = 4096;

/// Writes the collected log, as far as there is space before `until`; without it, as far as there is space now. The
/// rest stays in the log.
pub(super) fn write(log: &mut Log, until: Option<Instant>) {
    loop {
        let lines = log.take();
        if lines.is_empty() || !has_room(until) {
            return;
        }
        match stderr().write(chunk(lines)) {
            Ok(n) => drop(lines.drain(..n)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // The reader has closed the pipe, and there is nowhere to report it.
            Err(_) => lines.clear(),
        }
    }
}

/// Whole lines if possible, so that other processes' output to the same pipe comes between lines.
fn chunk(lines: &[u8]) -> &[u8] {
    let most = &lines[..lines.len().min(CHUNK_BYTES_MAX)];
    let end = most.iter().rposition(|byte| *byte == b'\n');
    end.map_or(most, |end| &most[..=end])
}

/// Whether a write would not block, or would fail at once.
fn has_room(until: Option<Instant>) -> bool {
    let patience = until.map_or(Duration::ZERO, |until| {
        until.saturating_duration_since(clock().mono)
    });
    let patience = PollTimeout::from(u16::try_from(patience.as_millis()).unwrap_or(u16::MAX));
    let stderr = stderr();
    let mut wanted = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut wanted, patience).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_ends_with_a_line_where_it_can() {
        assert_eq!(chunk(b"a\nbc"), b"a\n");
        assert_eq!(chunk(b"a\nb\n"), b"a\nb\n");
        assert_eq!(chunk(b"abc"), b"abc");
        let long = [b'x'; CHUNK_BYTES_MAX + 1];
        assert_eq!(chunk(&long).len(), CHUNK_BYTES_MAX);
        let lines = [&b"first\n"[..], &long, b"\n"].concat();
        assert_eq!(chunk(&lines), b"first\n");
    }
}
