"""Training: the step, the loop over epochs, evaluation, checkpoints."""

from handgrad.training import checkpoint, distributed
from handgrad.training.ensemble import Ensemble, ensemble
from handgrad.training.evaluate import evaluate, predict
from handgrad.training.export import export_step
from handgrad.training.fit import fit
from handgrad.training.gradients import gradient_accumulation, mixed_precision
from handgrad.training.run_folder import read_history
from handgrad.training.run_record import note_run, note_test, read_run
from handgrad.training.step import Metrics, TrainState, TrainStep, init_train_state, make_train_step
from handgrad.training.sweep import sweep
from handgrad.training.swept import Sweep

__all__ = [
    "Ensemble",
    "Metrics",
    "Sweep",
    "TrainState",
    "TrainStep",
    "checkpoint",
    "distributed",
    "ensemble",
    "evaluate",
    "export_step",
    "fit",
    "gradient_accumulation",
    "init_train_state",
    "make_train_step",
    "mixed_precision",
    "note_run",
    "note_test",
    "predict",
    "read_history",
    "read_run",
    "sweep",
]
