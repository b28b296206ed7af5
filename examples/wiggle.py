"""How well a wiggle tells the sign of a slope, in float32 and by its size; and what wiggling costs as nets grow.

One sees stacked bars of right, wrong and no change for wiggles of 1e-7 to 1e-2, and the cost beside backprop's.
"""

import argparse

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

import handgrad as hg


def main():
    """Compare signs, measure the cost, draw both."""
    parser = argparse.ArgumentParser(description="Draw how well wiggles work, and what they cost.")
    parser.add_argument("--out", default="runs/wiggle.png", help="the picture (%(default)s)")
    digits = hg.data.load_digits()
    x, y = hg.data.normalise(digits.train_x)[:100], digits.train_y[:100]
    net = hg.Chain(hg.Flatten(), hg.Dense(32), hg.Relu(), hg.Dense(10))
    params, _ = net.init(jax.random.key(0), x.shape[1:])
    objective, shares = hg.Objective(net, hg.SoftmaxCrossEntropy()), {}
    slopes = jnp.sign(ravel_pytree(hg.grad(objective)(params, x, y)[0])[0])
    alive = slopes != 0
    for eps in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        signs = ravel_pytree(hg.jit(hg.wiggle_signs(objective, eps))(params, x, y))[0][alive]
        right, still = float((signs == slopes[alive]).mean()), float((signs == 0).mean())
        shares[f"{eps:.0e}".replace("e-0", "e-")] = (right, 1 - right - still, still)
    for name, (right, wrong, still) in shares.items():
        print(f"eps {name}: {100 * right:.0f} % right, {100 * wrong:.0f} % wrong, {100 * still:.0f} % no change")
    left, right = Figure(figsize=(12, 3.4), dpi=110, layout="constrained").subplots(1, 2)
    hg.viz.wiggle_signs(shares, left)
    hg.viz.wiggle_cost(hg.wiggle_cost(), right)
    print("drawn to", hg.viz.save(left.figure, parser.parse_args().out))


if __name__ == "__main__":
    main()
