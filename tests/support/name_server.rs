//! The stand-in for the name server: knows one address for every name, and says it when it is told to.
//!
//! On an address of 127.53.0.0/16 of its own, and on port 53, since `/etc/resolv.conf` has no other: takes root.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;

use tempfile::NamedTempFile;

use super::monitor::Monitor;

pub struct NameServer {
    addr: SocketAddr,
    state: Arc<Monitor<State>>,
}

#[derive(Default)]
struct State {
    asked: usize,
    /// How questions are answered; none is before this is said.
    mood: Option<Mood>,
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// With the address.
    Answers,
    /// That there is no such name.
    Denies,
}

impl NameServer {
    /// One that says nothing yet.
    pub fn silent() -> Self {
        let bind = |last| UdpSocket::bind((Ipv4Addr::new(127, 53, 0, last), PORT));
        let socket = (1..=254).find_map(|last| bind(last).ok());
        let socket = socket.expect("a name server's port, which takes root");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Monitor::new(State::default()));
        let serving = Arc::clone(&state);
        thread::spawn(move || serve(&socket, &serving));
        Self { addr, state }
    }

    /// What `/etc/resolv.conf` says for it to be asked, and again each second.
    pub fn resolv_conf(&self) -> NamedTempFile {
        let file = NamedTempFile::new().expect("a temporary file");
        let text = format!("nameserver {}\noptions timeout:1\n", self.addr.ip());
        std::fs::write(file.path(), text).expect("a temporary file");
        file
    }

    /// Waits for the first question.
    #[track_caller]
    pub fn wait_asked(&self) {
        let what = "a question at the name server";
        self.state
            .wait(what, |state| (state.asked > 0).then_some(()));
    }

    /// How often it was asked so far.
    pub fn asked(&self) -> usize {
        self.state.look(|state| state.asked)
    }

    pub fn say(&self, mood: Mood) {
        self.state.change(|state| state.mood = Some(mood));
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.state.change(|state| state.over = true);
        // Wakes the thread that reads.
        let wake = UdpSocket::bind("127.0.0.1:0");
        let _ = wake.and_then(|socket| socket.send_to(b"", self.addr));
    }
}

fn serve(socket: &UdpSocket, state: &Monitor<State>) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        state.change(|state| state.asked += 1);
        let mood = state.wait_within(std::time::Duration::from_hours(1), |state| {
            state.mood.or(state.over.then_some(Mood::Answers))
        });
        if state.look(|state| state.over) {
            return;
        }
        let denies = mood == Some(Mood::Denies);
        let _ = socket.send_to(&answer(&question[..length], denies), from);
    }
}

/// The question with an answer behind it: 127.0.0.1 if it is for an IPv4 address, else that there is none.
fn answer(question: &[u8], denies: bool) -> Vec<u8> {
    let name_length = question[HEADER..].iter().position(|&byte| byte == 0);
    let end = HEADER + name_length.expect("a name that ends") + 1 + 4;
    let is_for_ipv4 = question[end - 4..end - 2] == [0, 1];
    let mut message = question[..end].to_vec();
    // An answer, recursion as wanted and to be had; the code.
    message[2] = 0x81;
    message[3] = 0x80 | if denies { NO_SUCH_NAME } else { 0 };
    let answers = u8::from(is_for_ipv4 && !denies);
    // One question, so many answers, nothing else.
    message[4..HEADER].copy_from_slice(&[0, 1, 0, answers, 0, 0, 0, 0]);
    if answers > 0 {
        // The name is the question's; class and type are its too; a minute; four bytes.
        message.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    message
}

const PORT: u16 = 53;
const HEADER: usize = 12;
const NO_SUCH_NAME: u8 = 3;
