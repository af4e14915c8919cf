"""Comparison: does the sparse circuit, carried through the bridges, explain what the dense model does?"""

from bridges.compare.agreement import agreement_rows, pair_logit_diffs, text_rows
from bridges.compare.channels import live_channels
from bridges.compare.crossing import Transfer
from bridges.compare.rows import transfer_rows
from bridges.compare.similarity import cross_validated_r2, linear_cka, similarity_rows
from bridges.compare.verdict import decide

__all__ = [
    "Transfer",
    "agreement_rows",
    "cross_validated_r2",
    "decide",
    "linear_cka",
    "live_channels",
    "pair_logit_diffs",
    "similarity_rows",
    "text_rows",
    "transfer_rows",
]
