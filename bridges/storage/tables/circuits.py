"""Tables of circuits and of the controls that tell a circuit from an artefact."""

from __future__ import annotations

from bridges.storage.tables.behaviours import BEHAVIOUR, N_PAIRS, SEED, SPLIT
from bridges.storage.tables.column import Column, Table

METHODS = ("learned", "attribution", "integrated_gradients", "random", "magnitude")
ABLATIONS = ("mean", "zero", "resample", "mixed")
MODEL = Column("model", "str", "which stack the circuit is in", choices=("dense", "sparse"))
METHOD = Column("method", "str", "how the nodes were chosen", choices=METHODS)
ABLATION = Column("ablation", "str", "what replaces a removed node", choices=ABLATIONS)
_WHICH = (BEHAVIOUR, MODEL, METHOD, SEED)

CIRCUIT_TABLES: tuple[Table, ...] = (
    Table(
        "circuits",
        "one circuit",
        (
            *_WHICH,
            ABLATION,
            Column("nodes", "int", "kept nodes"),
            Column("guards", "int", "those of them that hardening added: the whole model needs them", optional=True),
            Column("edges", "int", "kept weights between kept nodes, inside the blocks"),
            Column("edges_with_embeddings", "int", "the same with those of embedding and unembedding"),
            Column("node_level_edges", "int", "edges before edges were removed: all weights between kept nodes"),
            Column("total_nodes", "int", "nodes of the whole model"),
            Column("total_edges", "int", "nonzero weights inside the blocks of the whole model"),
            Column("target", "float", "two-way loss the circuit had to reach, nats"),
            Column("reached", "bool", "whether it did on the training pairs"),
            Column("train_loss", "float", "two-way loss on the training pairs, calibrated, nats"),
            Column("heldout_loss", "float", "the same on held-out pairs"),
            Column("heldout_accuracy", "float", "share of held-out prompts decided rightly"),
            Column("full_loss", "float", "held-out two-way loss of the whole model, uncalibrated"),
            Column("scale", "float", "calibration: factor on the logits"),
            Column("shift", "float", "calibration: added to the first candidate's logit minus the second's"),
            N_PAIRS,
        ),
    ),
    Table(
        "nodes",
        "one node of a circuit",
        (
            *_WHICH,
            Column("point", "str", "layer and kind, such as 2.mlp_neuron"),
            Column("channel", "int", "index within the point"),
            Column("score", "float", "the search's score of the node (τ of learned pruning, …), highest in guards"),
            Column("mean", "float", "mean over reference text, which replaces the node where it is removed"),
            Column("importance", "float", "rise of the two-way loss when this node alone is removed from the circuit"),
        ),
    ),
    Table(
        "edges",
        "one weight of a circuit",
        (
            *_WHICH,
            Column("matrix", "str", "name of the parameter"),
            Column("source", "str", "point the weight reads, or `embedding`"),
            Column("source_channel", "int", "channel it reads (token id where it reads the embedding)"),
            Column("target", "str", "point the weight writes, or `logits`"),
            Column("target_channel", "int", "channel it writes (token id where it writes logits)"),
            Column("weight", "float", "its value"),
            Column("token", "str", "text of the token that it reads or writes", optional=True),
        ),
    ),
    Table(
        "activations",
        "one of the places in text where a circuit's node is most active",
        (
            BEHAVIOUR,
            MODEL,
            Column("point", "str", "layer and kind"),
            Column("channel", "int", "index within the point"),
            Column("rank", "int", "0 for the strongest"),
            Column("value", "float", "activation at the marked token"),
            Column("token", "int", "index of the marked token in `tokens`"),
            Column("tokens", "str", "JSON list of the tokens' texts around it"),
            Column("values", "str", "JSON list of the activation at each of them"),
        ),
    ),
    Table(
        "controls",
        "one measurement of one control",
        (
            *_WHICH,
            Column("control", "str", "which control"),
            SPLIT,
            ABLATION,
            Column("draw", "int", "index of the repetition"),
            Column("size", "int", "nodes involved"),
            Column("quantity", "str", "what was measured, such as loss, accuracy, agreement, jaccard, edges"),
            Column("value", "float", "the measurement"),
            Column("reference", "float", "what it is compared with, measured the same way (NaN: nothing)"),
            Column("threshold", "float", "the bar the verdict of this control used (NaN: informative only)"),
            Column("passed", "bool", "whether the control was passed, in the row that decides", optional=True),
            N_PAIRS,
        ),
    ),
    Table(
        "faithfulness",
        "one point of the curve of circuits of growing size",
        (
            *_WHICH,
            ABLATION,
            SPLIT,
            Column("level", "str", "node or edge", choices=("node", "edge")),
            Column("fraction", "float", "share of the model's nodes or edges that is kept"),
            Column("f", "float", "(m(circuit) - m(all ablated)) / (m(full) - m(all ablated)), m the logit difference"),
            Column("cpr", "float", "area under f over fractions 0 to 1"),
            Column("cmd", "float", "area under |1 - f|"),
            N_PAIRS,
        ),
    ),
)
