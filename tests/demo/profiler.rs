//! A profiler of a few lines: which function burned how much CPU, measured by the thread's own clock.

use std::any::type_name;
use std::collections::BTreeMap;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CPU time by call stack, outermost function first.
#[derive(Default)]
pub struct Profiler {
    stack: Vec<&'static str>,
    /// What the callees of each function on the stack have burned; theirs is not its own.
    callees: Vec<Duration>,
    pub own_time: BTreeMap<Vec<&'static str>, Duration>,
}

impl Profiler {
    /// Calls `function` and books the CPU time it burns under its name.
    pub fn call<A, F: FnOnce(&mut Self, A)>(&mut self, function: F, argument: A) {
        self.stack.push(type_name::<F>());
        self.callees.push(Duration::ZERO);
        let before = cpu_time();
        function(self, argument);
        let burned = cpu_time().saturating_sub(before);
        let callees = self.callees.pop().unwrap_or_default();
        *self.own_time.entry(self.stack.clone()).or_default() += burned.saturating_sub(callees);
        self.stack.pop();
        if let Some(caller) = self.callees.last_mut() {
            *caller += burned;
        }
    }

    /// All CPU time booked.
    pub fn total(&self) -> Duration {
        self.own_time.values().sum()
    }
}

/// The CPU time this thread has used.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("a clock that Linux has")
        .into()
}
