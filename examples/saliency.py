"""Six ways to ask a net why it takes an eight for an eight, and one that hardly asks it.

One sees an image and its maps: gradient, guided backprop, deconvnet, SmoothGrad, integrated gradients, Grad-CAM; and,
printed, how alike guided backprop's maps are for the trained net and for one with random weights (1 is equal).
"""

import argparse

import jax
import numpy as np

import handgrad as hg
from handgrad import rules


def main():
    """Train for a few seconds, draw the maps, and check guided backprop's sanity."""
    parser = argparse.ArgumentParser(description="Draw saliency maps of a digit.")
    parser.add_argument("--out", default="runs/saliency.png", help="the picture (%(default)s)")
    out = parser.parse_args().out
    digits, net = hg.data.load_digits(), hg.models.digits_cnn(dropout=0)
    x = hg.data.normalise(digits.train_x)
    step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.momentum(0.02))
    start = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
    params = hg.fit(start, step, x, digits.train_y, batch_size=32, epochs=6, progress=False)[0].params
    eight = x[digits.train_y == 8][:1]
    maps = {
        "gradient": hg.saliency(net, params, eight, 8)[0],
        "guided backprop": hg.saliency(rules.guided_backprop(net), params, eight, 8)[0],
        "deconvnet": hg.saliency(rules.deconvnet(net), params, eight, 8)[0],
        "SmoothGrad": hg.smooth_grad(net, params, eight, 8, key=jax.random.key(1))[0],
        "integrated": hg.integrated_gradients(net, params, eight, 8)[0],
        "Grad-CAM": hg.grad_cam(net, params, eight, 8)[0],
    }
    for name, swap in (("gradient", lambda net: net), ("guided backprop", rules.guided_backprop)):
        pair = [np.abs(hg.saliency(swap(net), p, x[:100], 8)).ravel() for p in (params, start.params)]
        print(f"{name}: correlation of its maps with those of random weights {np.corrcoef(pair)[0, 1]:.2f}")
    ax = hg.viz.saliency(eight[0], maps, title="Why an eight: six maps of one net")
    print("drawn to", hg.viz.save(ax, out))


if __name__ == "__main__":
    main()
