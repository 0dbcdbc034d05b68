"""JSON from files of others: whatever is wrong with a text is a ValueError."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64  # of lists and objects in each other; what is read can also be written again


def parse_json(text: str | bytes) -> Any:
    """`json.loads`, with a ValueError (JSONDecodeError where it has a place) for every fault.

    Raises:
        ValueError: no JSON, a number of more than 4300 digits, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"nested too deeply, at most {MAX_DEPTH} levels are expected") from None


def strange_part(value: Any) -> str | None:
    """Why a parsed value cannot be written again as UTF-8 text: half a surrogate pair, or nested too deeply.

    None if it can.
    """
    layer = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in layer:
            if isinstance(item, str):
                if not _is_text(item):
                    return f"half a surrogate pair in {ascii(item[:60])}"
            elif isinstance(item, dict):
                deeper += [*item, *item.values()]
            elif isinstance(item, list):
                deeper += item
        if not deeper:
            return None
        layer = deeper
    return f"nested too deeply, at most {MAX_DEPTH} levels are expected"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
