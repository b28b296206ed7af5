"""Losses: one number that says how wrong the logits are, with its hand-derived gradient."""

from handgrad.losses.classification import BinaryCrossEntropy, Hinge, SoftmaxCrossEntropy
from handgrad.losses.loss import Loss
from handgrad.losses.regression import Huber, MeanSquaredError

__all__ = ["BinaryCrossEntropy", "Hinge", "Huber", "Loss", "MeanSquaredError", "SoftmaxCrossEntropy"]
