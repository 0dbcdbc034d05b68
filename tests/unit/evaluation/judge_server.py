"""A local chat endpoint that does what a test tells it to, one step after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Handler"], None]
COMPLETION = {"usage": {"prompt_tokens": 100, "completion_tokens": 7}}


class Handler(BaseHTTPRequestHandler):
    """Takes the next step of the script for each request, and the last one for ever."""

    server: Server

    def do_POST(self) -> None:
        """Keep what was asked, then misbehave or answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.world.asked.append((self.path, dict(self.headers), body))
            steps = self.server.world.steps
            step = steps.pop(0) if len(steps) > 1 else steps[0]
        self.case = json.loads(body["messages"][1]["content"])
        step(self)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """A whole response."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


class Server(ThreadingHTTPServer):
    """Knows what it is to do."""

    world: World
    lock: threading.Lock

    def handle_error(self, *_: Any) -> None:
        """A client that has hung up is no news."""


@dataclass
class World:
    """What a server is told to do, and what it was asked."""

    steps: list[Step]
    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)  # lets hanging requests go


@contextmanager
def serving(*steps: Step) -> Iterator[World]:
    """A server on a free port of this machine."""
    server = Server(("127.0.0.1", 0), Handler)
    server.lock, server.world = threading.Lock(), World(list(steps))
    server.world.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.world
    finally:
        server.world.done.set()
        server.shutdown()
        server.server_close()
        thread.join()


def saying(text: str | None) -> Step:
    """A good response with this text."""
    content = {**COMPLETION, "choices": [{"message": {"role": "assistant", "content": text}}]}
    return lambda handler: handler.send(200, json.dumps(content).encode())


def status(code: int, **headers: str) -> Step:
    """An HTTP error."""
    return lambda handler: handler.send(code, b'{"error": "so it is"}', **headers)


def body(content: bytes) -> Step:
    """Status 200 with some other content."""
    return lambda handler: handler.send(200, content)


def drop(handler: Handler) -> None:
    """Hang up without a word."""
    handler.close_connection = True
    handler.connection.close()


def cut(handler: Handler) -> None:
    """Promise more than comes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    drop(handler)


def hang(handler: Handler) -> None:
    """Say nothing until the end."""
    handler.server.world.done.wait(30)


def sameness(handler: Handler) -> None:
    """A judge for whom right is what holds the reference."""
    right = handler.case["reference"].lower() in handler.case["answer"].lower()
    saying(json.dumps({"verdict": "right" if right else "wrong"}))(handler)
