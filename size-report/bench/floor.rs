//! The least a relay can do on a machine: what ours is compared with.
//!
//! No TLS, no checks, no queue, nothing resent. It registers and asks for events on one thread. For each client
//! there is one more: it reads a whole request, answers 200, writes the same bytes to the server on a connection
//! of its own, and reads the answer. `make bench` builds it as the layer is built (.ci/build), alone, so that
//! what it links is what it needs.
//!
//! The same in C (musl, -O2) registers an eighth sooner and takes a fifth less CPU time until it is idle, with or
//! without Rust's start-up code; INVOKE → next is equal, and a payload of 2,000 bytes takes a seventh more there.

#![allow(
    clippy::disallowed_methods,
    reason = "the bans on threads and the environment are for the extension"
)]

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::thread;

/// The largest request taken, head and body. Only what is used of it becomes memory.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A thread needs no more than a read's and a write's frames.
const STACK_BYTES: usize = 64 << 10;

const ANSWER_BYTES_MAX: usize = 4096;

const REGISTER: &[u8] = b"POST /2020-01-01/extension/register HTTP/1.1\r\nHost: x\r\n\
    Lambda-Extension-Name: floor\r\nContent-Length: 32\r\n\r\n{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}";
const NEXT: &[u8] = b"GET /2020-01-01/extension/event/next HTTP/1.1\r\nHost: x\r\n\
    Lambda-Extension-Identifier: abc\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn main() {
    // Whatever goes wrong ends the floor: it is there to be measured, not to be used.
    if live().is_none() {
        process::exit(1);
    }
}

fn live() -> Option<()> {
    let server = address("PYROSCOPE_REMOTE_ADDRESS")?;
    let listener = TcpListener::bind(address("PYROSCOPE_LISTEN_ADDRESS")?).ok()?;
    let mut lambda = dial(address("AWS_LAMBDA_RUNTIME_API")?)?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    lambda.write_all(REGISTER).ok()?;
    if lambda.read(&mut answer).ok()? == 0 {
        return None;
    }
    lambda.write_all(NEXT).ok()?;
    on_a_thread(move || accept_all(&listener, server))?;
    loop {
        let length = lambda.read(&mut answer).ok()?;
        if length == 0 || position(&answer[..length], b"SHUTDOWN").is_some() {
            // The other threads are left as they are.
            process::exit(0);
        }
        lambda.write_all(NEXT).ok()?;
    }
}

fn accept_all(listener: &TcpListener, server: SocketAddr) -> Option<()> {
    loop {
        let (client, _) = listener.accept().ok()?;
        client.set_nodelay(true).ok()?;
        let server = dial(server)?;
        on_a_thread(move || relay_all(client, server))?;
    }
}

/// Until the client leaves, or anything goes wrong.
fn relay_all(mut client: TcpStream, mut server: TcpStream) -> Option<()> {
    let mut request = vec![0; REQUEST_BYTES_MAX];
    let mut answer = [0; ANSWER_BYTES_MAX];
    loop {
        let length = read_request(&mut client, &mut request)?;
        client.write_all(ANSWER).ok()?;
        server.write_all(&request[..length]).ok()?;
        if server.read(&mut answer).ok()? == 0 {
            return None;
        }
    }
}

/// Reads one request, of which nothing is understood but its length.
fn read_request(client: &mut TcpStream, request: &mut [u8]) -> Option<usize> {
    let mut filled = 0;
    let mut wanted = None;
    while wanted.is_none_or(|wanted| filled < wanted) {
        let more = client.read(&mut request[filled..]).ok()?;
        if more == 0 {
            return None;
        }
        filled += more;
        if wanted.is_none() {
            let read = &request[..filled];
            wanted = position(read, b"\r\n\r\n").map(|end| end + 4 + body_length(&read[..end]));
        }
    }
    Some(filled)
}

fn body_length(head: &[u8]) -> usize {
    let Some(start) = position(head, b"Content-Length: ") else {
        return 0;
    };
    let digits = head[start + 16..].iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// Compiled for size like ours, so that comparing windows of bytes would call a function for each.
fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut places = bytes.iter().enumerate();
    let starts = |&(at, &byte): &(usize, &u8)| byte == first && bytes[at..].starts_with(wanted);
    places.find(starts).map(|(at, _)| at)
}

/// An address that needs no looking up: what does that is not linked.
fn address(name: &str) -> Option<SocketAddr> {
    env::var(name)
        .ok()?
        .trim_start_matches("http://")
        .parse()
        .ok()
}

fn dial(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

fn on_a_thread(job: impl FnOnce() -> Option<()> + Send + 'static) -> Option<()> {
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(job).ok().map(drop)
}
