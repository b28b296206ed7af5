"""Gradient descent, three momenta and Adam on five surfaces: where they go, and who gets through the ravine first."""

import argparse

from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw optimizers on surfaces.")
parser.add_argument("--out", default="runs/descend_2d.png", help="the picture (%(default)s)")
options = parser.parse_args()

STARTS = {"ravine": (-1.8, 1.5), "two_minima": (1.9, 1.5), "himmelblau": (-0.5, -1.0),
          "saddle": (1.0, 1e-3), "plateau": (-5.0, 2.0), "bowl": (-1.8, 1.5)}  # fmt: skip
RATES = {"ravine": 0.0195, "two_minima": 0.1, "himmelblau": 0.01, "saddle": 0.05, "plateau": 1.0, "bowl": 0.2}
STEPS = 60

figure = Figure(figsize=(11, 10), layout="constrained")
for ax, (name, start) in zip(figure.subplots(3, 2).flat, STARTS.items(), strict=True):
    surface, lr = hg.surfaces[name], RATES[name]
    optimizers = {
        "gradient descent": hg.sgd(lr),
        "heavy ball": hg.momentum(lr, 0.8),
        "Nesterov": hg.momentum(0.6 * lr, 0.8, nesterov=True),
        "previous gradient": hg.previous_gradient_momentum(lr, 1 / 3),
        "Adam": hg.adam(0.1),
    }
    paths = {key: hg.descend_2d(surface, optimizer, start, STEPS) for key, optimizer in optimizers.items()}
    hg.viz.descend_2d(paths, surface, ax)
    print(f"{surface.name:24}", *(f"{key} {path.values[-1]:9.2g}" for key, path in paths.items()), sep="  ")
print("drawn to", hg.viz.save(figure, options.out))
