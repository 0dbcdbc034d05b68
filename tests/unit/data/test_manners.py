"""How commands fail: a message for what is the user's or the machine's, a traceback for a defect."""

from __future__ import annotations

import argparse
import sys

import pytest
from torch.distributed import DistBackendError, DistNetworkError

from data.manners import main_command


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of a command that ends so."""
    monkeypatch.setattr(sys, "argv", ["command"])

    def main(arguments: argparse.Namespace) -> None:
        raise error

    return main_command(argparse.ArgumentParser(), main)


REMOTE = (
    "NCCL error in: ProcessGroupNCCL.cpp:1, remote process exited or there was a network error, NCCL version "
    "2.27.5\nncclRemoteError: A call failed possibly due to a network error or a remote process exiting "
    "prematurely.\nLast error:\n"
)
TIMEOUT = (
    "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE, "
    "Timeout(ms)=600000) ran for 600012 milliseconds before timing out."
)
CLOSED = "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?"
ABORTED = "NCCL communicator was aborted on rank 1. "
CUDA = "NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)\nncclUnhandledCudaError: ..."
REASON = "Original reason for failure was: "


@pytest.mark.parametrize(
    "lost",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]: Connection reset by peer."),
        DistBackendError(REMOTE),
        DistBackendError(TIMEOUT),
        DistBackendError(ABORTED),
        DistBackendError(ABORTED + REASON + TIMEOUT),
        DistBackendError(ABORTED + REASON + REMOTE),
        DistNetworkError(CLOSED),
        DistBackendError(f"... via c10d key-value store by key '0', but store->get('0') got error: {CLOSED}"),
    ],
    ids=["gloo", "remote", "timeout", "aborted", "aborted-timeout", "aborted-remote", "store", "set-up"],
)
def test_a_lost_process_of_a_launch_is_no_traceback(
    lost: RuntimeError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NCCL's errors are made here with the words of torch 2.14 and NCCL 2; none was met."""
    assert fail_with(lost, monkeypatch) == 1
    assert "error: another process of this launch has ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    "defect", [RuntimeError("a defect"), DistBackendError(CUDA), DistBackendError(ABORTED + REASON + CUDA)]
)
def test_what_went_wrong_in_this_process_keeps_its_traceback(
    defect: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(type(defect), match="a defect|unhandled cuda error"):
        fail_with(defect, monkeypatch)
