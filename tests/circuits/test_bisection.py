"""The fewest best nodes that reach a target, for rankings whose circuits get better with every node and for others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bridges.circuits.circuit import Circuit
from bridges.circuits.search.bisection import best_nodes, bisect

EMPTY = Circuit(
    "b", "sparse", "learned", 0, "mean", {"p": torch.zeros(1000, dtype=torch.bool)}, {}, None, {}, 0.1, False, 1.0
)  # fmt: skip


class Ranking:
    """Circuits of growing size, of which these sizes reach the target."""

    def __init__(self, reaches):
        self.reaches, self.tried = reaches, []

    def __call__(self, count: int) -> Circuit:
        self.tried.append(count)
        nodes = {"p": torch.arange(1000) < count}
        return replace(EMPTY, nodes=nodes, reached=bool(self.reaches(count)))


@pytest.mark.parametrize("needed", [1, 2, 7, 60, 333, 1000])
def test_a_monotone_ranking_without_learning(needed):
    ranking = Ranking(lambda count: count >= needed)
    found = bisect(ranking, 1000)
    # A baseline's size is found to a sixth of itself.
    assert found.reached and needed <= found.size <= 1.2 * needed + 1 and len(ranking.tried) < 25


@pytest.mark.parametrize("needed", [1, 7, 60, 100])
def test_a_learned_ranking_is_looked_at_up_to_its_open_gates(needed):
    ranking = Ranking(lambda count: count >= needed)
    found = bisect(ranking, 1000, opened=100)
    assert found.reached and needed <= found.size <= 1.07 * needed + 1
    assert max(ranking.tried) <= 100


def test_a_few_more_than_are_open_are_tried_and_no_further():
    found = bisect(ranking := Ranking(lambda count: count >= 120), 1000, opened=100)
    assert found.reached and 120 <= found.size <= 130 and max(ranking.tried) <= 133
    nothing = bisect(ranking := Ranking(lambda count: count >= 500), 1000, opened=100)
    # Beyond that a ranking by learning says nothing.
    assert not nothing.reached and max(ranking.tried) <= 153


def test_of_circuits_that_all_miss_the_one_with_the_least_loss_is_kept():
    """Behind the open gates the order is noise: of 100 open ones little is unexplained, of 115 everything is."""

    def take(count: int) -> Circuit:
        return replace(Ranking(lambda count: False)(count), train_loss=0.07 if count <= 100 else 2.0)

    found = bisect(take, 1000, opened=100)
    assert (found.size, found.train_loss, found.reached) == (100, 0.07, False)
    assert bisect(take, 1000, opened=100, everywhere=True).size == 100


def test_what_is_found_reaches_even_where_more_nodes_are_worse():
    """From 40 to 59 and from 200 nodes on it reaches, between them it does not."""
    ranking = Ranking(lambda count: 40 <= count < 60 or count >= 200)
    found = bisect(ranking, 1000)
    assert found.reached and (40 <= found.size < 60 or 200 <= found.size <= 241)
    assert found.size == min(count for count in ranking.tried if ranking.reaches(count))


def test_none_reaches():
    found = bisect(ranking := Ranking(lambda count: False), 300)
    assert not found.reached and found.size == 300 and ranking.tried == [300]


def test_without_bisection_what_is_open_is_kept():
    found = bisect(ranking := Ranking(lambda count: count >= 3), 1000, opened=77, fewest=False)
    assert found.size == 77 and ranking.tried == [77]


def test_the_best_nodes_and_of_equal_ones_the_earlier():
    found = best_nodes({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([3.0, 2.0])}, 2)
    assert found["a"].tolist() == [False, True] and found["b"].tolist() == [True, False]
