"""Paths: how they are written, named, counted and run."""

from __future__ import annotations

import re

import pytest
import torch

from bridges.errors import BridgesError
from bridges.hybrid import Path, all_paths, path_logits, run_path


@pytest.mark.parametrize(
    ("text", "first", "crossings", "stacks", "kind"),
    [
        ("D0", "D", (), "D", "pure_dense"),
        ("S0", "S", (), "S", "pure_sparse"),
        ("D0-S3", "D", (3,), "DS", "single_d2s"),
        ("S0-D0", "S", (0,), "SD", "single_s2d"),
        ("D0-S4-D4", "D", (4, 4), "DSD", "round_trip_dense"),
        ("S0-D2-S2", "S", (2, 2), "SDS", "round_trip_sparse"),
        ("D0-S3-D8", "D", (3, 8), "DSD", "double_dsd"),
        ("S0-D1-S10", "S", (1, 10), "SDS", "double_sds"),
        ("S0-D1-S2-D2", "S", (1, 2, 2), "SDSD", "mixed"),
        ("D0-S1-D2-S3-D4", "D", (1, 2, 3, 4), "DSDSD", "mixed"),
    ],
)
def test_written_form_and_kind(text, first, crossings, stacks, kind):
    path = Path.parse(text)
    assert (path.first, path.crossings, path.stacks, path.kind) == (first, crossings, stacks, kind)
    assert str(path) == text
    assert Path(first, crossings) == path


@pytest.mark.parametrize(
    "text", ["D0-S3-S4", "D1-S3", "X0-D1", "D0S3", "D0-S", "d0-s1", "D0-S3-D1", "D0-S-1", "D0 - S1", "D0-S1-", "-D0"]
)
def test_what_is_no_path(text):
    with pytest.raises(BridgesError, match=re.escape(text)):
        Path.parse(text)


def test_an_empty_text_is_no_path():
    with pytest.raises(BridgesError):
        Path.parse("")


def test_crossings_that_fall_are_no_path():
    with pytest.raises(BridgesError, match="never fall"):
        Path("D", (2, 1))
    with pytest.raises(BridgesError, match="begins with D or S"):
        Path("X")


def test_an_unknown_first_stack_with_crossings_is_no_path():
    with pytest.raises(BridgesError):
        Path("X", (1,))


def test_a_negative_crossing_is_no_path(tiny_pair):
    p = tiny_pair
    with pytest.raises(BridgesError):
        run_path(Path("D", (-1,)), p.dense, p.sparse, p.bridges, p.ids)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_number_of_all_paths(n):
    paths = all_paths(n)
    assert len(set(paths)) == len(paths) == 2 + 2 * n + 2 * n + n * (n - 1)
    count = {kind: sum(p.kind == kind for p in paths) for kind in {p.kind for p in paths}}
    expected = {
        "pure_dense": 1,
        "pure_sparse": 1,
        "single_d2s": n,
        "single_s2d": n,
        "round_trip_dense": n,
        "round_trip_sparse": n,
    }
    if n > 1:
        expected |= {"double_dsd": n * (n - 1) // 2, "double_sds": n * (n - 1) // 2}
    assert count == expected


def test_two_crossing_paths_are_sampled_down_and_the_others_stay():
    every, some = all_paths(9), all_paths(9, limit=10, seed=4)
    fixed = 2 + 4 * 9
    assert some[:fixed] == every[:fixed]
    assert len(some) == fixed + 10
    assert set(some) <= set(every)
    assert some == all_paths(9, limit=10, seed=4)
    assert some != all_paths(9, limit=10, seed=5)
    assert all_paths(9, limit=72) == every
    assert len(all_paths(9, limit=0)) == fixed


@torch.no_grad()
def test_a_path_is_the_composition_of_its_segments(make_pair):
    p = make_pair(dense={"n_layer": 1})
    bridges, dense, sparse = p.bridges, p.dense, p.sparse
    assert [(q.dense, q.sparse) for q in bridges.pairs] == [(0, 0), (1, 2), (2, 4)]
    h = dense.sublayer(0, dense.embed(p.ids))
    h = bridges[1].encode(h)
    h = sparse.sublayer(3, sparse.sublayer(2, h))
    torch.testing.assert_close(path_logits(Path("D", (1,)), dense, sparse, bridges, p.ids), sparse.unembed(h, p.ids))
    h = sparse.embed(p.ids)
    h = dense.sublayer(0, bridges[0].decode(h))
    h = bridges[1].encode(h)
    h = bridges[1].decode(h)
    h = dense.sublayer(1, h)
    torch.testing.assert_close(run_path(Path.parse("S0-D0-S1-D1"), dense, sparse, bridges, p.ids), h)


def test_a_bridge_that_does_not_exist(tiny_pair):
    p = tiny_pair
    with pytest.raises(BridgesError, match="crosses bridge 5; there are the bridges 0 to 4"):
        path_logits(Path("D", (1, 5)), p.dense, p.sparse, p.bridges, p.ids)
