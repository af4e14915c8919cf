"""Tables of circuits and of the controls that tell a circuit from an artefact."""

from __future__ import annotations

from bridges.storage.tables.behaviours import BEHAVIOUR, N_PAIRS, SEED, SPLIT
from bridges.storage.tables.column import Column, Table, with_interval

METHODS = ("learned", "attribution", "integrated_gradients", "random", "magnitude")
OBJECTIVES = ("faithful", "task_loss")
ABLATIONS = ("mean", "zero", "resample", "mixed")
PROMPTS = ("clean", "counterfactual")
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
            Column("objective", "str", "what was asked of it", choices=OBJECTIVES),
            ABLATION,
            Column("nodes", "int", "kept nodes"),
            Column("protected", "int", "those of them that adversarial pruning added: the whole model needs them"),
            Column("edges", "int", "kept weights between kept nodes, inside the blocks"),
            Column("edges_with_embeddings", "int", "the same with those of embedding and unembedding"),
            Column("node_level_edges", "int", "edges before edges were removed: all weights between kept nodes"),
            Column("total_nodes", "int", "nodes of the whole model"),
            Column("total_edges", "int", "nonzero weights inside the blocks of the whole model"),
            Column("target", "float", "what the objective had to reach: unexplained variance, or nats"),
            Column("reached", "bool", "whether it did on the training pairs"),
            Column("train_loss", "float", "the objective on the training pairs (task loss: calibrated)"),
            Column("carried", "float", "unexplained variance of what is moved across the search's bridge, same pairs"),
            Column("heldout_fvu", "float", "unexplained variance of the logit difference on held-out pairs"),
            Column("heldout_loss", "float", "two-way loss on held-out pairs, nats (task loss: calibrated)"),
            Column("heldout_accuracy", "float", "share of held-out prompts decided rightly"),
            Column("full_loss", "float", "held-out two-way loss of the whole model, uncalibrated"),
            Column("scale", "float", "calibration: factor on the logits (1: none)"),
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
            Column("score", "float", "the search's score of the node (τ of learned pruning, …)"),
            Column("mean", "float", "mean over reference text, which replaces the node where it is ablated"),
            Column("attribution", "float", "first-order fall of the mean logit difference when it alone is ablated"),
            Column(
                "effect", "float", "the same exactly, of the nodes with the largest attribution (NaN: not measured)"
            ),
            Column(
                "recovered",
                "float",
                "share of the circuit's logit difference, over that with every node ablated, that this node and those "
                "of larger attribution recover alone (NaN: not measured at this size)",
                optional=True,
            ),
            Column("lost", "float", "share of the same that is lost where these nodes are ablated", optional=True),
            Column("protected", "bool", "whether adversarial pruning added it"),
        ),
    ),
    Table(
        "edges",
        "one weight of a circuit",
        (
            *_WHICH,
            Column("matrix", "str", "layer and matrix, such as 2.up; 2.out.1 where heads share values"),
            Column("source", "str", "point the weight reads, or `embedding`"),
            Column("source_channel", "int", "channel it reads (token id where it reads the embedding)"),
            Column("target", "str", "point the weight writes, or `logits`"),
            Column("target_channel", "int", "channel it writes (token id where it writes logits)"),
            Column("weight", "float", "its value"),
            Column("attribution", "float", "first-order fall of the mean logit difference when it alone is ablated"),
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
        "prompt_activations",
        "one node of a circuit on one prompt of the behaviour's example pair",
        (
            BEHAVIOUR,
            MODEL,
            Column("point", "str", "layer and kind"),
            Column("channel", "int", "index within the point"),
            Column("prompt", "str", "which prompt of the pair in table `suite`", choices=PROMPTS),
            Column("tokens", "str", "JSON list of the prompt's tokens as text"),
            Column("values", "str", "JSON list of the node's activation in the whole model at each of them"),
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
            Column("quantity", "str", "what was measured, such as accuracy, loss, agreement, fvu, null_edges"),
            *with_interval("value", "the measurement"),
            Column("reference", "float", "what it is compared with, measured the same way (NaN: nothing)"),
            Column("decides", "bool", "whether a verdict reads this row"),
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
