"""What a removed node says instead: its mean, nothing, or what it says in other text."""

from __future__ import annotations

import pytest
import torch

from bridges.circuits.ablation import MOST, Ablation, node_means, node_values, windows
from bridges.circuits.search.search import find_circuit
from bridges.circuits.task import prompts
from bridges.errors import ConfigError
from bridges.nodes import record

from .conftest import QUOTE_CIRCUIT, nodes_of, published, quote_pairs


@pytest.fixture
def reference(quote_model, quote_text):
    return node_means(quote_model, quote_text)


def test_node_means_are_those_of_all_tokens(quote_model, quote_text, reference):
    with record(quote_model) as seen:
        quote_model.logits(torch.cat(quote_text))
    for point, value in seen.items():
        torch.testing.assert_close(reference[point], value.flatten(0, 1).mean(0))


def test_windows_come_from_the_text():
    text = torch.arange(40).view(4, 10)
    drawn = windows(text, 50, 4, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 4) and (drawn.diff(dim=1) == 1).all() and len(drawn.unique(dim=0)) > 10
    assert windows(text, 3, 25, torch.Generator().manual_seed(0)).shape == (3, 25)


def test_resampled_nodes_say_what_they_say_in_other_text(quote_model, quote_text, reference):
    text = torch.cat(quote_text)
    removed = Ablation(quote_model, reference, "resample", text)
    some = prompts(quote_pairs(4, 0))
    values = removed.values(some, torch.Generator().manual_seed(3))
    ids = windows(text, len(some), some.ids.shape[1], torch.Generator().manual_seed(3))
    whole = node_values(quote_model, ids)
    assert all(torch.equal(values[p], whole[p]) for p in whole)
    assert Ablation(quote_model, reference).values(some, torch.Generator()) is None
    assert all(not r.any() for r in Ablation(quote_model, reference, "zero").reference.values())
    with pytest.raises(ConfigError, match=r"circuits\.ablation=resample needs text"):
        Ablation(quote_model, reference, "resample")


def test_mixed_ablation_is_the_mean_in_a_drawn_half_of_the_pairs(quote_model, quote_text, reference):
    text, some = torch.cat(quote_text), prompts(quote_pairs(6, 0))
    removed = Ablation(quote_model, reference, "mixed", text)
    resampled = []
    for seed in range(8):
        mixed = removed.values(some, torch.Generator().manual_seed(seed))
        g = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(6, generator=g)[:3]
        other = node_values(quote_model, windows(text, 6, some.ids.shape[1], g))
        for point, value in mixed.items():
            pairs = value.unflatten(0, (-1, 2))
            mean = torch.ones(6, dtype=torch.bool).index_fill(0, drawn, False)
            assert torch.equal(pairs[mean], reference[point].expand_as(pairs[mean]))
            assert torch.equal(pairs[drawn], other[point].unflatten(0, (-1, 2)))
        resampled.append(set(drawn.tolist()))
    # Pairs stand in the order of their templates: not always the same ones.
    assert set().union(*resampled) == set(range(6))


def test_what_is_drawn_from_a_pool_is_what_nodes_say_in_text_or_their_mean(
    quote_model, quote_text, reference, monkeypatch
):
    text, some = torch.cat(quote_text), prompts(quote_pairs(6, 0))
    length = some.ids.shape[1]
    removed = Ablation(quote_model, reference, "mixed", text)
    pool = removed.pool(length + 3, torch.Generator().manual_seed(0))
    whole = node_values(quote_model, windows(text, MOST, length + 3, torch.Generator().manual_seed(0)))
    entries = removed.entries(some, torch.Generator().manual_seed(1), pool)
    mixed = {point: value[entries, :length] for point, value in pool.items()}
    means = {point: reference[point].expand(length, -1) for point in mixed}
    rows = []
    for row in range(len(some)):
        at = [w for w in range(MOST) if all(torch.equal(mixed[p][row], whole[p][w, :length]) for p in mixed)]
        mean = all(torch.equal(mixed[p][row], means[p]) for p in mixed)
        assert mean or at
        rows.append(mean)
    assert sum(rows) == 6 and rows[::2] == rows[1::2]
    resampled = Ablation(quote_model, reference, "resample", text)
    entries = resampled.entries(some, torch.Generator().manual_seed(1), pool)
    values = {point: value[entries, :length] for point, value in pool.items()}
    assert not any(all(torch.equal(values[p][row], means[p]) for p in means) for row in range(len(some)))
    assert Ablation(quote_model, reference).pool(length, torch.Generator()) is None
    monkeypatch.setattr("bridges.circuits.ablation.MEMORY", 1000)
    assert removed.pool(length, torch.Generator()) is None


@pytest.mark.parametrize("ablation", ["resample", "mixed"])
def test_a_search_under_resampling_finds_the_circuit(ablation, quote_model, quote_text, reference):
    settings = published(ablation=ablation)
    text = torch.cat(quote_text)
    circuit = find_circuit(quote_model, quote_pairs(128, 0), reference, settings, 0, text=text)
    found = nodes_of(circuit)
    assert circuit.reached and circuit.ablation == ablation
    # What resampled neighbours say adds noise, so that one node more or less may pay.
    assert len(found & QUOTE_CIRCUIT) >= len(QUOTE_CIRCUIT) - 2 and len(found) <= len(QUOTE_CIRCUIT) + 3
