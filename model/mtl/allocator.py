"""Memory on a processor: asked for in large pages, and given back when it was freed.

A step of AoE-MTL with ResNet-50 on 288 x 384 takes some millions of pages of 4 KiB from the system, each set
to zero and entered singly; in pages of 2 MiB it is a tenth as many.

The C library keeps for later what it is given back, and what a task's graph leaves free lies in pieces
between what stays: pieces too small for the next task's maps. In such a step that was as much again as its
tensors held.
"""

from __future__ import annotations

import ctypes
import os
import sys


def use_huge_pages() -> None:
    """Have torch ask Linux for large pages (its own setting, read at its first large tensor), unless the user
    has set something.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def give_back_freed() -> None:
    """Whole free pages go back, wherever they lie; glibc on Linux only, nothing happens elsewhere.

    They cost a page fault each when they are wanted again, so it is for a few moments of a step.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
