"""Settings of the circuit search, tuned: ``python -m bridges tune-circuits runs/<folder> --trials 32 --jobs 2``.

The paper tunes them anew for every model and task (section A.5: CARBS, 32 rounds of 8 runs); here Optuna's TPE does. A
trial is one choice of settings, worth the circuits they find in a few behaviours. Circuits are judged on the training
pairs that they were searched on, never on held-out ones: those must stay unseen for whoever judges the circuits.
"""

from bridges.tuning.circuits.ranges import PAPER, RANGES
from bridges.tuning.circuits.result import SEARCHES, Study
from bridges.tuning.circuits.rounds import tune
from bridges.tuning.circuits.trial import score

__all__ = ["PAPER", "RANGES", "SEARCHES", "Study", "score", "tune"]
