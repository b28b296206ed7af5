"""Where gradient descent, three momenta and Adam go on four surfaces.

One sees their paths on a ravine, towards a saddle, among several minima and on a plateau, each from one start.
"""

import argparse

from matplotlib.figure import Figure

import handgrad as hg


def main():
    """Descend, print where each ends, draw."""
    parser = argparse.ArgumentParser(description="Draw descent on surfaces over a plane.")
    parser.add_argument("--out", default="runs/descend_2d.png", help="the picture (%(default)s)")
    starts = {"ravine": (-2.0, 0.4), "saddle": (1.7, 0.02), "minima": (-0.5, -0.6), "plateau": (2.6, 2.0)}
    rates = {"ravine": 0.009, "saddle": 0.1, "minima": 0.009, "plateau": 0.5}
    axes = Figure(figsize=(10, 8), dpi=80, layout="constrained").subplots(2, 2).ravel()
    for ax, (surface, start) in zip(axes, starts.items(), strict=True):
        r = rates[surface]
        rules = {
            "gradient descent": hg.sgd(r),
            "momentum 0.8": hg.momentum(r, 0.8),
            "Nesterov 0.8": hg.momentum(r, 0.8, nesterov=True),
            "lecture's 0.8": hg.previous_gradient_momentum(r, 0.8),
            "Adam 0.1": hg.adam(0.1),
        }
        paths = {name: hg.descend_2d(surface, rule, start, 40) for name, rule in rules.items()}
        hg.viz.descend_2d(paths, surface, ax)
        print(f"{surface:8}", "  ".join(f"{name} {float(path.values[-1]):.3g}" for name, path in paths.items()))
    print("drawn to", hg.viz.save(axes[0].figure, parser.parse_args().out))


if __name__ == "__main__":
    main()
