"""Manners of all commands: where to log, how to fail. Needs no torch.

An error of the user's is one message on stderr and exit status 1; only a defect of this code shows a
traceback.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable

# In a RuntimeError of torch.distributed: the process at the other end is gone.
LOST_PEER = (
    "Connection reset by peer",  # these three of gloo
    "Connection closed by peer",
    "Broken pipe",
    "Connection was likely closed",  # of the store where processes meet, also within an error of NCCL
    "remote process exited or there was a network error",  # of NCCL
    "milliseconds before timing out",  # of NCCL's watchdog
    "NCCL communicator was aborted",  # afterwards, maybe with a reason
)
REASON = "Original reason for failure was: "


def main_command(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> int:
    """Parse, set up logging, run; returns the exit status."""
    arguments = parser.parse_args()
    set_up_logging()
    try:
        main(arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("AVQACL_TRACEBACK"):
            raise
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return 1
    except RuntimeError as error:
        if os.environ.get("AVQACL_TRACEBACK") or not tells_lost_peer(str(error)):
            raise
        sys.stderr.write(
            f"{parser.prog}: error: another process of this launch has ended or does not answer, see the "
            "launcher's report; start again with as many to go on from what is kept\n"
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: stopped; start it again to go on from here\n")
        return 130
    return 0


def tells_lost_peer(text: str) -> bool:
    """Whether an error of torch.distributed says that another process is gone; where it names the reason of
    an earlier one, whether that does: a communicator is aborted for faults of this process, too."""
    reason = text.partition(REASON)[2] or text
    return any(sign in reason for sign in LOST_PEER)


def set_up_logging() -> None:
    """Information on stdout, warnings and errors on stderr; the shell scripts keep both."""
    plain = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    information = logging.StreamHandler(sys.stdout)
    information.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)
    for handler in (information, warnings):
        handler.setFormatter(plain)
    rank = int(os.environ.get("RANK", 0))
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING, handlers=[information, warnings], force=True
    )
    for name in ("httpx", "urllib3", "PIL", "matplotlib", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
