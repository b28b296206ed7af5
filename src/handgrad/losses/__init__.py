"""Losses: one number that says how wrong the logits are, with its hand-derived gradient."""

from handgrad.losses.classification import BinaryCrossEntropy, Hinge
from handgrad.losses.loss import Loss
from handgrad.losses.regression import Huber, MeanSquaredError
from handgrad.losses.softmax import Focal, KLDivergence, NegativeLogLikelihood, SoftmaxCrossEntropy

__all__ = [
    "BinaryCrossEntropy",
    "Focal",
    "Hinge",
    "Huber",
    "KLDivergence",
    "Loss",
    "MeanSquaredError",
    "NegativeLogLikelihood",
    "SoftmaxCrossEntropy",
]
