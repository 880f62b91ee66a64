//! Measures which stage the loop is in, and for how long by the process's CPU clock, if this is enabled.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::profile::{CpuTimes, Stage};

/// Counts CPU time per stage. When off, it does nothing.
#[derive(Debug)]
pub(super) struct Stages {
    on: bool,
    current: Stage,
    since_ns: u64,
    spent: CpuTimes,
}

impl Stages {
    /// All time before this counts for the first stage.
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            current: Stage::Start,
            since_ns: 0,
            spent: CpuTimes::default(),
        }
    }

    /// Enters that stage.
    pub(super) fn enter(&mut self, stage: Stage) {
        if !self.on || stage == self.current {
            return;
        }
        // Every Linux has this clock; without it all profiles are empty, and none is sent.
        if let Ok(time) = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) {
            let now_ns = Duration::from(time).as_nanos() as u64;
            self.spent
                .charge(self.current, now_ns.saturating_sub(self.since_ns));
            self.since_ns = now_ns;
        }
        self.current = stage;
    }

    /// The same, if finding the stage costs time.
    #[inline]
    pub(super) fn enter_with(&mut self, stage: impl FnOnce() -> Stage) {
        if self.on {
            self.enter(stage());
        }
    }

    /// The time used since the last call, up to the last change of stage.
    pub(super) fn take(&mut self) -> Option<CpuTimes> {
        self.on.then(|| std::mem::take(&mut self.spent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() {
        let time = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
        let began = time();
        while time() == began {}
    }

    #[test]
    fn time_is_charged_when_the_stage_changes() {
        let mut stages = Stages::new(true);
        stages.enter(Stage::Step);
        assert_ne!(stages.take(), Some(CpuTimes::default()), "the start");
        work();
        stages.enter(Stage::Step);
        assert_eq!(stages.take(), Some(CpuTimes::default()), "it goes on");
        stages.enter_with(|| Stage::Sleep);
        assert_ne!(stages.take(), Some(CpuTimes::default()));
    }

    #[test]
    fn off_it_does_nothing() {
        let mut stages = Stages::new(false);
        stages.enter_with(|| unreachable!("nobody asks for the stage"));
        stages.enter(Stage::Step);
        assert_eq!(stages.take(), None);
    }
}
