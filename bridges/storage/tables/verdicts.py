"""Tables of the comparison: is what the dense model does the sparse circuit's computation?"""

from __future__ import annotations

from bridges.storage.tables.behaviours import BEHAVIOUR, N_PAIRS, SEED
from bridges.storage.tables.column import Column, Table, with_interval

VERDICTS = (
    "reproduced",
    "partial",
    "undecided",
    "not",
    "last token suffices",
    "dense model cannot",
    "not expressible",
)
# The five claims of a verdict, in order, and what stands beside them.
CLAIMS = ("done", "sufficient", "necessary", "small", "same computation", "robustness")
# Whole interval on the right side of the bar, on the wrong side, across it, or not measured.
STATES = ("held", "missed", "open", "not measured")
DIRECTIONS = (
    "dense",
    "sparse",
    "circuit",
    "none",
    "random_directions",
    "other_channels",
    "shuffled_bridge",
    "untrained_bridge",
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
            Column("first", "str", "reference model: dense, or sparse for what a circuit explains of its own model"),
            Column("second", "str", "model compared with it: sparse, circuit, dense2"),
            Column(
                "quantity",
                "str",
                "what was measured: accuracy, decision_agreement, logit_difference_correlation; of circuit against "
                "sparse: fvu, faithfulness (mean logit difference over the model's), accuracy_share",
            ),
            *with_interval("value", "the measurement"),
            Column("n", "int", "prompts or tokens measured on"),
            SEED,
        ),
    ),
    Table(
        "transfer",
        "one change moved across a bridge at shared positions",
        (
            BEHAVIOUR,
            Column(
                "measurement",
                "str",
                "interchange (sparse to dense), dense_to_sparse, necessity, steering",
                choices=("interchange", "dense_to_sparse", "necessity", "steering"),
            ),
            Column("bridge", "int", "index of the bridge, from the embedding up"),
            Column("dense_site", "int", "site in the dense model"),
            Column("sparse_site", "int", "site in the sparse model"),
            Column(
                "direction",
                "str",
                "whose change is moved; the ceiling is `dense` in interchange and `circuit` in dense_to_sparse",
                choices=DIRECTIONS,
            ),
            Column("strength", "float", "factor on the change, 0 to 1"),
            Column(
                "quantity",
                "str",
                "share_moved (of a full swap of the answers), share_of_ceiling, share_moved_minus_null (beyond the "
                "best null), loss, loss_minus_null or p_counterfactual",
            ),
            *with_interval("value", "the measurement"),
            N_PAIRS,
            SEED,
            Column("selected", "bool", "whether the training pairs selected this bridge"),
            Column("p_value", "float", "one-sided bootstrap p that a difference is not above 0"),
        ),
    ),
    Table(
        "similarity",
        "one measure of likeness of the two streams at a bridge",
        (
            Column("bridge", "int", "index of the bridge, from the embedding up"),
            Column("dense_site", "int", "site in the dense model"),
            Column("sparse_site", "int", "site in the sparse model"),
            Column("quantity", "str", "linear_cka, r2_dense_to_sparse or r2_sparse_to_dense (cross-validated)"),
            Column("value", "float", "the measurement"),
            Column("n", "int", "tokens measured on"),
        ),
    ),
    Table(
        "claims",
        "one criterion of a claim that a verdict makes, or of its robustness",
        (
            BEHAVIOUR,
            Column("claim", "str", "which claim it belongs to", choices=CLAIMS),
            Column("criterion", "str", "name of the criterion"),
            *with_interval("value", "the measurement"),
            Column("bar", "float", "what it is held against"),
            Column("at_least", "bool", "whether the value has to be at least the bar (else at most)"),
            Column("state", "str", "how the interval lies to the bar", choices=STATES),
            Column("p_value", "float", "one-sided, where the criterion is a test (NaN otherwise)"),
            Column("p_adjusted", "float", "corrected over the behaviours (Holm)"),
            Column("short", "str", "the criterion in a few words, with value and bar, such as `FVU 0.31 > 0.20`"),
            Column("meaning", "str", "the criterion as a sentence"),
        ),
    ),
    Table(
        "verdicts",
        "one behaviour",
        (
            BEHAVIOUR,
            Column("verdict", "str", "the answer", choices=VERDICTS),
            Column("robust", "bool", "whether every measured robustness criterion held", optional=True),
            Column("reason", "str", "why, in about ten words"),
            Column("dense_accuracy", "float", "two-way accuracy of the dense model on held-out pairs"),
            Column("sparse_accuracy", "float", "of the sparse model"),
            Column("circuit_accuracy", "float", "of the circuit alone"),
            Column("nodes", "int", "nodes of the sparse circuit", optional=True),
            Column("edges", "int", "edges of the sparse circuit", optional=True),
            Column("dense_edges", "int", "edges of the dense model's own circuit at the same target", optional=True),
            Column(
                "fvu", "float", "variance of the sparse model's logit difference that the circuit leaves unexplained"
            ),
            Column("faithfulness", "float", "mean logit difference of the circuit over that of the sparse model"),
            Column("accuracy_without", "float", "accuracy of the sparse model without the circuit"),
            Column("bridge", "int", "the selected bridge", optional=True),
            Column("share_moved", "float", "share of the dense logit difference that the circuit moves there"),
            Column("ceiling", "float", "the same by the dense model's own exchange"),
            Column("share_moved_sparse", "float", "the same by the whole sparse model"),
            Column(
                "share_back", "float", "share of the circuit's logit difference that the dense model's change moves"
            ),
            Column("ceiling_back", "float", "the same by the circuit's own exchange"),
            Column("reach_fvu", "float", "unexplained variance on frames that no search has seen"),
            Column("failed", "str", "criteria that decided against it, comma-separated", optional=True),
        ),
    ),
)
