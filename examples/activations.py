"""What each channel of a net makes of one image: a kernel answers where it finds what it has learnt to look for.

One sees the channels of a layer as small pictures; printed, for each layer, how many stay silent for this image.
"""

import argparse

import jax
import numpy as np

import handgrad as hg

parser = argparse.ArgumentParser(description="Draw the activations of a digit.")
parser.add_argument("--out", default="runs/activations.png", help="the picture (%(default)s)")
parser.add_argument("--layer", default="relu1", help="whose channels (%(default)s)")
options, digits, net = parser.parse_args(), hg.data.load_digits(), hg.models.digits_cnn(dropout=0)
x, y = hg.data.normalise(digits.train_x), digits.train_y
step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), hg.momentum(0.02))
start = hg.init_train_state(net, step.optimizer, jax.random.key(0), x.shape[1:])
params = hg.fit(start, step, x, y, batch_size=32, epochs=6, progress=False)[0].params

outputs = hg.activations(net, params, x[y == 8][:1])
for name, output in outputs.items():
    channels = np.asarray(output).reshape(-1, output.shape[-1])
    print(f"{name:9} {'x'.join(map(str, output.shape[1:])):8} {(channels == 0).all(0).sum():3} channels are silent")
print("drawn to", hg.viz.save(hg.viz.activations(outputs, options.layer), options.out))
