//! Between an SDK and two extensions: each byte goes to both, the first one's answers go back, requests are kept.
//!
//! So the one extension and the other get the very same, and what is compared is what they make of it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::decode::{self, Decoded};
use crate::support::message::{Body, Head, Messages};
use crate::support::monitor::Monitor;

/// A request as the SDK wrote it.
#[derive(Clone)]
pub struct Request {
    pub head: Head,
    pub body: Body,
}

pub struct Tap {
    address: SocketAddr,
    state: Arc<Monitor<State>>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    connections: usize,
    error: Option<String>,
    is_over: bool,
}

impl Request {
    /// The request that `bytes` begin with, and its length; `None` when it is not all there.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut messages = Messages::new(bytes);
        let head = messages.head().ok()??;
        let mut body = Body::default();
        messages.body(head.request_framing(), &mut body).ok()?;
        let length = head.raw.len() + body.raw.len();
        Some((Self { head, body }, length))
    }

    /// As it was sent.
    pub fn raw(&self) -> Vec<u8> {
        [self.head.raw.as_slice(), &self.body.raw].concat()
    }

    /// Its path and query.
    pub fn target(&self) -> String {
        let line = self.head.start_line();
        line.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    pub fn profiles(&self) -> Result<Vec<Decoded>, String> {
        decode::profiles(&self.target(), &self.head.headers(), &self.body.decoded)
    }
}

impl Tap {
    /// Listens on `address`, until it is dropped.
    pub fn listening(address: SocketAddr, extensions: [SocketAddr; 2]) -> Result<Self, String> {
        let listener =
            TcpListener::bind(address).map_err(|error| format!("a tap on {address}: {error}"))?;
        let state = Arc::new(Monitor::new(State::default()));
        let serving = Arc::clone(&state);
        let accepting = thread::spawn(move || {
            while let Ok((sdk, _)) = listener.accept() {
                let state = Arc::clone(&serving);
                if state.look(|state| state.is_over) {
                    return;
                }
                state.change(|state| state.connections += 1);
                thread::spawn(move || {
                    let ended = pass_on(&sdk, extensions, &state);
                    state.change(|state| {
                        state.connections -= 1;
                        if let Err(error) = ended {
                            state.error.get_or_insert(format!("the tap: {error}"));
                        }
                    });
                });
            }
        });
        Ok(Self {
            address,
            state,
            accepting: Some(accepting),
        })
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.look(|state| state.requests.clone())
    }

    /// Waits until enough has passed, while `is_running`.
    pub fn wait_until(
        &self,
        limit: Duration,
        mut is_running: impl FnMut() -> bool,
        mut is_enough: impl FnMut(&[Request]) -> bool,
    ) -> Result<(), String> {
        let until = Instant::now() + limit;
        let mut looked_at = usize::MAX;
        while Instant::now() < until {
            let passed = self.state.wait_within(LOOK, |state| {
                if let Some(error) = &state.error {
                    return Some(Err(error.clone()));
                }
                // What the same requests hold has been seen.
                if looked_at == state.requests.len() {
                    return None;
                }
                looked_at = state.requests.len();
                is_enough(&state.requests).then_some(Ok(()))
            });
            match passed {
                Some(passed) => return passed,
                None if !is_running() => return Err("the function has ended".to_owned()),
                None => {}
            }
        }
        Err(format!("not enough was uploaded within {limit:?}"))
    }

    /// Waits until both extensions have answered all there was and the SDK is gone.
    pub fn wait_closed(&self, limit: Duration) -> Result<(), String> {
        let closed = |state: &mut State| (state.connections == 0).then_some(());
        self.state
            .wait_within(limit, closed)
            .ok_or_else(|| format!("what passed the tap is not answered within {limit:?}"))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.state.change(|state| state.is_over = true);
        // Wakes the thread that accepts, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        // The next sandbox has the same address.
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

fn pass_on(sdk: &TcpStream, extensions: [SocketAddr; 2], state: &Monitor<State>) -> io::Result<()> {
    sdk.set_nodelay(true)?;
    let [first, second] = extensions.map(|address| {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    });
    let (first, second) = (first?, second?);
    thread::scope(|scope| {
        scope.spawn(|| {
            // A function that is killed reads no answers.
            let _ = io::copy(&mut &first, &mut &*sdk);
            let _ = sdk.shutdown(Shutdown::Write);
        });
        scope.spawn(|| io::copy(&mut &second, &mut io::sink()));
        let mut unread = Vec::new();
        let mut piece = vec![0; PIECE_BYTES];
        let passed = loop {
            let count = match (&*sdk).read(&mut piece) {
                Ok(0) | Err(_) => break Ok(()),
                Ok(count) => count,
            };
            // Kept first, so that no answer comes before its request is.
            unread.extend_from_slice(&piece[..count]);
            while let Some((request, length)) = Request::read(&unread) {
                unread.drain(..length);
                state.change(|state| state.requests.push(request));
            }
            let both = [&first, &second].map(|mut stream| stream.write_all(&piece[..count]));
            if let Some(error) = both.into_iter().find_map(Result::err) {
                break Err(error);
            }
        };
        for stream in [&first, &second] {
            let _ = stream.shutdown(Shutdown::Write);
        }
        passed
    })
}

const PIECE_BYTES: usize = 64 * 1024;

/// How often it is looked whether the function still runs, of which nothing tells.
const LOOK: Duration = Duration::from_millis(500);
