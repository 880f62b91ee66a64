//! What was measured, round by round, and what is made of it.

/// One thing measured of every subject.
pub struct Row {
    /// The part of the table it is in.
    pub group: &'static str,
    pub what: String,
    pub unit: Unit,
    /// What ours is compared with, by round: mostly the floor.
    pub base: Vec<f64>,
    pub ours: Vec<f64>,
    /// The released Go extension's, where it could be had.
    pub released: Vec<f64>,
    pub judged: Judged,
    pub promise: Option<f64>,
    /// Why there are no figures, or what they are worth.
    pub remark: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Micros,
    Millis,
    Kib,
    Bytes,
    PerSecond,
    Count,
}

/// Which figure is compared with the promise and with what was recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Ours over the base, of the same round; less is better.
    Ratio,
    /// The same, but more is better.
    RatioOfMore,
    /// Ours as it is; less is better.
    Itself,
}

/// What is a quarter worse than recorded is marked.
const WORSE: f64 = 1.25;

impl Row {
    /// A row without figures yet.
    pub fn new(group: &'static str, what: impl Into<String>, unit: Unit, judged: Judged) -> Self {
        Self {
            group,
            what: what.into(),
            unit,
            base: Vec::new(),
            ours: Vec::new(),
            released: Vec::new(),
            judged,
            promise: None,
            remark: None,
        }
    }

    pub fn promised(mut self, promise: impl Into<Option<f64>>) -> Self {
        self.promise = promise.into();
        self
    }

    /// Adds one round's figure of the subject with this number.
    pub fn add(&mut self, subject: usize, figure: f64) {
        match subject {
            crate::subjects::FLOOR => self.base.push(figure),
            crate::subjects::OURS => self.ours.push(figure),
            _ => self.released.push(figure),
        }
    }

    /// What is compared.
    pub fn judged(&self) -> Spread {
        self.over_base(&self.ours)
    }

    /// The same of the Go extension.
    pub fn released(&self) -> Option<Spread> {
        (!self.released.is_empty()).then(|| self.over_base(&self.released))
    }

    fn over_base(&self, figures: &[f64]) -> Spread {
        if self.judged == Judged::Itself {
            return Spread::of(figures);
        }
        let ratios: Vec<f64> = figures
            .iter()
            .zip(&self.base)
            .map(|(own, base)| own / base)
            .collect();
        Spread::of(&ratios)
    }

    /// The Go extension's figure over ours, where both are more than nothing.
    pub fn released_over_ours(&self) -> Option<f64> {
        let (own, other) = (Spread::of(&self.ours), Spread::of(&self.released));
        let times = other.median / own.median;
        (times.is_finite() && times > 0.0).then_some(times)
    }

    /// Whether the Go extension's figure is the better one, by more than chance: most of its rounds are better than most of ours.
    pub fn released_is_better(&self) -> bool {
        let (own, other) = (Spread::of(&self.ours), Spread::of(&self.released));
        match self.judged {
            Judged::RatioOfMore => other.low > own.high,
            Judged::Ratio | Judged::Itself => other.high < own.low,
        }
    }

    /// Whether the figure is on the wrong side of the limit.
    pub fn breaks(&self, figure: f64, limit: f64) -> bool {
        match self.judged {
            Judged::RatioOfMore => figure < limit,
            Judged::Ratio | Judged::Itself => figure > limit,
        }
    }

    /// Whether the figure is a quarter worse than it was, and three rounds of four were worse at all.
    pub fn is_worse(&self, recorded: f64) -> bool {
        let judged = self.judged();
        let (limit, best) = match self.judged {
            Judged::RatioOfMore => (recorded / WORSE, judged.high),
            Judged::Ratio | Judged::Itself => (recorded * WORSE, judged.low),
        };
        self.breaks(judged.median, limit) && self.breaks(best, recorded)
    }
}

/// A median and the quartiles around it.
#[derive(Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            low: quantile(&sorted, 1, 4),
            median: quantile(&sorted, 1, 2),
            high: quantile(&sorted, 3, 4),
        }
    }
}

/// The figure below which `part` of `parts` are; of none, none.
pub fn quantile(sorted: &[f64], part: usize, parts: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * part / parts).copied().unwrap_or(f64::NAN)
}

pub fn micros(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
