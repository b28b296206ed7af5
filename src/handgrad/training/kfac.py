"""A train step that looks at the curvature every so often: K-FAC in training."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.typing import ArrayLike

from handgrad.compile import Jitted, jit
from handgrad.gradient import Objective
from handgrad.insight.curvature import check_samples
from handgrad.insight.kfac import kfac_factors, kfac_update
from handgrad.layers.layer import Array
from handgrad.training.step import Metrics, TrainState, TrainStep, make_train_step


@dataclass(frozen=True, eq=False)
class KfacStep:
    """A compiled step, (train_state, x, y, weights=None) -> (train_state, Metrics). Made by `make_kfac_step`."""

    step: TrainStep
    every: int
    samples: int | None
    curvature: Objective
    donate: bool

    @property
    def objective(self) -> Objective:
        """That of the step."""
        return self.step.objective

    @property
    def optimizer(self) -> Any:
        """That of the step."""
        return self.step.optimizer

    def __call__(
        self, train_state: TrainState, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[TrainState, Metrics]:
        """The train state after one step on the batch, and the metrics of the batch before it."""
        return self._compiled(train_state, x, y, weights)

    def lower(self, train_state: TrainState, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> Any:
        """The lowered step, as `jax.jit(f).lower` gives it."""
        return self._compiled.lower(train_state, x, y, weights)

    @functools.cached_property
    def _compiled(self) -> Jitted:
        factors = kfac_factors(self.curvature, self.samples)

        def step(train_state: TrainState, x: Array, y: Array, weights: Array | None) -> tuple[TrainState, Metrics]:
            t, params, state, opt_state, key = train_state

            def looked(opt_state: Any) -> Any:
                return kfac_update(opt_state, factors(params, x, y, state, jax.random.fold_in(key, t), weights))

            opt_state = lax.cond(t % self.every == 0, looked, lambda same: same, opt_state)
            return self.step(train_state._replace(opt_state=opt_state), x, y, weights)

        return jit(step, donate_argnums=0 if self.donate else ())


def make_kfac_step(
    objective: Objective,
    optimizer: Any,
    *,
    every: int = 10,
    samples: int | None = None,
    curvature: Objective | None = None,
    donate: bool = True,
    **settings: Any,
) -> KfacStep:
    """A compiled training step for an optimizer with `hg.kfac` in it, which takes in new factors every so many steps.

    Args:
        objective: what is made small.
        optimizer: such as `hg.optimizers.chain(hg.kfac(net), hg.momentum(0.02))`.
        every: steps from one look at the curvature to the next; the first step looks.
        samples: as in `hg.kfac_factors`: None for K backward passes a look, a number for so many.
        curvature: whose factors, if not those of the objective: for a net with BatchNorm
            `hg.Objective(hg.inference(net), loss)`, whose parameters and state are those of the net.
        donate: as in `make_train_step`.
        **settings: the others of `make_train_step`, `value_and_grad` and `precision`.

    Returns:
        step(train_state, x, y, weights=None) -> (train_state, Metrics), which `fit` takes as it takes any.

    Raises:
        TypeError: as `make_train_step`; at the first call, an optimizer without `hg.kfac`.
        ValueError: `every` below 1; as `hg.kfac_factors`.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(3))
        >>> objective, optimizer = hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.optimizers.chain(
        ...     hg.kfac(net), hg.sgd(0.5))
        >>> train_state = hg.init_train_state(net, optimizer, jax.random.key(0), (2,))
        >>> step = make_kfac_step(objective, optimizer)
        >>> x = jax.numpy.ones((4, 2), "float32")
        >>> for _ in range(3):
        ...     train_state, metrics = step(train_state, x, jax.numpy.array([0, 1, 2, 0]))
        >>> int(train_state.step), int(train_state.opt_state[0].updates)
        (3, 1)
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"make_kfac_step: every must be an int of at least 1, got {every!r}")
    step = make_train_step(objective, optimizer, donate=False, **settings)
    check_samples("make_kfac_step", curvature or objective, samples)
    return KfacStep(step, every, samples, curvature or objective, donate)
