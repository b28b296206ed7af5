"""The lecture's demo: nets with 2, 3 and 8 hidden units learn a circle, and a page plays each step of it.

The page is one file: open it in a browser, choose, predict, press play. The lines below are what it shows in the end.
"""

import argparse

import jax.numpy as jnp

import handgrad as hg
from handgrad.viz.demo_runs import demo_net, demo_runs

parser = argparse.ArgumentParser(description="Write a page on which small nets learn a circle.")
parser.add_argument("--out", default="runs/demo_2d.html", help="the file to write (%(default)s)")
options = parser.parse_args()

x, y = hg.data.two_d_problem("circle")
print("hidden units   rate   loss after 0, 15 and 3,000 steps   right in the end")
for hidden in (2, 3, 8):
    for run in demo_runs("circle", hidden, [0.1, 1.0], [0.9]):
        right = ((demo_net(hidden).apply(run.tree(-1), jnp.asarray(x))[:, 0] > 0) == y).mean()
        losses = "".join(f"{run.loss[frame]:10.4f}" for frame in (0, 10, -1))
        print(f"{hidden:12}   {run.learning_rate:4}   {losses}   {100 * right:18.1f} %")
path = hg.demo_2d(options.out, "circle")
print(f"written to {path}, {path.stat().st_size / 1e3:.0f} KB; open it in a browser")
