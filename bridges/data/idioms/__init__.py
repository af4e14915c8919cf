"""Generated component of the pretraining corpus: short, repetitive Python idioms.

Gao et al. (2025, "Weight-sparse transformers have interpretable circuits") train on real Python mixed with
simple synthetic code, so that a very small model learns clean versions of a fixed set of behaviours. This
package writes that synthetic part. Each function in `IDIOMS` writes one snippet of one behaviour: a cue
early in the text (an opening quote, `x = set()`, `lambda`, ...) and, later, a two-way next-token decision
that depends on it. The two branches are drawn with equal probability in the same surroundings, so nothing
but the cue predicts the decision.
"""

from bridges.data.idioms.catalogue import IDIOMS, WEIGHTS
from bridges.data.idioms.document import MAX_CHARS, MIN_CHARS, documents

__all__ = ["IDIOMS", "MAX_CHARS", "MIN_CHARS", "WEIGHTS", "documents"]
