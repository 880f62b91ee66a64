//! The stand-in for an HTTP proxy: takes one `CONNECT` a connection, and then is a pipe.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::message::{Head, Messages};
use super::monitor::Monitor;
use super::pieces::write_in_pieces;

/// What it does with a `CONNECT`.
#[derive(Clone)]
pub enum Manner {
    /// Connects to this address, whatever was asked for, and answers with these bytes, one at a time.
    Tunnel(SocketAddr, Vec<u8>),
    /// Answers with these bytes and closes.
    Answer(Vec<u8>),
    /// Says nothing, and keeps the connection.
    Silence,
    /// Says nothing, and closes.
    Close,
}

/// The usual answer.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Monitor<State>>,
}

struct State {
    manner: Manner,
    heads: Vec<Head>,
    held: Vec<TcpStream>,
    over: bool,
}

impl Proxy {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Monitor::new(State {
            manner,
            heads: Vec::new(),
            held: Vec::new(),
            over: false,
        }));
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if serving.look(|state| state.over) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // What breaks is either end's doing, and shows there.
                thread::spawn(move || serve(&serving, &stream).ok());
            }
        });
        Self { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn change_manner(&self, manner: Manner) {
        self.shared.change(|state| state.manner = manner);
    }

    /// Waits until this many have asked for a tunnel, and gives their heads.
    #[track_caller]
    pub fn wait_asked(&self, count: usize) -> Vec<Head> {
        self.shared.wait("a CONNECT", |state| {
            (state.heads.len() >= count).then(|| state.heads.clone())
        })
    }

    pub fn asked(&self) -> usize {
        self.shared.look(|state| state.heads.len())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| state.over = true);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(shared: &Monitor<State>, stream: &TcpStream) -> io::Result<()> {
    let mut messages = Messages::new(stream.try_clone()?);
    let Some(head) = messages.head()? else {
        return Ok(());
    };
    let manner = shared.change(|state| {
        state.heads.push(head);
        state.manner.clone()
    });
    match manner {
        Manner::Tunnel(to, answer) => {
            let server = TcpStream::connect(to)?;
            let _ = write_in_pieces(stream, &answer, 1);
            let (near, far) = (stream.try_clone()?, server.try_clone()?);
            thread::spawn(move || pump(near, far));
            pump(server, stream.try_clone()?);
            Ok(())
        }
        Manner::Answer(bytes) => (&*stream).write_all(&bytes),
        Manner::Silence => {
            let held = stream.try_clone()?;
            shared.change(|state| state.held.push(held));
            Ok(())
        }
        Manner::Close => Ok(()),
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
