"""Questions to an OpenAI-compatible endpoint, over urllib alone, with the patience that such endpoints need.

POST URL/chat/completions. Tried again, with growing random waits and never before a Retry-After: no
connection, a dropped one, a time-out, HTTP 408, 409, 425, 429 and 5xx, and an answer that is not the JSON it
should be. A question that the endpoint refuses (400, 413, 422) has failed. Any other status, such as a wrong
key, an unknown model or a redirection, ends the run: the next question would meet the same. Redirections are
not followed, since the key would go with them.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from model.moe.json_text import parse_json

AGAIN = (408, 409, 425, 429)  # and every 5xx
REFUSED = (400, 413, 422)
LONGEST_RETRY_AFTER_S = 600.0
_LARGEST_REPLY = 1 << 20  # bytes

Message = dict[str, str]


class EndpointError(RuntimeError):
    """One question that got no answer, after all attempts."""


@dataclass(frozen=True)
class Endpoint:
    """Where a chat model answers, and how long it is waited for."""

    url: str  # the base: http://localhost:8000/v1
    model: str
    key: str | None = field(default=None, repr=False)  # sent as a bearer token
    max_tokens: int = 256  # of a reply
    timeout_s: float = 60.0  # without a byte
    attempts: int = 6
    first_wait_s: float = 1.0  # doubles with every attempt
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"endpoint {self.url!r}; expected http://HOST/v1 or https://HOST/v1")
        if self.attempts < 1 or self.timeout_s <= 0 or self.max_tokens < 1:
            raise ValueError(
                f"attempts {self.attempts}, timeout {self.timeout_s} s, max_tokens {self.max_tokens}; "
                "expected more than 0 of each"
            )


@dataclass(frozen=True)
class Reply:
    """What the model said, and what it counted; 0 tokens where the endpoint does not count."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


class ChatClient:
    """Asks one endpoint; may be shared by threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        sleep: Callable[[float], object] | None = None,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """sleep, now, rng: for tests; `sleep` otherwise waits until `stop`."""
        self.endpoint, self._now, self._rng = endpoint, now, rng or random.Random()
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._opener = urllib.request.build_opener(_NoRedirection)

    def stop(self) -> None:
        """Let waiting threads go; questions that are not answered yet have failed."""
        self._stopped.set()

    def ask(self, messages: Sequence[Message]) -> Reply:
        """One reply, greedy.

        Raises:
            EndpointError: refused, or no usable reply in so many attempts.
            ValueError: the endpoint cannot be used at all.
        """
        endpoint = self.endpoint
        for attempt in range(endpoint.attempts):
            try:
                return self._once(messages)
            except _Again as error:
                last, at_least = error, error.retry_after_s
            if attempt + 1 == endpoint.attempts or self._stopped.is_set():
                break
            longest = min(endpoint.longest_wait_s, endpoint.first_wait_s * 2**attempt)
            self._sleep(max(at_least, longest * self._rng.uniform(0.5, 1.0)))
        raise EndpointError(f"no reply in {attempt + 1} attempts, the last: {last}")

    def _once(self, messages: Sequence[Message]) -> Reply:
        url = f"{self.endpoint.url.rstrip('/')}/chat/completions"
        content = {
            "model": self.endpoint.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": self.endpoint.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        request = urllib.request.Request(url, json.dumps(content).encode(), headers)
        try:
            with self._opener.open(request, timeout=self.endpoint.timeout_s) as response:
                body = response.read(_LARGEST_REPLY + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._http_failure(url, error) from None
        except (OSError, http.client.HTTPException) as error:  # URLError, TimeoutError are OSErrors
            raise _Again(f"{type(error).__name__}: {error}") from None
        return _read_reply(body)

    def _http_failure(self, url: str, error: urllib.error.HTTPError) -> Exception:
        """What an HTTP status other than 200 means, as the exception to raise."""
        try:
            said = error.read(500).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            said = ""
        message = f"HTTP {error.code} {error.reason}: {said}"
        if error.code in AGAIN or error.code >= 500:
            return _Again(message, _retry_after_s(error.headers.get("Retry-After"), self._now()))
        if error.code in REFUSED:
            return EndpointError(f"refused, {message}")
        return ValueError(f"{url}: {message}; correct the endpoint, the model or the key")


class _Again(Exception):
    """A failure that may pass."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirection stays an HTTPError."""


def _retry_after_s(value: str | None, now: float) -> float:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3); 0 if it is neither."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else 0.0


def _read_reply(body: bytes) -> Reply:
    """The reply in a response's body; raises _Again for one that is cut off or otherwise broken."""
    try:
        content = parse_json(body)
        text = content["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _Again(f"no chat completion ({type(error).__name__}: {error}) in {body[:200]!r}") from None
    usage = content.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else 0 for name in _TOKENS]
    tokens = [count if isinstance(count, int) else 0 for count in counts]
    return Reply(text if isinstance(text, str) else "", *tokens)


_TOKENS = ("prompt_tokens", "completion_tokens")
