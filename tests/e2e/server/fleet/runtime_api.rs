//! The stand-in for Lambda's Runtime API: one invocation after the other, until there have been enough.
//!
//! A sandbox of a fleet has it in the place of AWS's emulator, of which there can be but one in a network.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::message::{Body, Messages};
use crate::support::monitor::Monitor;

pub struct RuntimeApi {
    address: SocketAddr,
    state: Arc<Monitor<State>>,
}

#[derive(Default)]
struct State {
    event: String,
    /// How many invocations there may be.
    allowed: usize,
    /// The function has asked for the next invocation and has none.
    is_idle: bool,
    invocations: usize,
    answers: Vec<String>,
    failure: Option<String>,
}

impl RuntimeApi {
    /// Invokes the function with `event` as soon as it asks, so many times.
    pub fn start(event: &str, allowed: usize) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let state = Arc::new(Monitor::new(State {
            event: event.to_owned(),
            allowed,
            ..State::default()
        }));
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let state = Arc::clone(&serving);
                // A connection that breaks is the function's end.
                thread::spawn(move || serve(&stream, &state).ok());
            }
        });
        Ok(Self { address, state })
    }

    /// What AWS_LAMBDA_RUNTIME_API says.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// No invocation after the one that is under way, and back when that is over: what each was answered.
    pub fn finish(&self, limit: Duration) -> Result<Vec<String>, String> {
        self.state.change(|state| state.allowed = 0);
        self.wait(limit, |state| state.is_idle)
    }

    /// Lets it be invoked once more, and returns when it asks for the next.
    pub fn invoke(&self, limit: Duration) -> Result<(), String> {
        let number = self.state.change(|state| {
            state.allowed = state.invocations + 1;
            state.allowed
        });
        let answered = |state: &State| state.is_idle && state.answers.len() >= number;
        self.wait(limit, answered).map(drop)
    }

    /// Waits until the function has its first invocation.
    pub fn wait_invoked(&self, limit: Duration) -> Result<(), String> {
        self.wait(limit, |state| state.invocations > 0).map(drop)
    }

    fn wait(&self, limit: Duration, done: impl Fn(&State) -> bool) -> Result<Vec<String>, String> {
        let ended = self.state.wait_within(limit, |state| match &state.failure {
            Some(failure) => Some(Err(format!("the function failed: {failure}"))),
            None => done(state).then(|| Ok(state.answers.clone())),
        });
        ended.unwrap_or_else(|| Err(format!("the function is not done within {limit:?}")))
    }

    /// How a function that could not do its work has put it.
    pub fn failure(&self) -> Option<String> {
        self.state.look(|state| state.failure.clone())
    }
}

fn serve(mut stream: &TcpStream, state: &Monitor<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut messages = Messages::new(stream);
    while let Some(head) = messages.head()? {
        let mut body = Body::default();
        messages.body(head.request_framing(), &mut body)?;
        let line = head.start_line();
        let text = String::from_utf8_lossy(&body.decoded).into_owned();
        let answer = if line.contains("/invocation/next ") {
            next(state)
        } else {
            state.change(|state| {
                if line.contains("/response ") {
                    state.answers.push(text);
                } else {
                    state.failure.get_or_insert(text);
                }
            });
            "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n\
             {\"status\":\"OK\"}"
                .to_owned()
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn next(state: &Monitor<State>) -> String {
    state.change(|state| state.is_idle = true);
    // As Lambda keeps it waiting between invocations.
    let invocation = state.wait_within(HOUR, |state| {
        if state.allowed <= state.invocations {
            return None;
        }
        state.is_idle = false;
        state.invocations += 1;
        Some((state.invocations, state.event.clone()))
    });
    let Some((number, event)) = invocation else {
        return String::new();
    };
    let deadline = SystemTime::now() + HOUR;
    let deadline = deadline.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
         Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-{number:012}\r\n\
         Lambda-Runtime-Deadline-Ms: {}\r\n\
         Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-central-1:123456789012:function:fleet\r\n\
         Lambda-Runtime-Trace-Id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700\r\n\
         Content-Length: {}\r\n\r\n{event}",
        deadline.as_millis(),
        event.len()
    )
}

const HOUR: Duration = Duration::from_hours(1);
