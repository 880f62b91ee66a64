//! A server that answers when and what a test says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pyroscope_lambda_extension::contract::ConnId;

use super::world::World;

/// A server that answers each request after a time.
pub(super) struct Server {
    answers_after: Duration,
    asked: BTreeMap<ConnId, Instant>,
    pub(super) requests: u32,
    /// Bodies in the order in which they came.
    pub(super) came: Vec<String>,
}

impl Server {
    pub(super) fn new(answers_after: Duration) -> Self {
        Self {
            answers_after,
            asked: BTreeMap::new(),
            requests: 0,
            came: Vec::new(),
        }
    }

    /// Lets the world go on for so long, with connections that stand at once and this answer to each request.
    pub(super) fn serve(
        &mut self,
        world: &mut World,
        time: Duration,
        answer: impl Fn(&str) -> String,
    ) {
        let end = world.now.mono + time;
        loop {
            while !world.connecting.is_empty() {
                world.connect();
            }
            for id in world.written.keys().copied().collect::<Vec<_>>() {
                let seen = world.seen(id);
                if seen.starts_with("POST /ingest") {
                    self.requests += 1;
                    self.came
                        .push(seen.rsplit("\r\n\r\n").next().unwrap().to_owned());
                    self.asked.insert(id, world.now.mono + self.answers_after);
                }
            }
            let now = world.now.mono;
            let due: Vec<ConnId> = self
                .asked
                .extract_if(.., |_, at| *at <= now)
                .map(|(id, _)| id)
                .collect();
            for id in &due {
                if world.written.contains_key(id) {
                    let body = self.came.last().cloned().unwrap_or_default();
                    world.answer(*id, &answer(&body));
                }
            }
            if !due.is_empty() || !world.connecting.is_empty() {
                continue;
            }
            if now >= end || world.exit.is_some() {
                return;
            }
            let next = self
                .asked
                .values()
                .copied()
                .chain(world.relay.deadline(world.now));
            let until = next.min().map_or(end, |at| at.min(end));
            world.pass(until - now);
        }
    }
}

pub(super) fn with_retry_after(code: u16, seconds: &str) -> String {
    format!("HTTP/1.1 {code} X\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n")
}
