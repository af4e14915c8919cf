"""Searches side by side: each in stacks of its own, results in order, and an error that ends them all."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from bridges.dense import load_dense
from bridges.errors import BridgesError
from bridges.nodes import NodeBus, intervene
from bridges.storage.workers import MOST, worker_count, workers


@pytest.fixture
def threads():
    """Sets PyTorch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_results_come_in_order_and_threads_are_shared(threads):
    threads(4)
    first_waits = threading.Event()

    def work(own: str, item: int) -> tuple[int, int]:
        if item == 0:
            assert first_waits.wait(30)
        else:
            first_waits.set()
        return item, torch.get_num_threads()

    with workers(["a", "b"]) as each:
        assert list(each(work, range(5))) == [(i, 2) for i in range(5)]
    assert torch.get_num_threads() == 4


def test_a_single_worker_works_in_this_thread():
    with workers(["mine"]) as each:
        assert list(each(lambda own, item: (own, item, threading.current_thread()), [1])) == [
            ("mine", 1, threading.main_thread())
        ]


def test_an_error_stops_the_other_workers():
    buses = [NodeBus({"0.q": 1}), NodeBus({"0.q": 1})]
    running = threading.Event()

    def work(bus: NodeBus, item: int) -> None:
        if item == 0:
            assert running.wait(30)
            raise ValueError("broken")
        while True:
            with bus.acting({"0.q": lambda x: x}):
                running.set()

    with pytest.raises(ValueError, match="broken"), workers(buses, lambda: [bus.halt() for bus in buses]) as each:
        list(each(work, range(2)))
    with pytest.raises(BridgesError, match=r"Stopped\."), buses[0].acting({}):
        pass


def test_as_many_workers_as_threads_where_copies_are_cheap(threads, monkeypatch):
    stack = torch.nn.Linear(1000, 1000, bias=False)  # 4 MB
    threads(2)
    assert worker_count(None, {"sparse": stack}) == 2
    threads(64)
    assert worker_count(None, {"sparse": stack}) == MOST
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 8 * 4_000_000}))
    assert worker_count(None, {"sparse": stack}) == 2
    assert worker_count(None, {"sparse": stack, "dense": stack}) == 1
    assert worker_count(3, {"sparse": stack, "dense": stack}) == 3
    assert worker_count(None, {"sparse": torch.nn.Linear(1, 1, device="meta")}) == 1


def test_a_copy_of_a_hugging_face_stack_has_its_own_hooks(workplace):
    dense, _ = load_dense(str(workplace / "dense"))
    ids = torch.arange(6)[None]
    plain = dense.logits(ids)
    with workers([dense, copy.deepcopy(dense)]) as each:
        meeting = threading.Barrier(2, timeout=30)

        def logits(stack, factor):
            with torch.no_grad(), intervene(stack, {"0.mlp_neuron": lambda x: factor * x}):
                meeting.wait()
                found = stack.logits(ids)
                meeting.wait()
            return found

        zero, one = each(logits, [0.0, 1.0])
    torch.testing.assert_close(one, plain)
    assert not torch.allclose(zero, plain)
