"""The shipped binary at work, with stand-ins for Lambda and the server: what it takes of memory, instructions and
system calls.

Everything happens one after another, and the next thing only when the extension sleeps again, so that counts repeat.
"""
import collections
import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

NAME = "pyroscope-lambda-extension"
PATIENCE_S = 60  # under valgrind or strace, on a busy machine
EPOLL_WAITS = {"232", "281", "22"}  # epoll_wait, epoll_pwait; epoll_pwait on arm64
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 0\r\n\r\n"
HEAD = (
    "POST {} HTTP/1.1\r\nHost: localhost:4040\r\nUser-Agent: connect-go/1.18.1 (go1.24.1)\r\nContent-Length: {}\r\n"
    "Accept-Encoding: gzip\r\nConnect-Protocol-Version: 1\r\nContent-Type: application/proto\r\n\r\n"
)


def idle_memory(binary):
    """KiB of an extension that has asked for its next event: resident, and of it what is in no file."""
    # As in a sandbox: of a file just written, the kernel maps more around what is touched.
    with open(binary, "rb") as file:
        os.fsync(file.fileno())
    with lambda_api() as api, extension([binary], api_settings(api)) as process:
        api.register()
        api.next_asked()
        wait_until_asleep(process.pid, api.port)
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        kib = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE)}
        api.shut_down()
        process.wait(PATIENCE_S)
    return kib["Rss"], kib["Anonymous"]


def life_instructions(binary):
    """Instructions from exec over register, next and SHUTDOWN to the exit."""
    with tempfile.TemporaryDirectory() as folder, lambda_api() as api:
        out = Path(folder) / "callgrind"
        with extension([*callgrind(out), binary], api_settings(api)) as process:
            api.register()
            api.next_asked()
            api.shut_down()
            if process.wait(PATIENCE_S):
                raise SystemExit(f"measure: the extension left with status {process.returncode}")
        return total(out.read_text())


def callgrind(out, *options):
    return ["valgrind", "--tool=callgrind", "-q", f"--callgrind-out-file={out}", *options]


def total(profile):
    return int(re.search(r"^(?:summary|totals): (\d+)", profile, re.MULTILINE)[1])


def start_system_calls(binary):
    """System calls by name from exec to the request to register."""
    with tempfile.TemporaryDirectory() as folder, lambda_api() as api:
        out = Path(folder) / "strace"
        with extension([*strace(out), binary], api_settings(api)) as process:
            api.register()
            api.next_asked()
            api.shut_down()
            process.wait(PATIENCE_S)
        calls = collections.Counter()
        for line in out.read_text().splitlines():
            if call := re.match(r"(?:\d+ +)?(\w+)\(", line):
                calls[call[1]] += 1
                if "/extension/register" in line:
                    return dict(calls.most_common())
    raise SystemExit("measure: the extension never registered")


def payload_system_calls(binary, path, size, count=20):
    """System calls by name for one payload: those of twice as many less those of once as many.

    Rounded: start and end, which cancel out, differ by a wait now and then.
    """
    once = calls_of(binary, path, size, count)
    twice = calls_of(binary, path, size, 2 * count)
    twice.subtract(once)
    return {name: round(n / count) for name, n in twice.most_common() if round(n / count)}


def calls_of(binary, path, size, count):
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        out = Path(folder) / "strace"
        server_port = server.getsockname()[1]
        settings = {
            "PYROSCOPE_DEV_MODE": "true",
            "PYROSCOPE_LISTEN_ADDRESS": "127.0.0.1:0",
            "PYROSCOPE_REMOTE_ADDRESS": f"http://127.0.0.1:{server_port}",
        }
        with extension([*strace(out), binary], settings) as process:
            line = process.stderr.readline()
            port = int(re.search(rb'address="?127\.0\.0\.1:(\d+)', line)[1])
            traced = child_of(process.pid)
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
                upload(client, server, path, size, count, lambda: wait_until_asleep(traced, server_port, port))
            os.kill(traced, signal.SIGTERM)
            process.wait(PATIENCE_S)
        return collections.Counter(re.findall(r"^(?:\d+ +)?(\w+)\(", out.read_text(), re.MULTILINE))


def upload(client, server, path, size, count, settle):
    """One payload after another, each when the one before has arrived and all is quiet."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.settimeout(PATIENCE_S)
    request = HEAD.format(path, size).encode() + bytes(size)
    connection = None
    for _ in range(count):
        settle()
        # In pieces, each read before the next: how many pieces the kernel makes of one is chance.
        for at in range(0, len(request), PIECE_BYTES):
            client.sendall(request[at:at + PIECE_BYTES])
            settle()
        if connection is None:
            connection, _ = server.accept()
            connection.settimeout(PATIENCE_S)
        message(client)
        message(connection)
        connection.sendall(OK)
    settle()
    connection.close()


PIECE_BYTES = 32 * 1024


def strace(out):
    return ["strace", "-f", "-o", str(out), "-s", "200"]


def child_of(pid):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
    raise SystemExit("measure: strace starts nothing")


def wait_until_asleep(pid, peer, own=None):
    """Until the extension waits for events, and has taken all there is: on its port `own`, and from its peer's."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not has_unread(peer, own) and Path(f"/proc/{pid}/syscall").read_text().split()[0] in EPOLL_WAITS:
            return
    raise SystemExit("measure: the extension does not come to rest")


def has_unread(peer, own):
    """Whether an end of the extension's holds bytes, or a connection, that it has not taken yet."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, _, queues, *_ = line.split()
        is_its_end = own == int(here.split(":")[1], 16) or peer == int(there.split(":")[1], 16)
        if is_its_end and not queues.endswith(":00000000"):
            return True
    return False


@contextlib.contextmanager
def extension(command, settings):
    process = subprocess.Popen(
        [str(part) for part in command], env={"PATH": os.environ["PATH"], **settings}, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def api_settings(api):
    return {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.port}",
        "PYROSCOPE_LISTEN_ADDRESS": "127.0.0.1:0",
        "PYROSCOPE_REMOTE_ADDRESS": "http://127.0.0.1:9",
    }


@contextlib.contextmanager
def lambda_api():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = LambdaApi(listener)
        yield api
        for connection in api.connections:
            connection.close()


class LambdaApi:
    """As much of Lambda's Extensions API as one life takes."""

    def __init__(self, listener):
        self.listener = listener
        self.listener.settimeout(PATIENCE_S)
        self.port = listener.getsockname()[1]
        self.connections = []

    def register(self):
        self.expect("/extension/register")
        self.answer('{"functionName":"measured","functionVersion":"$LATEST","handler":"index.handler"}')

    def next_asked(self):
        self.expect("/extension/event/next")

    def shut_down(self):
        deadline = int(time.time() * 1000) + 2000 * PATIENCE_S
        self.answer(f'{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{deadline}}}')

    def expect(self, path):
        if not self.connections:
            connection, _ = self.listener.accept()
            connection.settimeout(PATIENCE_S)
            self.connections.append(connection)
        head = message(self.connections[-1])
        if path.encode() not in head.split(b"\r\n")[0]:
            raise SystemExit(f"measure: not {path} but {head!r}")

    def answer(self, body):
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            "Lambda-Extension-Identifier: 1f1b7c3e-0a3d-4f6e-8a49-6f1f4f0a2f11\r\n"
        )
        self.connections[-1].sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


def message(connection):
    """One whole message off a connection."""
    taken = b""
    while True:
        head, blank, body = taken.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if blank and len(body) >= int(length[1] if length else 0):
            return taken
        got = connection.recv(1 << 20)
        if not got:
            raise SystemExit(f"measure: the connection ends behind {taken[:200]!r}")
        taken += got
