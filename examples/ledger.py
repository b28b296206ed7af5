"""What a LeNet-like net keeps for backward, layer by layer: by its own rules, and under jax.grad.

One sees the table, with the temporary memory that XLA plans for the whole gradient, and the bars. The max pools save
most: by hand a byte a window, under jax.grad all they got.
"""

import argparse

import handgrad as hg


def main():
    """Count, print, draw."""
    parser = argparse.ArgumentParser(description="Draw what the layers of a net keep for backward.")
    parser.add_argument("--out", default="runs/ledger.png", help="the picture (%(default)s)")
    out = parser.parse_args().out
    kept = hg.ledger(hg.models.lenet(), (28, 28, 1), batch=64)
    print(kept)
    print("drawn to", hg.viz.save(hg.viz.ledger(kept), out))


if __name__ == "__main__":
    main()
