"""Tables of what the models can do."""

from __future__ import annotations

from bridges.storage.tables.column import Column, Table, with_interval

BEHAVIOUR = Column("behaviour", "str", "name of the behaviour")
SEED = Column("seed", "int", "seed of the draw or search")
SPLIT = Column("split", "str", "split of the prompt pairs", choices=("train", "heldout", "reach"))
N_PAIRS = Column("n_pairs", "int", "prompt pairs measured on")

BEHAVIOUR_TABLES: tuple[Table, ...] = (
    Table(
        "suite",
        "one behaviour asked for",
        (
            BEHAVIOUR,
            Column("suite", "str", "suite it belongs to: python, english or a file's name"),
            Column("description", "str", "what the behaviour is, one sentence"),
            Column("expressible", "bool", "whether the tokenizer can express it"),
            Column("reason", "str", "why it cannot, or why there are fewer pairs than asked for", optional=True),
            Column("train_pairs", "int", "distinct pairs of the training split"),
            Column("heldout_pairs", "int", "distinct pairs of the held-out split"),
            Column("reach_pairs", "int", "distinct pairs of frames that are kept for reach"),
            Column("shared_last", "float", "share of held-out pairs, equally long, that end in the same token"),
            Column("clean", "str", "an example: clean prompt", optional=True),
            Column("counterfactual", "str", "the same example: counterfactual prompt", optional=True),
            Column("answer", "str", "the token that is right for the clean prompt", optional=True),
            Column("other", "str", "the token that is right for the counterfactual prompt", optional=True),
        ),
    ),
    Table(
        "behaviours",
        "one behaviour done by one model",
        (
            BEHAVIOUR,
            SPLIT,
            Column(
                "model",
                "str",
                "which model: dense, sparse, a single-crossing hybrid at a pair, or the bigram table",
                choices=("dense", "sparse", "hybrid_d2s", "hybrid_s2d", "bigram"),
            ),
            Column("bridge", "int", "site pair of the crossing", optional=True),
            *with_interval("loss", "mean two-way cross-entropy over both prompts of each pair, nats (chance: ln 2)"),
            *with_interval("accuracy", "share of prompts whose right token has the larger logit"),
            *with_interval("logit_difference", "mean logit of the right token minus the other's"),
            N_PAIRS,
            SEED,
        ),
    ),
)
