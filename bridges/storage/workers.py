"""Several behaviours at a time: threads, each with stacks of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import psutil
import torch

from bridges.stack import ResidualStack

# Beyond so many, threads wait for Python more than they compute.
MOST = 4
# How much of the machine's memory copies of the stacks may take.
MEMORY_SHARE = 0.125

Each = Callable[[Callable[[Any, Any], Any], Iterable[Any]], Iterator[Any]]


def worker_count(wanted: int | None, stacks: Mapping[str, ResidualStack]) -> int:
    """How many behaviours to work on at a time.

    One after the other leaves cores idle: the operations on its prompts are too small to keep several busy. A GPU is
    one worker.

    Args:
        wanted: what the settings ask for; None: one for every processor thread that PyTorch uses, as far as copies of
            the stacks take little memory.
    """
    if wanted is not None:
        return wanted
    tensors = [p for stack in stacks.values() for p in stack.parameters()]  # type: ignore[attr-defined]
    if any(p.device.type != "cpu" for p in tensors):
        return 1
    # Of all memory, not of what is free now: how many there are must not change from run to run.
    copies = MEMORY_SHARE * psutil.virtual_memory().total / max(1, sum(p.numel() * p.element_size() for p in tensors))
    return max(1, min(MOST, torch.get_num_threads(), 1 + int(copies)))


@contextmanager
def workers(own: Sequence[Any], stop: Callable[[], None] = lambda: None) -> Iterator[Each]:
    """``each(function, items)``: yields ``function(own of a worker, item)`` for every item, in order.

    A search hangs functions on a stack's nodes and zeroes weights in place: two in one stack would read each other's
    interventions.

    Args:
        own: what each worker works with. A single one works in this thread; several share PyTorch's threads.
        stop: called where the block is left by an error, to end what still runs.
    """
    if len(own) == 1:
        yield lambda function, items: (function(own[0], item) for item in items)
        return
    free: SimpleQueue[Any] = SimpleQueue()
    for mine in own:
        free.put(mine)

    def on_free(function: Callable[[Any, Any], Any], item: Any) -> Any:
        mine = free.get()
        try:
            return function(mine, item)
        finally:
            free.put(mine)

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // len(own)))
    pool = ThreadPoolExecutor(len(own))
    try:
        yield lambda function, items: pool.map(lambda item: on_free(function, item), items)
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
