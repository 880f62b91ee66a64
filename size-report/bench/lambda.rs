//! Lambda's Extensions API, on the thread that measures: no thread of the bench has to wake another, so what is
//! measured is the extension's way from one message to the next.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::Socket;

use crate::GUARD;

const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// What Lambda gives an extension to leave.
const SHUTDOWN: Duration = Duration::from_secs(2);

pub struct Lambda {
    listener: TcpListener,
    /// The extension's connection, from its registration on.
    connection: Option<TcpStream>,
    /// How many invocations there have been.
    invocations: usize,
}

impl Lambda {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of our own");
        // Guards `accept`, for which std has no time limit.
        let socket = Socket::from(listener);
        socket.set_read_timeout(Some(GUARD)).expect("a guard");
        Self {
            listener: socket.into(),
            connection: None,
            invocations: 0,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener
            .local_addr()
            .expect("a bound socket has an address")
    }

    /// Waits for the registration, and grants it. When it came.
    pub fn register(&mut self) -> Instant {
        let mut connection = self.accept();
        let (call, at) = read_call(&mut connection);
        assert!(
            call.contains("/extension/register "),
            "not a registration: {call}"
        );
        answer(
            &mut connection,
            r#"{"functionName":"f","functionVersion":"$LATEST","handler":"h"}"#,
        );
        self.connection = Some(connection);
        at
    }

    /// Waits until the extension asks for the next event. When it did.
    pub fn wait_parked(&mut self) -> Instant {
        let (call, at) = read_call(self.connection());
        assert!(
            call.contains("/extension/event/next "),
            "not a call for the next event: {call}"
        );
        at
    }

    /// Hands it an invocation. When it did, and the request's id.
    pub fn invoke(&mut self) -> (Instant, String) {
        self.invocations += 1;
        let id = format!("3da1f2dc-3222-475e-9205-{:012x}", self.invocations);
        let event = format!(
            "{{\"eventType\":\"INVOKE\",\"deadlineMs\":9999999999999,\"requestId\":\"{id}\",\
             \"invokedFunctionArn\":\"arn:aws:lambda:us-east-1:123456789012:function:f\",\
             \"tracing\":{{\"type\":\"X-Amzn-Trace-Id\",\
             \"value\":\"Root=1-5f35ae12-0c0fec141ab77a00bc047aa2;Parent=2be948a625588e32;Sampled=1\"}}}}"
        );
        let at = Instant::now();
        answer(self.connection(), &event);
        (at, id)
    }

    /// Tells it that the sandbox ends, as long before as Lambda does.
    pub fn shut_down(&mut self) {
        let deadline = SystemTime::now() + SHUTDOWN;
        let deadline = deadline.duration_since(UNIX_EPOCH).expect("a clock set");
        let event = format!(
            "{{\"eventType\":\"SHUTDOWN\",\"deadlineMs\":{},\"shutdownReason\":\"spindown\"}}",
            deadline.as_millis()
        );
        answer(self.connection(), &event);
    }

    /// Waits for the subscription to telemetry, on a connection of its own, and grants it. Where to deliver.
    pub fn subscribe(&mut self) -> SocketAddr {
        let mut connection = self.accept();
        let (call, _) = read_call(&mut connection);
        assert!(call.contains("/telemetry "), "not a subscription: {call}");
        answer(&mut connection, "\"OK\"");
        let port = call
            .split_once("sandbox.localdomain:")
            .map(|(_, port)| port);
        let digits = port.and_then(|port| port.split(|c: char| !c.is_ascii_digit()).next());
        let port: u16 = digits
            .and_then(|digits| digits.parse().ok())
            .expect("where to deliver");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn accept(&self) -> TcpStream {
        let (connection, _) = self.listener.accept().expect("the extension to connect");
        connection.set_nodelay(true).expect("no delay");
        connection.set_read_timeout(Some(GUARD)).expect("a guard");
        connection
    }

    fn connection(&mut self) -> &mut TcpStream {
        self.connection.as_mut().expect("a registration first")
    }
}

/// One request, head and body, and when all of it was there.
fn read_call(connection: &mut TcpStream) -> (String, Instant) {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut filled = 0;
    loop {
        let more = connection.read(&mut bytes[filled..]).expect("a call");
        let at = Instant::now();
        assert!(more > 0, "the extension closed its connection to Lambda");
        filled += more;
        let text = String::from_utf8_lossy(&bytes[..filled]);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= content_length(head).unwrap_or(0)
        {
            return (text.into_owned(), at);
        }
    }
}

/// What a head says about the length of its body.
pub fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let length = name
            .eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse());
        length?.ok()
    })
}

fn answer(connection: &mut TcpStream, body: &str) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: 7a7e2f7c-0000-4000-8000-000000000001\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection
        .write_all(answer.as_bytes())
        .expect("an answer written");
}
