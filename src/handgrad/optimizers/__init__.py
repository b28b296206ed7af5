"""Optimizers over trees: pairs of init and update, interchangeable with optax's. See descent.py for the formulas."""

from handgrad.optimizers.descent import OptState, adam, adamw, momentum, previous_gradient_momentum, sgd
from handgrad.optimizers.ema import averaged, ema
from handgrad.optimizers.optimizer import Optimizer
from handgrad.optimizers.transforms import add_decayed_weights, apply_updates, chain, clip_by_global_norm, masked

__all__ = [
    "OptState",
    "Optimizer",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "averaged",
    "chain",
    "clip_by_global_norm",
    "ema",
    "masked",
    "momentum",
    "previous_gradient_momentum",
    "sgd",
]
