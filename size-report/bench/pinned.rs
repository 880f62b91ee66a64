//! One CPU for all: what is measured one after another is not to depend on where the system puts it.
//!
//! A process that is woken on the other CPU takes several times as long as one on the same, and which it will be
//! differs from minute to minute. Where clients and the server work at once, nothing is pinned.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// While this lives, this thread has one CPU, and so have all whom it starts.
pub struct Pinned {
    before: CpuSet,
}

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

impl Pinned {
    pub fn start() -> Self {
        let before = sched_getaffinity(SELF).expect("the CPUs we may use");
        // Not the first: interrupts prefer it.
        let last = (0..CpuSet::count())
            .rev()
            .find(|&cpu| before.is_set(cpu) == Ok(true));
        let mut one = CpuSet::new();
        one.set(last.expect("a CPU")).expect("a CPU there is");
        sched_setaffinity(SELF, &one).expect("a CPU of our choice");
        Self { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Where it fails, the rest is measured on one CPU: slower, but not wrong.
        let _ = sched_setaffinity(SELF, &self.before);
    }
}
