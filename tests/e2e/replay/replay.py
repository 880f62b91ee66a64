"""A Lambda function that sends what the SDKs for Ruby and .NET send, whose packages are not installed here.

Not the SDKs: their requests as they were seen on the wire or are in their source, byte for byte but for what
changes each time, in the same writes, over connections that are used the same way; and a profile such as theirs,
made up, at the time that the SDK would write. It goes to localhost:4040, unless FUNCTION_SDK_ADDRESS is another.
What they would make of the answer is checked: anything but what they expect fails the invocation.
"""

import base64
import gzip
import os
import socket
import time
import urllib.parse
import uuid

REPLAY = os.environ["FUNCTION_REPLAY"]
SERVICE = os.environ["FUNCTION_SERVICE"]

# Its core is that of the SDKs for Python and Rust, which were seen to send this.
RUBY = """\
POST /push.v1.PusherService/Push HTTP/1.1
user-agent: pyroscope-rs/rbspy/{version} reqwest
content-type: application/proto
content-encoding: gzip
authorization: Basic {basic}
content-length: {length}
accept: */*
host: localhost:4040

"""

# The SDK's HTTP library, built without zlib, has nothing to accept and says so.
DOTNET = """\
POST /push.v1.PusherService/Push HTTP/1.1
Accept-Encoding: \n\
Accept: */*
Host: localhost:4040
Connection: close
{expect}Content-Type: application/proto
Content-Length: {length}
User-Agent: pyroscope-dotnet/{version} cpp-httplib
X-Scope-OrgID: tenant-1

"""

DOTNET_STACK = [
    "System.Threading!Thread.StartCallback",
    "System.Threading!PortableThreadPool.WorkerThread.WorkerThreadStart",
    "System.Threading!ThreadPoolWorkQueue.Dispatch",
    "System.Runtime.CompilerServices!AsyncTaskMethodBuilder.AsyncStateMachineBox.MoveNext",
    "System.Threading.Tasks!Task.ExecuteWithThreadLocal",
    "System.Threading!ExecutionContext.RunFromThreadPoolDispatchLoop",
    "Amazon.Lambda.RuntimeSupport!LambdaBootstrap.InvokeOnceAsync",
    "Amazon.Lambda.RuntimeSupport!HandlerWrapper.GetHandlerWrapper",
    "System.Runtime.CompilerServices!AsyncMethodBuilderCore.Start",
    "Shop!Function.FunctionHandler",
]

connection = None
last_interval = None


def handler(event, context):
    nanoseconds = int(event["seconds"] * 1e9)
    version = os.environ["FUNCTION_REPLAY_VERSION"]
    if REPLAY == "ruby":
        push_as_ruby(version, nanoseconds)
    else:
        push_as_dotnet(version, nanoseconds, expects=REPLAY == "dotnet-expect")
    return {"burned": nanoseconds}


def push_as_ruby(version, nanoseconds):
    """The whole of it gzipped, over one connection that is kept."""
    global connection, last_interval
    # It uploads once in each of its intervals of 10 s, and gives it the time at which the one before began.
    interval = time.time_ns() // RUBY_INTERVAL_NS
    if interval == last_interval:
        return
    last_interval = interval
    begun = (interval - 1) * RUBY_INTERVAL_NS
    profile = pprof(["<main> - app.rb", "handler - app.rb", "burn_ruby_cpu - app.rb"], nanoseconds, begun)
    labels = [
        ("__name__", "process_cpu"),
        ("team", "e2e"),
        ("service_name", SERVICE),
        ("otel.scope.name", "com.grafana.pyroscope/ruby"),
        ("otel.scope.version", version),
        ("process.runtime.name", "ruby"),
        ("process.runtime.version", "3.4.7"),
    ]
    body = gzip.compress(push_request(labels, field(1, profile) + field(2, str(uuid.uuid4()))))
    basic = base64.b64encode(b"of-the-sdk:of-the-sdk").decode()
    if connection is None:
        connection = connect()
    connection.sendall(head(RUBY, version=version, basic=basic, length=len(body)) + body)
    expect_answer(received(connection, b"\r\n\r\n"))


def push_as_dotnet(version, nanoseconds, expects):
    """Neither it nor the profile gzipped, over a connection of its own, the body apart from the head."""
    profile = pprof([*DOTNET_STACK, "Shop!Function.BurnDotnetCpu"], nanoseconds, time.time_ns())
    labels = [
        ("__name__", "process_cpu"),
        ("service_name", SERVICE),
        ("spy_name", "dotnetspy"),
        ("otel.scope.name", "com.grafana.pyroscope/dotnet"),
        ("otel.scope.version", version),
        ("process.runtime.name", ".NET"),
        ("process.runtime.version", "8.0.21"),
        ("team", "e2e"),
    ]
    body = push_request(labels, field(1, profile))
    # Below that size its HTTP library does not ask.
    assert len(body) >= 1024, len(body)
    expect = "Expect: 100-continue\n" if expects else ""
    with connect() as stream:
        stream.sendall(head(DOTNET, version=version, expect=expect, length=len(body)))
        if expects:
            # The SDK goes on without, after this long; that it must wait is what is not to happen.
            stream.settimeout(1)
            interim = received(stream, b"\r\n\r\n")
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n", interim
            stream.settimeout(GUARD_S)
        stream.sendall(body)
        expect_answer(received(stream, b"\r\n\r\n"))
        assert stream.recv(1) == b"", "the connection is not closed after its one answer"


def connect():
    address = urllib.parse.urlsplit(os.environ.get("FUNCTION_SDK_ADDRESS", "http://localhost:4040"))
    stream = socket.create_connection((address.hostname, address.port), timeout=GUARD_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def head(lines, **values):
    return lines.format(**values).replace("\n", "\r\n").encode()


def received(stream, end):
    """What comes, up to the first `end`."""
    got = b""
    while not got.endswith(end):
        byte = stream.recv(1)
        assert byte, f"closed after {got!r}"
        got += byte
    return got


def expect_answer(answer):
    lines = answer.decode().lower().split("\r\n")
    assert lines[0] == "http/1.1 200 ok" and "content-length: 0" in lines, answer


# Protocol buffers: push.v1 and google's profile.proto.


def push_request(labels, sample):
    series = b"".join(field(1, field(1, name) + field(2, value)) for name, value in labels)
    return field(1, series + field(2, sample))


def pprof(functions, nanoseconds, begun):
    """One stack, the outermost function first, with all the time."""
    strings = ["", "cpu", "nanoseconds", *functions]
    ids = range(1, len(functions) + 1)
    cpu = field(1, 1) + field(2, 2)
    stack = b"".join(varint(number) for number in reversed(ids))
    return b"".join(
        [
            field(1, cpu),
            field(2, field(1, stack) + field(2, varint(nanoseconds))),
            *(field(4, field(1, number) + field(4, field(1, number))) for number in ids),
            *(field(5, field(1, number) + field(2, number + 2)) for number in ids),
            *(field(6, string) for string in strings),
            field(9, begun),
            field(10, 10_000_000_000),
            field(11, cpu),
            field(12, 10_000_000),
        ]
    )


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


GUARD_S = 10

RUBY_INTERVAL_NS = 10_000_000_000
