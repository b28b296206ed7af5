"""Training: the step, the loop over epochs, evaluation, checkpoints."""

from handgrad.training import checkpoint
from handgrad.training.evaluate import evaluate, predict
from handgrad.training.fit import fit
from handgrad.training.step import Metrics, TrainState, TrainStep, init_train_state, make_train_step

__all__ = [
    "Metrics",
    "TrainState",
    "TrainStep",
    "checkpoint",
    "evaluate",
    "fit",
    "init_train_state",
    "make_train_step",
    "predict",
]
