"""How commands fail: a message for what is the user's or the machine's, a traceback for a defect."""

from __future__ import annotations

import argparse
import sys

import pytest

from data.manners import main_command


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of a command that ends so."""
    monkeypatch.setattr(sys, "argv", ["command"])

    def main(arguments: argparse.Namespace) -> None:
        raise error

    return main_command(argparse.ArgumentParser(), main)


def test_a_lost_process_of_a_launch_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]: Connection reset by peer.")
    assert fail_with(lost, monkeypatch) == 1
    assert "error: another process of this launch has ended" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a defect"):
        fail_with(RuntimeError("a defect"), monkeypatch)
