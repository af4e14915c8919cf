"""Tables of training and of the mixed passes."""

from __future__ import annotations

from bridges.storage.tables.column import Column, Table, with_interval

LOSS_TERMS = ("ce", "kl", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d")
BRIDGES = ("trained", "untrained", "ridge")
PATH_KINDS = (
    "pure_dense",
    "pure_sparse",
    "bigram",
    "single_d2s",
    "single_s2d",
    "round_trip_dense",
    "round_trip_sparse",
    "double_dsd",
    "double_sds",
)

# The kinds of text that a narrow run's models are tried on.
TRAINED, HELDOUT, REACH, OTHERS, TEXT = SCOPE_TEXTS = (
    "trained prompts",
    "held-out prompts",
    "reach frames",
    "other behaviours",
    "ordinary text",
)

_TERMS = tuple(
    column
    for term in LOSS_TERMS
    for column in (
        Column(term, "float", f"loss term {term}, raw", optional=True),
        Column(f"{term}_weighted", "float", f"loss term {term} times its coefficient", optional=True),
    )
)
_N_SEQUENCES = Column("n_sequences", "int", "sequences measured on")
_SPLIT = Column("split", "str", "split of the corpus measured on")

BRIDGE_TABLES: tuple[Table, ...] = (
    Table(
        "training",
        "one logged training step",
        (
            Column("step", "int", "optimizer steps done"),
            Column("tokens", "int", "training tokens seen"),
            Column("total", "float", "the loss that is back-propagated: the sum of the weighted terms"),
            *_TERMS,
            Column("answer_weighted", "float", "the KLs at prompts' answers times their coefficients", optional=True),
            Column("lr", "float", "learning rate of this step", optional=True),
            Column("l0_target", "float", "fraction of weights the schedule lets be nonzero", optional=True),
            Column("l0_actual", "float", "fraction of weights that are nonzero", optional=True),
            Column("grad_rms", "float", "RMS over all gradients, before clipping", optional=True),
            Column("dead_neurons", "int", "MLP neurons that no weight enters or none leaves", optional=True),
        ),
    ),
    Table(
        "timing",
        "one logged training step",
        (
            Column("step", "int", "optimizer steps done"),
            Column("seconds", "float", "wall-clock seconds of training so far"),
            Column("tokens_per_second", "float", "training tokens per second since the row before"),
        ),
    ),
    Table(
        "sites",
        "one pair of sites under one set of bridges",
        (
            Column("bridges", "str", "which bridges", choices=BRIDGES),
            Column("bridge", "int", "index of the pair, from the embedding up"),
            Column("dense_site", "int", "site in the dense model"),
            Column("sparse_site", "int", "site in the sparse model"),
            Column("nmse_encoder", "float", "NMSE of the encoded dense state against the sparse state"),
            Column("nmse_decoder", "float", "NMSE of the decoded sparse state against the dense state"),
            Column("fvu_encoder", "float", "fraction of variance unexplained by the encoder"),
            Column("fvu_decoder", "float", "fraction of variance unexplained by the decoder"),
            *with_interval("kl_d2s", "KL(dense || hybrid dense to sparse at this pair), nats per token"),
            *with_interval("kl_s2d", "KL(dense || hybrid sparse to dense at this pair), nats per token"),
            _N_SEQUENCES,
            _SPLIT,
        ),
    ),
    Table(
        "paths",
        "one mixed path",
        (
            Column(
                "bridges",
                "str",
                "which bridges; none where the path crosses no bridge",
                optional=True,
                choices=(*BRIDGES, "none"),
            ),
            Column("path", "str", "segments in order, such as D0-S3-D8"),
            Column("kind", "str", "what sort of path", choices=PATH_KINDS),
            Column("crossings", "int", "bridges crossed"),
            *with_interval("ce", "cross-entropy with the next token, nats per token"),
            *with_interval("kl", "KL(dense || path) over the full vocabulary, nats per token"),
            _N_SEQUENCES,
            Column("n_tokens", "int", "predicted tokens measured on"),
            _SPLIT,
        ),
    ),
    Table(
        "scope",
        "one kind of text, of a narrow run",
        (
            Column("text", "str", "what sort of text", choices=SCOPE_TEXTS),
            Column("known", "float", "share of its tokens that the narrowed models know"),
            *with_interval("kl", "KL(dense || sparse) where it can be read, nats per token", optional=True),
            *with_interval("kl_bigram", "KL(dense || bigram table of the training text)", optional=True),
            _N_SEQUENCES,
        ),
    ),
    Table(
        "profile",
        "one behaviour at one dense site, where bridges are placed by it",
        (
            Column("behaviour", "str", "its name"),
            Column("dense_site", "int", "site in the dense model"),
            Column("share_moved", "float", "what the dense model's own exchange at shared positions moves there"),
            Column("n", "int", "training pairs"),
        ),
    ),
    Table(
        "sparsity",
        "one weight matrix of the sparse model",
        (
            Column("matrix", "str", "name of the parameter"),
            Column("rows", "int", "its rows"),
            Column("columns", "int", "its columns"),
            Column("numel", "int", "its entries"),
            Column("budget", "int", "entries that may be nonzero"),
            Column("nonzeros", "int", "entries that are nonzero"),
            Column("fraction", "float", "nonzeros / numel"),
        ),
    ),
)
