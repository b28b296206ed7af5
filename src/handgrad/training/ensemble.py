"""Several nets of one kind, trained in one compiled step and asked together.

The members m = 0 .. n-1 differ in their key alone, fold_in(key, m): in where they start and in their dropout masks. All
see the same batches. With a_m = softmax(o_m), the answer is the mean probability, or a vote:

    ā = 1/n Σ_m a_m          v_k = Σ_m [argmax_j o_mj = k]

-log is convex, so by Jensen's inequality the loss of the mean probability is at most the members' mean loss,
-log ā_y <= 1/n Σ_m -log a_my. Of accuracies it says nothing; what was measured is in docs/many_nets.md.

The members share one program: arrays have a leading axis of members, and the step is vmapped over it. On CPU the vmap
of a convolution is a loop over members (`handgrad.ops.batching`), up to 16; more go 16 by 16. A loop by `lax.map` took
2 to 30 times as long there.
Source: Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive uncertainty estimation using deep
ensembles, 2017 (nets that differ in their start; the mean of their probabilities).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from handgrad.gradient import Objective
from handgrad.layers.layer import Array, Layer, Params, Residuals, Shape, State, check_is_layer
from handgrad.ops.batching import UNROLLED
from handgrad.ops.precision import wide


@dataclass(frozen=True, repr=False)
class Ensemble(Layer):
    """Nets side by side whose params and state have a leading axis of members. Made by `hg.ensemble`, which tells all.

    `apply` gives their joint answer. Training goes through `make_train_step`, which trains each on its own loss.

    Args:
        net: what each member is.
        members: how many.
        by: how they answer together: "probability", "vote" or "mean".

    Example:
        >>> import handgrad as hg
        >>> members = hg.ensemble(hg.Chain(hg.Dense(2)), 3)
        >>> train_state = hg.init_train_state(members, hg.sgd(0.5), jax.random.key(0), (4,))
        >>> train_state.params["dense1"]["kernel"].shape
        (3, 4, 2)
        >>> members.member(train_state, 1).params["dense1"]["kernel"].shape
        (4, 2)
    """

    kind: ClassVar[str] = "ensemble"
    net: Layer
    members: int
    by: str = "probability"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_is_layer(self.net, "ensemble, net")
        if isinstance(self.members, bool) or not isinstance(self.members, int):
            raise TypeError(f"ensemble: n must be an int, got {self.members!r}")
        if self.members < 1:
            raise ValueError(f"ensemble: n must be at least 1, got {self.members}")
        if self.by not in ANSWERS:
            raise ValueError(f"ensemble: by must be one of {', '.join(ANSWERS)}, got {self.by!r}")

    def init(self, key: Array, in_shape: Shape, dtype: Any = jnp.float32) -> tuple[Any, Any]:
        """Params and state with a leading axis of members; member m is net.init(fold_in(key, m), in_shape, dtype)."""
        each = [self.net.init(jax.random.fold_in(key, m), in_shape, dtype) for m in range(self.members)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def apply(self, params: Params, x: Array, state: State = ()) -> Array:
        """The joint answer on x, by the mean probability, the vote or the mean."""
        at_once = 1 if jax.default_backend() == "cpu" else self.members  # the plain formula has no fast vmap on CPU
        outputs = each_member(lambda m, p, s: self.net.apply(p, x, s), self.members, at_once)(params, state)
        return ANSWERS[self.by](wide(outputs))

    def apply_train(self, params: Params, x: Array, state: State = (), key: Array | None = None) -> tuple[Array, State]:
        """Raise: members are trained each on its own loss, not on that of their joint answer."""
        raise ValueError(
            "Ensemble: hg.make_train_step trains its members, each on its own loss; for other tools take one member: "
            "hg.Objective(members.net, loss), with members.member(train_state, m)"
        )

    def forward(
        self, params: Params, x: Array, state: State = (), key: Array | None = None
    ) -> tuple[Array, State, Residuals]:
        """Raise, as `apply_train` does."""
        return *self.apply_train(params, x, state, key), {}

    def member(self, train_state: Any, m: int) -> Any:
        """The train state of one member, a copy, which `make_train_step` of its net trains on as the ensemble would.

        Args:
            train_state: of the ensemble.
            m: which member, 0 to n - 1.

        Raises:
            IndexError: there is no such member.
        """
        if not 0 <= m < self.members:
            raise IndexError(f"Ensemble: members are 0 to {self.members - 1}, got {m}")
        own = {name: jax.tree.map(lambda leaf: leaf[m], getattr(train_state, name)) for name in PER_MEMBER}
        own["step"] = jnp.copy(train_state.step)  # a step of either deletes what it is given
        return train_state._replace(**own, key=jax.random.fold_in(train_state.key, m))


def ensemble(net: Layer, n: int, by: str = "probability") -> Ensemble:
    """N nets that are trained in one compiled step and asked together.

    It stands wherever a net does: in `init_train_state`, `Objective`, `fit`, `evaluate`, `predict` and checkpoints.
    Member m is the net that `init_train_state(net, optimizer, fold_in(key, m), in_shape)` would start, and its training
    is that net's: its own loss, optimizer, batch statistics and dropout masks, on batches that all members share. A
    step's metrics are means over the members; `evaluate`, and the validation of `fit`, are of the joint answer.

    Args:
        net: the members' net.
        n: how many.
        by: how they answer together. "probability", the logarithm of the mean probability, whose softmax is that mean,
            so that a cross-entropy of it is right (of one column of logits: the logit of the mean of sigmoids);
            "vote", how many members have their largest logit there, plus half the mean probability, which decides ties
            and no more; "mean", the mean output, for regression.

    Returns:
        The `Ensemble`, a layer whose params, state and optimizer state have a leading axis of members, with
        `member(train_state, m)` to take one out.

    Raises:
        TypeError: net is no layer, or n no int.
        ValueError: n below 1, or another `by`; in training, a tool that wants one net.

    A member with NaN in its outputs makes every joint answer NaN: it does not go unseen.

    Example:
        >>> import handgrad as hg
        >>> members, optimizer = hg.ensemble(hg.Chain(hg.Dense(2)), 3), hg.sgd(0.5)
        >>> train_state = hg.init_train_state(members, optimizer, jax.random.key(0), (2,))
        >>> train_state.params["dense1"]["kernel"].shape
        (3, 2, 2)
        >>> step = hg.make_train_step(hg.Objective(members, hg.SoftmaxCrossEntropy()), optimizer)
        >>> x, y = jnp.eye(2, dtype="float32"), jnp.array([0, 1])
        >>> for _ in range(30):
        ...     train_state, metrics = step(train_state, x, y)
        >>> vote = hg.ensemble(members.net, 3, by="vote")
        >>> hg.predict(vote, train_state.params, train_state.state, x).round().tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """
    return Ensemble(net, n, by)


def each_member(f: Callable, members: int, at_once: int) -> Callable:
    """F of each member, stacked; so many are vmapped at once, one such group after the other.

    Args:
        f: (m, *trees of one member) -> a tree of arrays.
        members: how many there are.
        at_once: how many are in one vmap.

    Returns:
        (*trees with a leading axis of members) -> the tree with a leading axis of members.
    """

    def of_all(*trees: Any) -> Any:
        numbered = jnp.arange(members), *trees
        groups = [slice(start, start + at_once) for start in range(0, members, at_once)]
        parts = [jax.vmap(f)(*jax.tree.map(lambda leaf, group=group: leaf[group], numbered)) for group in groups]
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    return of_all


def member_objective(objective: Objective) -> Objective:
    """The objective of one member; where there is no ensemble, the objective itself."""
    net = objective.net
    return dataclasses.replace(objective, net=net.net) if isinstance(net, Ensemble) else objective


def member_step(net: Layer, step: Callable) -> Callable:
    """The step of a train state whose params, state and optimizer state have an axis of members, if net is an ensemble.

    Args:
        net: an ensemble, or any other layer, for which the step stays as it is.
        step: (train_state, x, y, weights) -> (train_state, metrics), of one net.
    """
    if not isinstance(net, Ensemble):
        return step
    at_once = UNROLLED if jax.default_backend() == "cpu" else net.members

    def step_of_all(train_state: Any, x: Array, y: Array, weights: Array | None) -> tuple[Any, Any]:
        def one(m: Array, params: Params, state: State, opt_state: Any) -> Any:
            own = {"params": params, "state": state, "opt_state": opt_state}
            own = train_state._replace(**own, key=jax.random.fold_in(train_state.key, m))
            own, metrics = step(own, x, y, weights)
            return {name: getattr(own, name) for name in PER_MEMBER}, metrics

        each = [getattr(train_state, name) for name in PER_MEMBER]
        new, metrics = each_member(one, net.members, at_once)(*each)
        return train_state._replace(step=train_state.step + 1, **new), jax.tree.map(lambda m: m.mean(0), metrics)

    return step_of_all


def init_optimizer(net: Layer, optimizer: Any, params: Params) -> Any:
    """The optimizer's state for the net's parameters; for an ensemble that of each member, stacked."""
    if not isinstance(net, Ensemble):
        return optimizer.init(params)
    return each_member(lambda m, params: optimizer.init(params), net.members, net.members)(params)


def _by_probability(logits: Array) -> Array:
    """The logarithm of ā, of logits (n, N, K); of (n, N, 1) log ā - log(1 - ā), with a = σ(o)."""
    if logits.shape[-1] == 1:
        return _log_mean(jax.nn.log_sigmoid(logits)) - _log_mean(jax.nn.log_sigmoid(-logits))
    return _log_mean(jax.nn.log_softmax(logits))


def _by_vote(logits: Array) -> Array:
    """Votes v + ā/2 of logits (n, N, K), for ā/2 is less than a vote; of (n, N, 1) those of yes, less their middle."""
    n, classes = len(logits), logits.shape[-1]
    if classes == 1:
        votes, mean = (logits > 0).sum(0), jax.nn.sigmoid(logits).mean(0)
        return votes.astype(logits.dtype) - n / 2 + (mean - 0.5) / 2
    votes = jax.nn.one_hot(logits.argmax(-1), classes, dtype=logits.dtype).sum(0)
    return votes + jax.nn.softmax(logits).mean(0) / 2


def _log_mean(logs: Array) -> Array:
    """The logarithm of the mean over the first axis of what has these logarithms."""
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(jnp.asarray(len(logs), logs.dtype))


PER_MEMBER = ("params", "state", "opt_state")
ANSWERS: dict[str, Callable[[Array], Array]] = {
    "probability": _by_probability,
    "vote": _by_vote,
    "mean": lambda outputs: outputs.mean(0),
}
