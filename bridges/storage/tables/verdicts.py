"""Tables of the comparison: does the sparse circuit explain what the dense model does?"""

from __future__ import annotations

from bridges.storage.tables.behaviours import BEHAVIOUR, N_PAIRS, SEED
from bridges.storage.tables.column import Column, Table, with_interval

VERDICTS = ("reproduced", "partial", "not", "dense model cannot", "not expressible")
DIRECTIONS = (
    "circuit",
    "none",
    "random_directions",
    "random_nodes",
    "shuffled_bridge",
    "tokens",
    "empty_circuit",
    "ridge_bridge",
    "difference_of_means",
    "probe",
    "pca",
)

VERDICT_TABLES: tuple[Table, ...] = (
    Table(
        "agreement",
        "one way in which two models agree on one behaviour, or on text",
        (
            Column("behaviour", "str", "name of the behaviour, or `text`"),
            Column("first", "str", "reference model, such as dense"),
            Column("second", "str", "model compared with it: sparse, circuit, dense2"),
            Column("quantity", "str", "what was measured, such as logit_difference_correlation"),
            *with_interval("value", "the measurement"),
            Column("n", "int", "prompts or tokens measured on"),
            SEED,
        ),
    ),
    Table(
        "transfer",
        "one intervention carried through a bridge",
        (
            BEHAVIOUR,
            Column(
                "measurement",
                "str",
                "what is done",
                choices=("interchange", "necessity", "steering", "dense_to_sparse"),
            ),
            Column("pair", "int", "site pair"),
            Column("dense_site", "int", "site in the dense model"),
            Column("sparse_site", "int", "site in the sparse model"),
            Column("direction", "str", "what is added to the stream, or which bridge carries it", choices=DIRECTIONS),
            Column("strength", "float", "factor on the difference, 0 to 1"),
            Column(
                "quantity",
                "str",
                "p_counterfactual, share_moved, loss or accuracy; with _minus_null or _minus_baseline what is left "
                "beyond the best null or the difference of means",
            ),
            *with_interval("value", "the measurement"),
            N_PAIRS,
            SEED,
            Column("chosen", "bool", "whether the training pairs chose this site pair for it", optional=True),
            Column("nodes", "str", "the whole circuit or its best channel", optional=True, choices=("all", "best")),
            Column("channel", "int", "that channel of the sparse stream", optional=True),
            Column("p_value", "float", "one-sided bootstrap p that a difference is not above 0", optional=True),
        ),
    ),
    Table(
        "similarity",
        "one measure of likeness of the two streams at a site pair",
        (
            Column("pair", "int", "site pair"),
            Column("dense_site", "int", "site in the dense model"),
            Column("sparse_site", "int", "site in the sparse model"),
            Column("quantity", "str", "linear_cka, r2_dense_to_sparse or r2_sparse_to_dense (cross-validated)"),
            Column("value", "float", "the measurement"),
            Column("n", "int", "tokens measured on"),
        ),
    ),
    Table(
        "evidence",
        "one number that a verdict stands on",
        (
            BEHAVIOUR,
            Column("criterion", "str", "name of the criterion, as in conf/verdict"),
            *with_interval("value", "the measurement"),
            Column("threshold", "float", "the bar"),
            Column("passed", "bool", "whether it was met"),
            Column("veto", "bool", "whether failing it rules out `reproduced` and `partial`"),
            Column("p_value", "float", "one-sided, where the criterion is a test (NaN otherwise)"),
            Column("p_adjusted", "float", "corrected over the behaviours (Holm)"),
            Column("meaning", "str", "the criterion in words"),
        ),
    ),
    Table(
        "verdicts",
        "one behaviour",
        (
            BEHAVIOUR,
            Column("verdict", "str", "the answer", choices=VERDICTS),
            Column("reason", "str", "why, in words"),
            Column("dense_accuracy", "float", "two-way accuracy of the dense model on held-out pairs"),
            Column("sparse_accuracy", "float", "of the sparse model"),
            Column("circuit_accuracy", "float", "of the circuit alone"),
            Column("nodes", "int", "nodes of the sparse circuit", optional=True),
            Column("edges", "int", "edges of the sparse circuit", optional=True),
            Column("dense_edges", "int", "edges of the dense circuit at the same target", optional=True),
            Column("agreement", "float", "share of held-out prompts that circuit and dense model decide alike"),
            Column("correlation", "float", "correlation of circuit's and dense model's logit differences"),
            Column("share_moved", "float", "share of the dense logit difference moved by the circuit's interchange"),
            Column("share_moved_low", "float", "lower end of its interval"),
            Column("share_moved_null", "float", "the same for the best null"),
            Column("share_moved_baseline", "float", "the same for the difference of means of equal norm"),
            Column("failed", "str", "criteria that were not met, comma-separated", optional=True),
        ),
    ),
)
