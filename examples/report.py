"""One page of a run: train a small net on the digits, note what a reader wants to know, and let `hg.report` write it.

`handgrad train` and `make train` note all of this by themselves; then `handgrad report runs/digits` is enough.
"""

import argparse

import jax

import handgrad as hg
from handgrad.cli import fresh_run_dir
from handgrad.training import note_run, note_test

parser = argparse.ArgumentParser(description="Train a small net on the digits and write a page of its run.")
parser.add_argument("--out", default="runs/report.html", help="the file to write (%(default)s)")
parser.add_argument("--run-dir", default="runs/report", help="the run's folder (%(default)s)")
options = parser.parse_args()
run_dir = fresh_run_dir(options.run_dir)

digits = hg.data.load_digits()
x, test_x = hg.data.normalise(digits.train_x), hg.data.normalise(digits.test_x)
net = hg.Chain(hg.Conv(8, 3), hg.Relu(), hg.MaxPool(2), hg.Flatten(), hg.Dense(10))
objective, optimizer = hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.adam(5e-3)
start = hg.init_train_state(net, optimizer, jax.random.key(0), (8, 8, 1))
step = hg.make_train_step(objective, optimizer)

settings = {"batch_size": 32, "epochs": 6, "trace_every": 20, "progress": False}
end, history = hg.fit(start, step, x, digits.train_y, run_dir=run_dir, **settings)  # metrics, settings, weights
logits = hg.predict(net, end.params, end.state, test_x)
note_test(run_dir, test_x, digits.test_y, logits)  # wrong images, confusion matrix
note_run(run_dir, data="digits", optimizer="adam, learning rate 0.005", layers=hg.summary(net, (8, 8, 1)))
hg.viz.save(hg.viz.net(net, (8, 8, 1)), f"{run_dir}/figures/net.svg")

path = hg.report(run_dir, options.out)
print(f"training loss {history['train_loss'][-1]:.3f} after {len(history['epoch'])} epochs")
print(f"written to {path}; open it in a browser")
