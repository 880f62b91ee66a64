//! How the server and the network before it are, and which connections die without a word.
//!
//! A connection that has gone silent takes bytes, perhaps not all of them, and nothing comes back any more: no
//! answer, no FIN, no RST. So end most connections in a long freeze, because what stands between forgets them;
//! and in a black hole all of them do, at any time.

use std::net::SocketAddr;

use pyroscope_lambda_extension::contract::{ConnId, End};
use std::io::ErrorKind;

use super::chance::Chance;
use super::world::{Happening, Who, World};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Weather {
    #[default]
    Good,
    /// Good, and as far away as Pyroscope often is: half a second for an answer, more or less.
    HalfSecond,
    Refuses,
    Silent,
    /// What there was goes silent, and what comes, comes and goes silent as well.
    BlackHole,
    /// Half of the addresses are silent.
    OneSided,
    Flaky,
    /// It can be reached, and is of no use.
    Failing(Failure),
    /// It has had enough for today.
    Limited,
    Nameless,
}

/// In which way it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Mixed,
    Always(u16),
    /// With that `Retry-After`.
    Asks(u16, u64),
}

/// The weather, and what is to be known of it.
#[derive(Debug, Default)]
pub struct Sky {
    pub weather: Weather,
    /// When it began, in time awake and by the monotonic clock.
    pub since: u64,
    pub mono: u64,
    /// When the limit of the day ends, in Unix seconds.
    pub reset: u64,
    /// Which of the addresses are silent: the even, or the odd.
    pub silent_side: usize,
    /// It does not change any more.
    pub stays: bool,
}

/// Statuses that mend by themselves.
pub const PASSING: [u16; 17] = [
    408, 425, 429, 500, 502, 503, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529, 530,
];

/// From here on no connection is expected to live through a freeze.
const FREEZE_DEADLY: u64 = 300_000_000;

impl Weather {
    /// All that is asked for is given, sooner or later.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Good | Self::HalfSecond)
    }
}

impl World {
    pub fn weather_changes(&mut self) {
        if self.server.sky.stays && !self.good_for_ever {
            return;
        }
        let weather = if self.good_for_ever {
            self.good_weather()
        } else {
            self.any_weather()
        };
        self.weather_is(weather);
        if self.good_for_ever {
            return;
        }
        let lasts = match weather {
            Weather::Failing(_) if self.chance.one_in(2) => {
                self.chance.between(60_000_000, 90_000_000)
            }
            Weather::Failing(_) => self.chance.between(8_000_000, 20_000_000),
            _ => self.chance.between(50_000, 20_000_000),
        };
        self.clock.outside(lasts, Happening::Weather);
    }

    pub fn weather_is(&mut self, weather: Weather) {
        let before = self.server.sky.weather;
        let lasted = self.clock.awake() - self.server.sky.since;
        if matches!(before, Weather::Failing(_)) && weather.is_good() && lasted >= 60_000_000 {
            self.note("a minute of failing, then good");
        }
        self.is_not_clear();
        if weather == Weather::BlackHole {
            for id in self.server_wires() {
                self.goes_silent(id);
            }
        }
        self.server.sky = Sky {
            weather,
            since: self.clock.awake(),
            mono: self.clock.mono(),
            reset: 0,
            silent_side: self.chance.below(2) as usize,
            stays: self.server.sky.stays,
        };
        if weather == Weather::Limited {
            let seconds = self.chance.pick(&[2, 10, 70, 86_400]);
            self.server.sky.reset = self.now().unix_ms / 1000 + seconds;
        }
        self.tell(|| format!("weather: {weather:?}"));
    }

    fn good_weather(&mut self) -> Weather {
        // Whoever waits for less gets no answer then, for ever.
        if self.set.timeout > 2_000_000 && self.chance.one_in(2) {
            Weather::HalfSecond
        } else {
            Weather::Good
        }
    }

    fn any_weather(&mut self) -> Weather {
        if self.chance.below(5) < 2 {
            return self.good_weather();
        }
        match self.chance.below(16) {
            0 | 1 => Weather::Refuses,
            2 | 3 => Weather::Silent,
            4 => Weather::BlackHole,
            5 => Weather::OneSided,
            6..=8 => Weather::Flaky,
            9..=11 => Weather::Failing(failure(&mut self.chance)),
            12 => Weather::Limited,
            _ => Weather::Nameless,
        }
    }

    fn server_wires(&self) -> Vec<ConnId> {
        let server = self
            .wires
            .iter()
            .filter(|(_, wire)| wire.who == Who::Server);
        server.map(|(id, _)| *id).collect()
    }

    /// Whether that address does not answer in this weather.
    pub fn is_silent(&self, address: SocketAddr) -> bool {
        match self.server.sky.weather {
            Weather::Silent => true,
            Weather::OneSided => match address {
                SocketAddr::V4(address) => {
                    usize::from(address.ip().octets()[3]) % 2 == self.server.sky.silent_side
                }
                SocketAddr::V6(_) => self.server.sky.silent_side == 0,
            },
            _ => false,
        }
    }

    /// Nothing comes back on that connection any more.
    pub fn goes_silent(&mut self, id: ConnId) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.silent) else {
            return;
        };
        wire.silent = true;
        // The system takes so much, and waits for the peer to confirm it.
        if self.chance.one_in(2) {
            wire.room = usize::MAX;
        }
        if wire.connecting {
            self.note("silent death while connecting");
        } else if self.server.is_asked(id) {
            self.note("silent death in an exchange");
        } else {
            self.note("silent death while idle");
        }
        self.tell(|| format!("{id:?} goes silent"));
        self.server.is_gone(id);
    }

    /// The sandbox freezes: what becomes of its connections meanwhile.
    pub fn server_freezes(&mut self, time: u64) {
        for id in self.server_wires() {
            let deadly = if time >= FREEZE_DEADLY { 10 } else { 1 };
            if self.chance.below(11) >= deadly {
                continue;
            }
            let after = self.chance.any_scale(time);
            let connecting = self.wires[&id].connecting;
            let how = match self.chance.below(5) {
                0 if !connecting => Happening::Fades(id, End::Eof),
                1 => Happening::Cut(id, End::Io(ErrorKind::ConnectionReset)),
                _ => Happening::Silence(id),
            };
            self.clock.outside(after, how);
        }
    }
}

fn failure(chance: &mut Chance) -> Failure {
    match chance.below(6) {
        0 => Failure::Always(503),
        1 => Failure::Always(500),
        2 => Failure::Always(429),
        3 => Failure::Asks(429, chance.pick(&[1, 3, 30, 86_400])),
        4 => Failure::Asks(503, chance.pick(&[1, 3, 30])),
        _ => Failure::Mixed,
    }
}
