"""Draw what each augmentation does: three pictures with three draws each, on digits or on Fashion-MNIST."""

import argparse

import jax
import numpy as np
from matplotlib.figure import Figure

import handgrad as hg
from handgrad.data import augment

parser = argparse.ArgumentParser(description="Draw what each augmentation does.")
parser.add_argument("--fashion-mnist", metavar="FOLDER", help="its IDX files; without them, digits are drawn")
parser.add_argument("--out", default="runs/augment.png", help="the picture (%(default)s)")
options = parser.parse_args()

folder = options.fashion_mnist
images = hg.data.load_fashion_mnist(folder) if folder else hg.data.load_digits()
y = np.repeat([images.train_y[images.train_y == label][0] for label in (1, 7, 8)], 3)
x = np.stack([hg.data.normalise(images.train_x[images.train_y == label][0]) for label in y])
x[:, [0, -1]] = x[:, :, [0, -1]] = 0.3  # a frame, to see the border by

side = x.shape[1]
rows = {
    "as it is": lambda key, x, y: (x, y),
    "flip": augment.flip(),
    "crop": augment.crop(side // 7),
    "crop, reflect": augment.crop(side // 7, mode="reflect"),
    "shift": augment.shift(side // 7, mode="edge"),
    "rotate": augment.rotate(30),
    "scale": augment.scale((0.6, 1.4)),
    "brightness": augment.brightness(0.3, clip=(0, 1)),
    "contrast": augment.contrast((0.3, 1.7), clip=(0, 1)),
    "cutout": augment.cutout(side // 3, value=0.5),
    "erase": augment.erase(rate=1.0, value=0.5),
    "mixup": augment.mixup(10, alpha=1.0),
    "composed": augment.compose(augment.flip(), augment.crop(side // 7), augment.cutout(side // 3, value=0.5)),
}
figure = Figure(figsize=(6, 8.4), dpi=110, layout="constrained")
axes = figure.subplots(len(rows), len(x), subplot_kw={"xticks": [], "yticks": []})
for i, (name, change) in enumerate(rows.items()):
    axes[i, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for ax, image in zip(axes[i], np.asarray(change(jax.random.key(i), x, y)[0]), strict=True):
        ax.imshow(image[:, :, 0], cmap="gray", vmin=0, vmax=1)
print("drawn to", hg.viz.save(figure, options.out))
