//! Made-up time, and what is to happen when.
//!
//! There are two times: the sandbox's, which stands still while it is frozen, and the world's, which never does.
//! What goes on inside (clients, Lambda's API) is put down for a time awake; what goes on outside (the server,
//! the network) for the time on the wall. Of the two clocks the core is shown, the one on the wall always goes
//! on; whether the monotonic one does is up to each freeze.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pyroscope_lambda_extension::contract::Now;

/// All times in microseconds.
pub struct Clock<H> {
    origin: Instant,
    awake: u64,
    frozen: u64,
    frozen_unseen: u64,
    inside: BTreeMap<(u64, u64), H>,
    outside: BTreeMap<(u64, u64), H>,
    number: u64,
}

impl<H> Clock<H> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a made-up clock has to start somewhere"
    )]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            awake: 0,
            frozen: 0,
            frozen_unseen: 0,
            inside: BTreeMap::new(),
            outside: BTreeMap::new(),
            number: 0,
        }
    }

    pub fn now(&self) -> Now {
        Now {
            mono: self.origin + Duration::from_micros(self.mono()),
            unix_ms: 1_800_000_000_000 + self.wall() / 1000,
        }
    }

    /// What the monotonic clock shows.
    pub const fn mono(&self) -> u64 {
        self.awake + self.frozen - self.frozen_unseen
    }

    pub const fn wall(&self) -> u64 {
        self.awake + self.frozen
    }

    /// Time awake since then, itself a time awake.
    pub const fn awake_since(&self, then: u64) -> u64 {
        self.awake - then
    }

    pub const fn awake(&self) -> u64 {
        self.awake
    }

    pub fn inside(&mut self, after: u64, what: H) {
        self.number += 1;
        self.inside.insert((self.awake + after, self.number), what);
    }

    pub fn outside(&mut self, after: u64, what: H) {
        self.number += 1;
        self.outside
            .insert((self.wall() + after, self.number), what);
    }

    /// How long until something happens, if nobody freezes.
    pub fn until_next(&self) -> Option<u64> {
        let inside = self.inside.keys().next().map(|(at, _)| *at);
        let outside = self.outside.keys().next().map(|(at, _)| *at);
        let next = [
            inside.map(|at| at.saturating_sub(self.awake)),
            outside.map(|at| at.saturating_sub(self.wall())),
        ];
        next.into_iter().flatten().min()
    }

    /// What happens now, one at a time.
    pub fn due(&mut self) -> Option<H> {
        let wall = self.wall();
        if let Some(first) = self.inside.first_entry()
            && first.key().0 <= self.awake
        {
            return Some(first.remove());
        }
        let first = self.outside.first_entry()?;
        (first.key().0 <= wall).then(|| first.remove())
    }

    /// What happens next inside, if it is due and of that kind.
    pub fn due_if(&mut self, is: impl Fn(&H) -> bool) -> Option<H> {
        let first = self.inside.first_entry()?;
        (first.key().0 <= self.awake && is(first.get())).then(|| first.remove())
    }

    pub const fn pass(&mut self, time: u64) {
        self.awake += time;
    }

    /// Frozen for so long; `stands_still`: the monotonic clock shows nothing of it.
    pub const fn freeze(&mut self, time: u64, stands_still: bool) {
        self.frozen += time;
        if stands_still {
            self.frozen_unseen += time;
        }
    }
}

/// Unix seconds as RFC 3339 writes them, in one of three time zones.
pub fn rfc3339(seconds: u64, zone: u64) -> String {
    let (offset, suffix) = [(0, "Z"), (7200, "+02:00"), (-12_600, "-03:30")][zone as usize];
    let local = seconds as i64 + offset;
    let (days, time) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days: years that begin in March, in eras of 400.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}{suffix}")
}
