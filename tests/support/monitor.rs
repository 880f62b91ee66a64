//! Shared state that can be waited on: the bench's only way to wait.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait may last before the test fails. Far above what any step takes, so that a loaded
/// machine or an emulated processor never trips it; it only turns a hang into a failure.
pub const GUARD: Duration = Duration::from_secs(30);

/// Lets time pass: where time itself is what the test is about, such as how long a freeze lasts. Never to wait for
/// something to happen.
pub fn let_pass(time: Duration) {
    Monitor::new(()).wait_within(time, |()| None::<()>);
}

/// A value and the news that it changed.
pub struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Monitor<T> {
    pub fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Condvar::new(),
        }
    }

    /// Changes the value and wakes everyone who waits.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Reads the value.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `found` finds something; panics with `what` when [`GUARD`] has passed.
    #[track_caller]
    pub fn wait<R>(&self, what: &str, found: impl FnMut(&mut T) -> Option<R>) -> R {
        self.wait_within(GUARD, found)
            .unwrap_or_else(|| panic!("waited {GUARD:?} in vain for {what}"))
    }

    /// Waits until `found` finds something, at most `limit`.
    pub fn wait_within<R>(
        &self,
        limit: Duration,
        mut found: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let until = Instant::now() + limit;
        let mut value = self.lock();
        loop {
            if let Some(result) = found(&mut value) {
                // A wait may take what it found, which others may be waiting to see gone.
                self.changed.notify_all();
                return Some(result);
            }
            let left = until.checked_duration_since(Instant::now())?;
            value = self
                .changed
                .wait_timeout(value, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
