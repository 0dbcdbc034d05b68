"""The judge against a real server on this machine that fails in every way before it answers."""

import json
import logging
import random
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.chat_endpoint import ChatClient, Endpoint, EndpointError
from evaluation.judge import Case, Verdict, VerdictBook, judge, messages, parse_verdict
from evaluation.scoring.agreement import Agreement, agreement
from tests.unit.evaluation.judge_server import (
    Step,
    World,
    body,
    cut,
    drop,
    hang,
    sameness,
    saying,
    serving,
    status,
)

NOW = 1_700_000_000.0
CASE = Case("What barks?", "dog", "a Dog!")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def client_of(world: World, waits: list[float] | None = None, **settings: Any) -> ChatClient:
    """A client whose waits are only noted."""
    endpoint = Endpoint(world.url, "some-judge", "secret", **{"timeout_s": 10.0, **settings})
    noted = [] if waits is None else waits
    return ChatClient(endpoint, sleep=noted.append, now=lambda: NOW, rng=random.Random(0))


FAULTS: dict[str, Step] = {
    "429": status(429),
    "500": status(500),
    "503": status(503),
    "408": status(408),
    "drop": drop,
    "cut": cut,
    "no JSON": body(b"<html>busy</html>"),
    "half JSON": body(b'{"choices": ['),
    "not UTF-8": body(b'{"choices": "\xff"}'),
    "another shape": body(b'{"choices": []}'),
    "a list": body(b"[1]"),
    "too deep": body(b"[" * 100_000),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass(fault: str) -> None:
    waits: list[float] = []
    with serving(FAULTS[fault], FAULTS[fault], saying("right")) as world:
        reply = client_of(world, waits).ask(messages(CASE))
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("right", 100, 7)
    assert len(waits) == 2 and 0.5 <= waits[0] <= 1.0 <= waits[1] <= 2.0


def test_time_outs_pass() -> None:
    with serving(hang, saying("right")) as world:
        assert client_of(world, timeout_s=0.3).ask(messages(CASE)).text == "right"


def test_waits_grow_up_to_a_limit_and_attempts_end() -> None:
    waits: list[float] = []
    with serving(status(503)) as world, pytest.raises(EndpointError, match=r"in 9 attempts.*HTTP 503"):
        client_of(world, waits, attempts=9, longest_wait_s=20.0).ask(messages(CASE))
    assert len(world.asked) == 9
    for wait, longest in zip(waits, [1, 2, 4, 8, 16, 20, 20, 20], strict=True):
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 8  # jitter


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("30", 30.0, 30.0),
        ("0.2", 0.5, 1.0),
        (formatdate(NOW + 45, usegmt=True), 45.0, 45.0),
        (formatdate(NOW - 45, usegmt=True), 0.5, 1.0),
        ("1e9", 600.0, 600.0),
        ("soon", 0.5, 1.0),
        ("nan", 0.5, 1.0),
        ("-5", 0.5, 1.0),
    ],
)
def test_retry_after_is_honoured(header: str, least: float, most: float) -> None:
    waits: list[float] = []
    with serving(status(429, Retry_After=header), saying("right")) as world:
        client_of(world, waits).ask(messages(CASE))
    assert len(waits) == 1 and least <= waits[0] <= most


@pytest.mark.parametrize("code", [400, 413, 422])
def test_refused_questions_fail_at_once(code: int) -> None:
    with serving(status(code)) as world, pytest.raises(EndpointError, match=f"refused, HTTP {code}"):
        client_of(world).ask(messages(CASE))
    assert len(world.asked) == 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_an_endpoint_that_cannot_be_used_ends_the_run(code: int, tmp_path: Path) -> None:
    with serving(status(code)) as world, pytest.raises(ValueError, match=f"HTTP {code}.*correct the end"):
        judge([CASE], client_of(world), VerdictBook(tmp_path / "j.jsonl"))


def test_the_key_does_not_follow_a_redirection() -> None:
    with serving(sameness) as other, serving(status(302, Location=f"{other.url}/x")) as world:
        with pytest.raises(ValueError, match="HTTP 302"):
            client_of(world).ask(messages(CASE))
        assert not other.asked


def test_what_is_sent() -> None:
    with serving(sameness) as world:
        client = client_of(world)
        client.ask(messages(CASE))
    path, headers, sent = world.asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert (sent["model"], sent["temperature"]) == ("some-judge", 0)
    assert json.loads(sent["messages"][1]["content"]) == {
        "question": "What barks?",
        "reference": "dog",
        "answer": "a Dog!",
    }
    assert "secret" not in repr(client.endpoint)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"verdict": "right"}', Verdict.RIGHT),
        ('```json\n{"verdict" : "Wrong"}\n```', Verdict.WRONG),
        ("Right.", Verdict.RIGHT),
        ('<think>perhaps {"verdict": "right"}</think>{"verdict": "wrong"}', Verdict.WRONG),
        ('{"verdict": "right"} or {"verdict": "wrong"}', Verdict.UNPARSABLE),
        ("The answer is right.", Verdict.UNPARSABLE),
        ("failed", Verdict.UNPARSABLE),
        ("", Verdict.UNPARSABLE),
    ],
)
def test_verdicts(text: str, verdict: Verdict) -> None:
    assert parse_verdict(text) is verdict


def test_every_verdict_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def sometimes(handler: Any) -> None:
        answers = {"mumble": saying("hm"), "nothing": saying(None), "refuse": status(400)}
        answers.get(handler.case["answer"], sameness)(handler)

    answers = ["dog", "cat", "mumble", "nothing", "refuse", "", None, "dog"]
    cases = [Case("What barks?", "dog", answer) for answer in answers]
    with serving(sometimes) as world, caplog.at_level(logging.WARNING):
        found = judge(cases, client_of(world), VerdictBook(tmp_path / "j.jsonl"), jobs=3)
    assert [verdict.value for verdict in found.verdicts] == [
        "right",
        "wrong",
        "unparsable",
        "unparsable",
        "failed",
        "wrong",
        "wrong",
        "right",
    ]
    assert found.correct.tolist() == [True, *[False] * 6, True]
    assert len(world.asked) == 5  # the same answer once, empty ones never
    assert (found.asked, found.kept, found.tokens_in, found.tokens_out) == (4, 0, 400, 28)
    assert found.cost(price_in=10.0, price_out=100.0) == pytest.approx(0.004 + 0.0028)
    assert "refused, HTTP 400" in caplog.text


def test_a_restart_asks_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "j.jsonl"
    cases = [Case("What barks?", "dog", answer) for answer in ("dog", "cat", "cow")]
    with serving(sameness, sameness, status(400)) as world:
        assert judge(cases, client_of(world), VerdictBook(path), jobs=1).count(Verdict.FAILED) == 1
    with path.open("a") as file:
        file.write('{"key": "torn')
    with serving(sameness) as world:
        found = judge(cases, client_of(world), VerdictBook(path), jobs=1)
        assert (len(world.asked), found.asked, found.kept, found.count(Verdict.FAILED)) == (1, 1, 2, 0)
        again = judge(cases, client_of(world), VerdictBook(path))
        assert (len(world.asked), again.asked, again.kept, again.tokens_in) == (1, 0, 3, 0)
        assert again.verdicts == found.verdicts
        other = ChatClient(Endpoint(world.url, "another-judge"))
        assert judge(cases[:1], other, VerdictBook(path)).asked == 1


def test_an_endpoint_that_has_gone_ends_the_run(tmp_path: Path) -> None:
    cases = [Case("What barks?", "dog", f"dog {number}") for number in range(60)]
    path = tmp_path / "j.jsonl"
    with serving(*[sameness] * 5, status(503)) as world:
        with pytest.raises(ValueError, match="20 questions in a row got no reply"):
            judge(cases, client_of(world, attempts=2), VerdictBook(path), jobs=2)
        assert len(world.asked) < 60
    assert len(path.read_text().splitlines()) == 5
    with serving(sameness) as world:
        assert judge(cases, client_of(world), VerdictBook(path)).asked == 55


def test_failures_here_and_there_do_not_end_the_run(tmp_path: Path) -> None:
    cases = [Case("What barks?", "dog", f"dog {number}") for number in range(50)]
    with serving(*[status(400), sameness] * 25) as world:
        found = judge(cases, client_of(world), VerdictBook(tmp_path / "j.jsonl"), jobs=1)
    assert (found.count(Verdict.RIGHT), found.count(Verdict.FAILED)) == (25, 25)


def test_waiting_ends_when_the_client_is_stopped() -> None:
    with serving(status(429, Retry_After="500")) as world:
        client = ChatClient(Endpoint(world.url, "some-judge"))
        client.stop()
        with pytest.raises(EndpointError, match="in 1 attempts"):
            client.ask(messages(CASE))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"url": "localhost:8000"}, "expected http://HOST"), ({"attempts": 0}, "attempts 0")],
)
def test_malformed_endpoints(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Endpoint(**{"url": "http://localhost/v1", "model": "m", **settings})


def test_agreement_by_hand() -> None:
    """20 both right, 5 and 10 one alone, 15 neither: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5."""
    first = np.repeat([True, True, False, False], [20, 5, 10, 15])
    second = np.repeat([True, False, True, False], [20, 5, 10, 15])
    found = agreement(first, second)
    assert found.percent == pytest.approx(70.0) and found.kappa == pytest.approx(0.4)
    assert agreement(first, first) == Agreement(100.0, 1.0)
    assert agreement(first | True, second | True) == Agreement(100.0, None)
    assert agreement(first[:0], second[:0]) == Agreement(None, None)
    with pytest.raises(ValueError, match="50 scores against 3"):
        agreement(first, second[:3])
