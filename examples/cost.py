"""Backward costs about twice forward: counted in multiply-adds, and measured layer by layer on this machine.

One sees the table of a LeNet-like net, and the bars of its times.
"""

import argparse

import handgrad as hg


def main():
    """Measure for some seconds, print, draw."""
    parser = argparse.ArgumentParser(description="Draw the time of the layers of a net, forward and backward.")
    parser.add_argument("--out", default="runs/cost.png", help="the picture (%(default)s)")
    out = parser.parse_args().out
    spent = hg.cost(hg.models.lenet(), (28, 28, 1), batch=64)
    print(spent)
    print("drawn to", hg.viz.save(hg.viz.cost(spent), out))


if __name__ == "__main__":
    main()
