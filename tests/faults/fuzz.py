"""Hostile and broken files for every reader: whatever comes in, it is read or refused in a clear error.

Each reader runs in a forked process under a memory limit, since what may go wrong is a crash, a hang or an
allocation of any size in a library of C. Cases are drawn by hypothesis: good files with bytes changed,
inserted, removed and repeated, and for JSON also values of any shape under the keys that are looked at.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from data.parallel import die_with
from tests.faults.tally import Tally

MEMORY = 3 * 2**30  # bytes that a case may take beyond what the process holds
SLOW = 60.0  # seconds of processor time after which a case counts as endless


@dataclass(frozen=True)
class Target:
    """One reader: cases, and what is done with one; the path given is fresh for each."""

    name: str
    cases: st.SearchStrategy[bytes]
    read: Callable[[Path], object]
    file: str  # name of the file
    share: float = 1.0  # of the number of cases


def mutations(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A good file with up to six changes."""
    place = st.integers(0, 2**32)
    change = st.one_of(
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("flip"), place, st.binary(min_size=1, max_size=1)),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=16)),
        st.tuples(st.just("cut"), place, st.binary(min_size=1, max_size=2)),
        st.tuples(st.just("end"), place, st.just(b"")),
        st.tuples(st.just("repeat"), place, st.binary(min_size=1, max_size=1)),
        st.tuples(st.just("head"), place, st.binary(min_size=1, max_size=4)),
    )
    return st.builds(_mutated, st.sampled_from(seeds), st.lists(change, min_size=1, max_size=6))


def _mutated(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    made = bytearray(content)
    for what, number, data in changes:
        place = number % max(len(made), 1)
        if what == "set":
            made[place : place + len(data)] = data
        elif what == "flip" and made:
            made[place] ^= data[0] or 1
        elif what == "insert":
            made[place:place] = data
        elif what == "cut":
            del made[place : place + int.from_bytes(data, "big")]
        elif what == "end":
            del made[place:]
        elif what == "repeat":
            made[place:place] = bytes(made[place : place + 64]) * (data[0] % 9)
        else:  # where formats keep sizes and types
            place = number % min(max(len(made), 1), 128)
            made[place : place + len(data)] = data
    return bytes(made)


def json_values() -> st.SearchStrategy[Any]:
    """JSON values with half surrogate pairs, huge numbers and all that."""
    text = st.one_of(
        st.sampled_from(
            [
                "<video>\n<audio>\nWhat is it?",
                "a dog",
                "human",
                "gpt",
                "../../etc/passwd",
                "/etc/passwd",
                "f0.jpg",
            ]
            + [
                "a\0b",
                "\ud800",
                "x" * 300,
                "<image>",
                "<video><video>",
                "",
                " ",
                "link/a.jpg",
                "c/../../x.wav",
            ]
        ),
        st.text(st.characters(exclude_categories=()), max_size=12),
    )
    numbers = st.one_of(st.integers(), st.floats(), st.just(10**400), st.booleans(), st.none())
    leaf = st.one_of(text, numbers)
    return st.recursive(
        leaf,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
        max_leaves=12,
    )


def sample_files() -> st.SearchStrategy[bytes]:
    """Sample files whose every part may be something else."""
    anything = json_values()
    turn = st.fixed_dictionaries(
        {"from": st.one_of(st.sampled_from(["human", "gpt"]), anything), "value": anything}
    )
    paths = st.one_of(anything, st.lists(anything, max_size=4))
    item = st.fixed_dictionaries(
        {},
        optional={
            "id": anything,
            "conversations": st.one_of(anything, st.lists(turn, max_size=3), st.tuples(turn, turn)),
            "video": paths,
            "voice": paths,
            "image": paths,
            "audio": anything,
        },
    )
    content = st.one_of(st.lists(st.one_of(item, anything), max_size=4), anything)
    monsters = st.sampled_from(
        [
            b"[" * 100_000,
            b'[{"id": ' + b"9" * 5000 + b"}]",
            b'{"a":' * 5000,
            b"[NaN, 1e999]",
            b"\xff\xfe[",
            b"\xef\xbb\xbf[]",
        ]
        + [b'[{"x": ' + b"[" * depth + b"]" * depth + b"}]" for depth in (63, 64, 65, 300, 900, 1500)]
    )
    written = st.one_of(content, good_samples()).map(lambda value: json.dumps(value).encode())
    return st.one_of(written, monsters, written.flatmap(lambda data: mutations([data])))


@st.composite
def good_samples(draw: st.DrawFn) -> list[Any]:
    """Samples that can be read, up to one part that may be anything."""
    texts, paths = st.text(min_size=1, max_size=12), st.sampled_from(["f0.jpg", "./f0.jpg", "d/../f0.jpg"])
    samples = []
    for number in range(draw(st.integers(1, 3))):
        media = {
            "video": draw(st.lists(paths, min_size=1, max_size=3)),
            "voice": [draw(st.sampled_from(["a.wav", "d/a.ogg"]))],
        }
        kept = {name: value for name, value in media.items() if draw(st.booleans())}
        tags = "".join({"video": "<video>\n", "voice": "<audio>\n"}[name] for name in kept)
        turns = [
            {"from": "human", "value": f"{tags}{draw(texts)} what?"},
            {"from": "gpt", "value": f"a {draw(texts)}"},
        ]
        samples.append({"id": draw(st.sampled_from([number, f"s{number}"])), "conversations": turns, **kept})
    if draw(st.booleans()):
        sample = draw(st.sampled_from(samples))
        sample[draw(st.sampled_from([*sample, "more"]))] = draw(json_values())
    return samples


def fuzz(target: Target, cases: int, folder: Path, number: int) -> Tally:
    """`cases` cases for one reader; a case that ends its process is kept beside the folder."""
    tally, begun = Tally(f"fuzz {target.name}"), 0
    while tally.tried < cases:
        begun += 1
        found = _in_a_fork(target, cases - tally.tried, folder, number * 1000 + begun)
        for loss in found.losses:
            tally.count(loss)
        for _ in range(found.survived):
            tally.count(None)
        tally.notes = [f"{found.notes[0]}"] if found.notes else tally.notes
        if tally.lost > 20:
            break
    return tally


def _in_a_fork(target: Target, cases: int, folder: Path, number: int) -> Tally:
    """Cases until the first one that ends or stops the process."""
    folder.mkdir(parents=True, exist_ok=True)
    progress = folder / f"{target.name.replace(' ', '_')}.progress.json"
    progress.unlink(missing_ok=True)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        die_with(parent)
        status = 1
        with contextlib.suppress(BaseException):
            _cases(target, cases, folder, number, progress)
            status = 0
        os._exit(status)
    last, since, ended, hung = b"", 0.0, 0, False
    while not ended:
        time.sleep(0.02)
        ended, raw = os.waitpid(child, os.WNOHANG)
        now = progress.read_bytes() if progress.is_file() else b""
        if ended:  # its times are gone with it
            break
        if now != last:
            last, since = now, _processor_seconds(child)
        elif _processor_seconds(child) - since > SLOW:
            hung = True
            os.kill(child, signal.SIGKILL)
            ended, raw = os.waitpid(child, 0)
    content = json.loads(progress.read_bytes() or b"{}") if progress.is_file() else {}
    tally = Tally(target.name, notes=content.get("notes", []))
    tally.losses = content.get("losses", [])
    tally.survived = content.get("survived", 0)
    if raw or not content:
        kept = folder / f"lost_{number}_{target.file}"
        with contextlib.suppress(OSError):
            (folder / target.file).rename(kept)
        how = "did not end" if hung else f"ended its process with {os.waitstatus_to_exitcode(raw)}"
        tally.losses.append(f"{kept}: {how}")
    tally.tried = tally.survived + len(tally.losses)
    return tally


def _processor_seconds(process: int) -> float:
    """Time that a process has used: a busy machine is no endless case."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cases(target: Target, cases: int, folder: Path, number: int, progress: Path) -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of C complain there
    warnings.simplefilter("ignore")
    state: dict[str, Any] = {"survived": 0, "losses": [], "notes": []}
    counts = {"read": 0, "refused": 0}
    path = folder / target.file

    def note(final: bool = False) -> None:
        if final or (counts["read"] + counts["refused"]) % 50 == 0:
            state["notes"] = [", ".join(f"{count} {name}" for name, count in counts.items())]
            partial = progress.with_suffix(".part")
            partial.write_text(json.dumps(state))
            partial.replace(progress)

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=False,
    )
    @given(target.cases)
    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            target.read(path)
            counts["read"] += 1
        except (ValueError, OSError) as error:
            counts["refused"] += 1
            if str(path.parent) not in str(error):
                state["losses"].append(f"no file in the error {type(error).__name__}: {error}"[:300])
                state["survived"] -= 1
        except Exception as error:
            kept = folder / f"lost_{number}_{len(state['losses'])}_{target.file}"
            kept.write_bytes(content)
            state["losses"].append(f"{kept}: {type(error).__name__}: {error}"[:300])
            state["survived"] -= 1
        state["survived"] += 1
        note()

    note(final=True)
    one()
    note(final=True)


def encoded(write: Callable[[io.BytesIO], object]) -> bytes:
    """What `write` writes."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()
