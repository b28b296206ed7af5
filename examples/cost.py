"""Backward costs about twice forward: counted, and measured layer by layer on this machine.

One sees the table of a LeNet-like net and the bars; the last line has the count, in which the first layer needs no dx.
"""

import argparse

import handgrad as hg


def main():
    """Measure for some seconds, print, draw."""
    parser = argparse.ArgumentParser(description="Draw the time of the layers of a net, forward and backward.")
    parser.add_argument("--out", default="runs/cost.png", help="the picture (%(default)s)")
    measured = hg.cost(hg.models.lenet(), (28, 28, 1), batch=64)
    print(measured)
    print("drawn to", hg.viz.save(hg.viz.cost(measured), parser.parse_args().out))


if __name__ == "__main__":
    main()
