"""A real S3-compatible server which the tests start (moto's), and a proxy before it that counts, delays and breaks."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "bucket"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}

# What happens to a GET: "" nothing; "slow" comes in drops; "hang" stands still half way; "fail" is a 503, "deny" a 403;
# "cut" ends early; "short" says that it is whole and is not; "flip" has a wrong byte; "drop" closes the connection.
Fault = Callable[[str, int], str]  # (key, how many GETs of it came before) -> the fault


@dataclass
class ObjectStore:
    """The server at `endpoint`; `gets` counts the GETs of each key, `fault` decides what happens to them."""

    endpoint: str
    gets: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)  # those that happened, by kind
    fault: Fault = lambda key, before: ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def gets_of(self, part: str) -> Counter[str]:
        """GETs of the keys that contain `part`."""
        with self.lock:
            return Counter({key: n for key, n in self.gets.items() if part in key})

    def forget(self) -> None:
        """Count from zero, without faults."""
        with self.lock:
            self.gets.clear()
            self.faults.clear()
            self.fault = lambda key, before: ""

    def next_get(self, key: str) -> str:
        with self.lock:
            kind = self.fault(key, self.gets[key])
            self.gets[key] += 1
            if kind:
                self.faults[kind] += 1
            return kind

    def upload(self, folder: Path, prefix: str) -> str:
        """Put a folder's files into the bucket; returns its URL."""
        import boto3

        client = boto3.client("s3", endpoint_url=self.endpoint)
        client.create_bucket(Bucket=BUCKET)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"


@contextmanager
def serving() -> Iterator[ObjectStore]:
    """The server and the proxy, as long as the context lasts."""
    import logging

    import s3fs
    from moto.server import ThreadedMotoServer

    # fsspec keeps file systems by their arguments, so too one that the environment named an earlier server to
    s3fs.S3FileSystem.clear_instance_cache()

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    store = ObjectStore("")
    proxy = _Proxy(("127.0.0.1", 0), _handler(store, server.get_host_and_port()))
    store.endpoint = f"http://127.0.0.1:{proxy.server_port}"
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield store
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.stop()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: object) -> None:
        """A client that has gone is no error."""


def _handler(store: ObjectStore, behind: tuple[str, int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            key = self.path.partition("?")[0].removeprefix(f"/{BUCKET}/")
            fault = store.next_get(key) if self.command == "GET" else ""
            if fault == "drop":
                self.close_connection = True
                return
            if fault in ("fail", "deny"):
                self.send_response(503 if fault == "fail" else 403)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            length = int(self.headers.get("Content-Length") or 0)
            connection = http.client.HTTPConnection(*behind)
            connection.request(self.command, self.path, self.rfile.read(length), dict(self.headers.items()))
            found = connection.getresponse()
            body = found.read()
            connection.close()
            self.send(found, body, fault)

        def send(self, found: http.client.HTTPResponse, body: bytes, fault: str) -> None:
            if fault == "short":
                body = body[: len(body) // 2]
            if fault == "flip":
                body = body[:-1] + bytes([body[-1] ^ 1])
            self.send_response(found.status)
            for name, value in found.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            told = len(body) if self.command != "HEAD" else int(found.getheader("Content-Length") or 0)
            self.send_header("Content-Length", str(told))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault in ("cut", "hang"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.close_connection = True
                if fault == "hang":
                    time.sleep(5)
                return
            if fault == "slow":
                for start in range(0, len(body), len(body) // 5 + 1):
                    self.wfile.write(body[start : start + len(body) // 5 + 1])
                    self.wfile.flush()
                    time.sleep(0.02)
                return
            self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    return Handler
