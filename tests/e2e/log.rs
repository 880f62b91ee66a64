//! What a process and those it starts write, in the order in which it came.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::sync::Arc;
use std::thread;

use crate::support::monitor::Monitor;

#[derive(Clone, Default)]
pub struct Log {
    pub lines: Vec<String>,
    /// All that could write to it have ended.
    pub closed: bool,
}

impl Log {
    /// Of what comes out of a pipe, until nobody holds its other end. `copy` gets it too.
    pub fn collected(reader: PipeReader, mut copy: File) -> Arc<Monitor<Self>> {
        let log = Arc::new(Monitor::new(Self::default()));
        let collecting = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                // The copy is for the reader of a failed run; without it the run goes on.
                let _ = writeln!(copy, "{line}");
                collecting.change(|log| log.lines.push(line));
            }
            collecting.change(|log| log.closed = true);
        });
        log
    }
}
