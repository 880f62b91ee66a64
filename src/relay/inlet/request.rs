//! Reads requests from received bytes, one after another, and answers them.

use crate::http1::head::{self, Refusal};
use crate::http1::{HEAD_BYTES_MAX, header_slots, write};
use crate::log::Level;
use crate::relay::ring::{LossReason, NoSpace, Ring};
use crate::relay::{CONTROLLER, SVC};

use super::destination::{Context, Sink, TOO_LARGE};
use super::{Inlet, State};

pub(super) const BAD_CHUNK: Refusal = Refusal {
    status: 400,
    reason: "malformed chunk",
};

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
        self.inbox.consume(head::leading_blank(self.inbox.bytes()));
        let bytes = self.inbox.bytes();
        let Some(&first) = bytes.first() else {
            return false;
        };
        if bytes == b"\r" {
            // Half of an empty line.
            return false;
        }
        if !head::begins_request(first) {
            self.refuse(
                Refusal {
                    status: 400,
                    reason: "not HTTP",
                },
                cx,
            );
        } else if let Some(len) = self.inbox.head_end() {
            let begun = self.begin(len, cx);
            self.inbox.consume(len);
            if let Err(refusal) = begun {
                self.refuse(refusal, cx);
            }
        } else if self.inbox.is_full(HEAD_BYTES_MAX) {
            let has_line = self.inbox.bytes().contains(&b'\n');
            let status = if has_line { 431 } else { 414 };
            self.refuse(
                Refusal {
                    status,
                    reason: "the head is too long",
                },
                cx,
            );
        } else {
            return false;
        }
        true
    }

    /// Begins the request whose head is the next `len` bytes.
    fn begin(&mut self, len: usize, cx: &mut Context) -> Result<(), Refusal> {
        let mut slots = header_slots();
        let request = head::request(&self.inbox.bytes()[..len], &mut slots)?;
        let framing = request.framing()?;
        let http10 = request.http10;
        let sink = cx.destination(&request, &framing)?;
        // A client that has begun its body no longer waits for it.
        if framing.expects_continue && len == self.inbox.len() {
            self.answers.extend_from_slice(write::CONTINUE);
        }
        self.state = State::Body {
            sink,
            reader: framing.body,
            taken: 0,
            keep_alive: framing.keep_alive,
            http10,
        };
        Ok(())
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
        if reader.is_done() {
            self.acknowledge(sink, cx.ring);
            return true;
        }
        if self.inbox.is_empty() {
            return false;
        }
        let read = self.inbox.bytes_mut();
        let decoded = match sink {
            Sink::Discard(_) | Sink::LeaveOut(_) => reader.decode(read),
            Sink::Slot(id) => match cx.ring.space(id) {
                Err(no) => {
                    self.overflow(no, cx.ring);
                    return true;
                }
                Ok(space) => {
                    let n = space.len().min(read.len());
                    space[..n].copy_from_slice(&read[..n]);
                    let decoded = reader.decode(&mut space[..n]);
                    cx.ring.filled(id, decoded.map_or(0, |at| at.body));
                    decoded
                }
            },
        };
        match decoded {
            Err(_) => self.refuse(BAD_CHUNK, cx),
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
        let State::Body {
            keep_alive, http10, ..
        } = self.state
        else {
            return;
        };
        match sink {
            Sink::Slot(id) => ring.commit(id),
            Sink::Discard(loss) => ring.acknowledge_lost(loss),
            Sink::LeaveOut(why) => ring.acknowledge_left_out(why),
        }
        write::reply(&mut self.answers, 200, keep_alive, http10);
        self.state = if keep_alive { State::Head } else { State::Last };
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
            write::reply(&mut self.answers, TOO_LARGE.status, false, false);
            self.inbox.clear();
            self.state = State::Last;
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, cx: &mut Context) {
        self.close(cx.ring);
        self.inbox.clear();
        write::reply(&mut self.answers, refusal.status, false, false);
        self.state = State::Last;
        if let Some(count) = cx.refusals.happened(cx.now.mono) {
            let fields = [
                CONTROLLER,
                ("count", count.into()),
                ("reason", refusal.reason.into()),
                ("status", u64::from(refusal.status).into()),
                SVC,
            ];
            cx.log
                .line(Level::Warning, cx.now.unix_ms, "Request refused", &fields);
        }
    }
}
