"""Train a convolutional net on handwritten digits by hand-derived gradients. `make train` runs this.

First the gradients by hand are checked against jax.grad and finite differences, then the net learns for half a minute
at most, then it is tested. Metrics, checkpoints and figures go to a folder of the run's own, of which
`handgrad report` makes a page.
"""

import argparse
import shlex
import sys

import jax
import jax.numpy as jnp

import handgrad as hg
from handgrad.cli import fresh_run_dir, print_results
from handgrad.training import note_run

parser = argparse.ArgumentParser(description="Train a net on handwritten digits by hand-derived gradients.")
parser.add_argument(
    "--run-dir", default="runs/digits", help="where to write; if a run is there, beside it (%(default)s)"
)
parser.add_argument("--epochs", type=int, default=30, help="times through the data (%(default)s)")
parser.add_argument("--batch-size", type=int, default=32, help="images a step (%(default)s)")
parser.add_argument("--seed", type=int, default=0, help="of weights, masks and order (%(default)s)")
options = parser.parse_args()

digits = hg.data.load_digits()
validation, (x, y) = hg.data.split(hg.data.normalise(digits.train_x), digits.train_y, 0.1)

net = hg.Chain(
    hg.Conv(64, 3), hg.Relu(), hg.MaxPool(2),
    hg.Conv(128, 3), hg.Relu(), hg.MaxPool(2),
    hg.Flatten(), hg.Dropout(0.5), hg.Dense(10),
)  # fmt: skip
objective = hg.Objective(net, hg.SoftmaxCrossEntropy(label_smoothing=0.1), l2=1e-4)
steps = options.epochs * (len(x) // options.batch_size)
optimizer = hg.adam(hg.schedules.cosine(2e-3, steps, warmup=steps // 20))

key = jax.random.key(options.seed)
start = hg.init_train_state(net, optimizer, key, x.shape[1:])
print(hg.summary(net, x.shape[1:]), end="\n\n")

# Biases of 0 put units that see black only exactly on the kink of a ReLU, so the check is made a little beside.
moved = jax.tree.map(lambda leaf: leaf + 0.05 if leaf.ndim == 1 else leaf, start.params)
report = hg.check_gradients(objective, moved, jnp.asarray(x[:4]), y[:4], start.state, key, coordinates=4)
print(report, end="\n\n", flush=True)
if not report.ok:
    raise SystemExit(1)

step = hg.make_train_step(objective, optimizer)  # value_and_grad=jax.value_and_grad trains by automatic gradients
options.run_dir = fresh_run_dir(options.run_dir)
rule = "adam, learning rate 0.002 after a warmup, then half a cosine wave"
command = shlex.join(["python", *sys.argv])
note_run(options.run_dir, command=command, data="digits", optimizer=rule, check=report)
end, history = hg.fit(start, step, x, y, validation=validation, trace_every=40, **vars(options))
print(f"trained {int(end.step):,} steps in {sum(history['seconds']):.1f} s\n")
print_results(net, end, hg.data.normalise(digits.test_x), digits.test_y, digits.classes, options.run_dir)
