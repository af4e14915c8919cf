"""What the models can do, measured in stacked passes, against the plain measure one model at a time."""

from __future__ import annotations

import contextlib

import pandas as pd
import pytest
import torch

from bridges.behaviours import encode, get_behaviour, get_suite, summarise, two_way
from bridges.behaviours.pair import BehaviourError
from bridges.behaviours.stage import behaviour_rows, candidate_logits, measure_behaviour
from bridges.bridge import Bridges, pair_sites
from bridges.config import BehavioursConfig
from bridges.dense import load_dense
from bridges.hybrid import Path, path_logits
from bridges.runs.sources import select_behaviours
from bridges.sparse import SparseTransformer, SparseTransformerConfig
from bridges.storage.tables import TABLES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models():
    dense, tokenizer = load_dense("tinypython")
    torch.manual_seed(0)
    sparse = SparseTransformer(
        SparseTransformerConfig(vocab_size=2048, n_layer=4, d_model=16, d_head=4, initializer_range=0.3)
    ).eval()
    bridges = Bridges(256, 16, pair_sites(8, 8, 4), 0.5)
    return dense, tokenizer, sparse, bridges


def test_stacked_answers_are_those_of_each_model_alone(models):
    dense, tokenizer, sparse, bridges = models
    encoded = encode(get_behaviour("set_or_string"), tokenizer, "heldout", 6, 0)
    table = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    found = candidate_logits(encoded, dense, sparse, bridges, CPU, contextlib.nullcontext(), batch=4, bigram=table)
    alone = {("dense", None): dense.logits, ("sparse", None): sparse.logits, ("bigram", None): lambda ids: table[ids]}
    for pair in range(3):
        for name, first in (("hybrid_d2s", "D"), ("hybrid_s2d", "S")):
            path = Path(first, (pair,))
            alone[name, pair] = lambda ids, path=path: path_logits(path, dense, sparse, bridges, ids)
    assert found.keys() == alone.keys()
    for key, logits in alone.items():
        rows = two_way(logits, encoded, 3)
        expected = torch.tensor(rows[["logit_correct", "logit_other"]].to_numpy())
        torch.testing.assert_close(found[key], expected, atol=2e-3, rtol=1e-4, msg=str(key))
    row = behaviour_rows(encoded, found, 50, 3)[0]
    plain = summarise(two_way(dense.logits, encoded), 50, 3)
    assert row["accuracy"] == plain["accuracy"] and row["loss"] == pytest.approx(plain["loss"], abs=1e-4)


def measured(behaviours, config, dense, sparse, bridges, tokenizer) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables ``suite`` and ``behaviours``."""
    rows: dict[str, list] = {"suite": [], "behaviours": []}
    for behaviour in behaviours.values():
        found = measure_behaviour(
            behaviour, config, dense, sparse, bridges, tokenizer,
            bigram=None, device=CPU, autocast=contextlib.nullcontext, bootstrap=20, seed=0,
        )  # fmt: skip
        for name, mine in found.items():
            rows[name] += mine
    suite, each = (pd.DataFrame(rows[name], columns=TABLES[name].names) for name in rows)
    each["bridge"] = each["bridge"].astype("Int64")
    return suite, each


def test_tables_of_a_suite(models):
    dense, tokenizer, sparse, bridges = models
    config = BehavioursConfig(pairs=8, hybrid_pairs=3, names=["for_while", "class_init"])
    suite, rows = measured(select_behaviours(config, tokenizer), config, dense, sparse, bridges, tokenizer)
    assert list(suite["behaviour"]) == ["class_init", "for_while"] and suite["expressible"].all()
    assert (suite["heldout_pairs"] == 8).all() and (suite["shared_last"] == 1.0).all()
    assert (suite["reach_pairs"] > 8).all()
    for frame, name in ((suite, "suite"), (rows, "behaviours")):
        TABLES[name].arrow(frame)
    counts = rows.groupby("model").size()
    assert counts.to_dict() == {"dense": 2, "sparse": 2, "hybrid_d2s": 6, "hybrid_s2d": 6}
    crossed = rows["bridge"].notna()
    assert set(rows.loc[crossed, "n_pairs"]) == {3} and set(rows.loc[~crossed, "n_pairs"]) == {8}


def test_what_the_tokenizer_cannot_express_is_reported_with_its_reason(models):
    dense, _, sparse, bridges = models
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(kinds.WordLevel({"<u>": 0}, "<u>")), unk_token="<u>")
    config = BehavioursConfig(pairs=8, names=["for_while"])
    suite, rows = measured({"for_while": get_suite("python")["for_while"]}, config, dense, sparse, bridges, words)
    assert not suite["expressible"].iloc[0] and "not expressible" in suite["reason"].iloc[0]
    assert rows.empty
    TABLES["behaviours"].arrow(rows)


def test_a_misspelt_behaviour_is_named(models):
    with pytest.raises(BehaviourError, match=r"for_wile.*for_while"):
        select_behaviours(BehavioursConfig(names=["for_wile"]), models[1])
    assert select_behaviours(BehavioursConfig(suite="none"), models[1]) == {}
