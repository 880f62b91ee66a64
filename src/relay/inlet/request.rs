//! Reads requests from received bytes, one after another, and answers them.

use crate::http1::head::{Framing, Request};
use crate::http1::refusal::Refusal;
use crate::http1::request::RequestReader;
use crate::http1::write;
use crate::log::Level;
use crate::relay::ring::{LossReason, NoSpace, Ring};
use crate::relay::{CONTROLLER, SVC};

use super::destination::{Context, Sink};
use super::{Inlet, State};

impl Inlet {
    /// Processes the received bytes, as far as possible.
    pub(super) fn advance(&mut self, cx: &mut Context) {
        while cx.taking && !self.has_unread_backlog() {
            let goes_on = match self.state {
                State::Head => self.read_head(cx),
                State::Body { .. } => self.read_body(cx),
                State::Linger { left, until } => {
                    let left = left.saturating_sub(self.inbox.len() as u64);
                    self.state = if left > 0 {
                        State::Linger { left, until }
                    } else {
                        State::Closed
                    };
                    self.inbox.clear();
                    false
                }
                State::Last | State::Closed => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Looks for a complete head. Returns whether there is more to do at once.
    fn read_head(&mut self, cx: &mut Context) -> bool {
        let accept = |request: &Request, framing: &Framing| cx.destination(request, framing);
        let begun = RequestReader::begin(&mut self.inbox, &mut self.answers, accept);
        match begun {
            Ok(None) => return false,
            Ok(Some((reader, sink))) => {
                self.state = State::Body {
                    sink,
                    reader,
                    taken: 0,
                };
            }
            Err(refusal) => self.refuse(refusal, cx),
        }
        true
    }

    /// Moves body bytes from the inbox to their destination. Returns whether there is more to do at once.
    fn read_body(&mut self, cx: &mut Context) -> bool {
        let State::Body {
            sink,
            reader,
            taken,
            ..
        } = &mut self.state
        else {
            return false;
        };
        let sink = *sink;
        if reader.body.is_done() {
            self.acknowledge(sink, cx.ring);
            return true;
        }
        if self.inbox.is_empty() {
            return false;
        }
        let read = self.inbox.bytes_mut();
        let decoded = match sink {
            Sink::Discard(_) | Sink::LeaveOut(_) => reader.body.decode(read),
            Sink::Slot(id) => match cx.ring.space(id) {
                Err(no) => {
                    self.overflow(no, cx.ring);
                    return true;
                }
                Ok(space) => {
                    let n = space.len().min(read.len());
                    space[..n].copy_from_slice(&read[..n]);
                    let decoded = reader.body.decode(&mut space[..n]);
                    cx.ring.filled(id, decoded.as_ref().map_or(0, |at| at.body));
                    decoded
                }
            },
        };
        match decoded {
            Err(bad) => self.refuse(bad.into(), cx),
            Ok(at) => {
                self.inbox.consume(at.used);
                *taken += at.body as u64;
                // It found no room beside others, and it would not fit alone either.
                if matches!(sink, Sink::Discard(LossReason::Full))
                    && *taken > cx.ring.bytes_max() as u64
                {
                    self.overflow(NoSpace::TooLarge, cx.ring);
                }
            }
        }
        true
    }

    /// The body is complete: answers 200.
    fn acknowledge(&mut self, sink: Sink, ring: &mut Ring) {
        let State::Body { reader, .. } = &self.state else {
            return;
        };
        match sink {
            Sink::Slot(id) => ring.commit(id),
            Sink::Discard(loss) => ring.acknowledge_lost(loss),
            Sink::LeaveOut(why) => ring.acknowledge_left_out(why),
        }
        self.state = if reader.acknowledge(&mut self.answers) {
            State::Head
        } else {
            State::Last
        };
    }

    /// The body cannot be kept: it is refused if it is too large for the ring, otherwise read to its end and lost.
    pub(super) fn overflow(&mut self, no: NoSpace, ring: &mut Ring) {
        let State::Body { sink, .. } = &mut self.state else {
            return;
        };
        if let Sink::Slot(id) = *sink {
            ring.abandon(id);
            *sink = Sink::Discard(LossReason::Full);
        }
        if no == NoSpace::TooLarge {
            write::reply(
                &mut self.answers,
                Refusal::LargerThanRing.status(),
                false,
                false,
            );
            self.inbox.clear();
            self.state = State::Last;
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, cx: &mut Context) {
        self.close(cx.ring);
        self.inbox.clear();
        write::reply(&mut self.answers, refusal.status(), false, false);
        self.state = State::Last;
        if let Some(count) = cx.refusals.happened(cx.now.mono) {
            let fields = [
                CONTROLLER,
                ("count", count.into()),
                ("reason", refusal.reason().into()),
                ("status", u64::from(refusal.status()).into()),
                SVC,
            ];
            cx.log
                .line(Level::Warning, cx.now.unix_ms, "Request refused", &fields);
        }
    }
}
