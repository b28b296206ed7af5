"""AlexNet as a diagram: its layers, their shapes, and where its sixty million parameters are.

One sees each layer with its output's shape, blue arrows forward and orange ones backward; nothing is computed.
"""

import argparse

import handgrad as hg


def main():
    """Draw a model by its name."""
    parser = argparse.ArgumentParser(description="Draw a model's layers.")
    parser.add_argument("--model", default="alexnet", choices=hg.models.NAMES, help="which (%(default)s)")
    parser.add_argument("--out", default="runs/net.png", help="the picture (%(default)s)")
    options = parser.parse_args()
    ax = hg.viz.net(hg.models.by_name(options.model), hg.models.IN_SHAPES[options.model])
    print(ax.get_title())
    print("drawn to", hg.viz.save(ax, options.out))


if __name__ == "__main__":
    main()
