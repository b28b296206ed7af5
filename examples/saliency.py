"""Six ways to ask a net why it takes an eight for an eight, and how much each of them heeds what the net has learnt.

One sees the maps of a net and those of random weights; printed, how alike they are over 100 eights (1 is equal).
"""

import argparse

import jax
import numpy as np
from matplotlib.figure import Figure

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw saliency maps of a digit.")
parser.add_argument("--out", default="runs/saliency.png", help="the picture (%(default)s)")
options, digits, net = parser.parse_args(), hg.data.load_digits(), hg.models.digits_cnn(dropout=0)
x, y = hg.data.normalise(digits.train_x), digits.train_y
step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.momentum(0.02))
start, random = (hg.init_train_state(net, step.optimizer, jax.random.key(seed), x.shape[1:]) for seed in (0, 1))
params = hg.fit(start, step, x, y, batch_size=32, epochs=6, progress=False)[0].params
methods = {
    "gradient": lambda p, x: hg.saliency(net, p, x, 8),
    "guided backprop": lambda p, x: hg.saliency(hg.rules.guided_backprop(net), p, x, 8),
    "deconvnet": lambda p, x: hg.saliency(hg.rules.deconvnet(net), p, x, 8),
    "SmoothGrad": lambda p, x: hg.smooth_grad(net, p, x, 8, key=jax.random.key(1)),
    "integrated": lambda p, x: hg.integrated_gradients(net, p, x, 8),
    "Grad-CAM, relu1": lambda p, x: hg.grad_cam(net, p, x, 8, layer="relu1"),
    "Grad-CAM, relu2": lambda p, x: hg.grad_cam(net, p, x, 8, layer="relu2"),
}
eights, above, below = x[y == 8][:100], {}, {}
for name, method in methods.items():
    both = [np.asarray(method(p, eights)) for p in (params, random.params)]
    above[name], below[name] = (maps[0] for maps in both)
    pairs = [np.abs([a.ravel(), b.ravel()]) for a, b in zip(*both, strict=True)]
    likeness = np.mean([np.corrcoef(pair)[0, 1] for pair in pairs if np.ptp(pair, axis=1).all()])
    print(f"{name:15}  {likeness:5.2f}")
top, bottom = Figure(figsize=(11, 3.9), dpi=90, layout="constrained").subplots(2, 1)
hg.viz.saliency(eights[0], above, top, title="Why an eight, by a net that has learnt")
hg.viz.saliency(eights[0], below, bottom, title="By random weights: guided backprop's map is much the same")
print("drawn to", hg.viz.save(bottom, options.out))
