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
y = np.repeat([images.train_y[images.train_y == label][0] for label in (2, 5, 7)], 3)
x = np.stack([hg.data.normalise(images.train_x[images.train_y == label][0]) for label in y])
side = x.shape[1]
if folder:
    x[:, [0, -1]] = x[:, :, [0, -1]] = 0.3  # a frame, to see the border by

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
drawn = [change(jax.random.key(i), x, y)[0] for i, change in enumerate(rows.values())]
tiles = np.pad(np.stack(drawn)[..., 0], ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1)  # (rows, images, H, W)
sheet = np.block([list(row) for row in tiles])
figure = Figure(
    figsize=(sheet.shape[1] / side * 0.56, sheet.shape[0] / side * 0.56)
)  # 2 dots a pixel of 28, at 100 dpi
ax = figure.add_axes((0, 0, 1, 1), frame_on=False, xticks=[])
ax.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
ax.set_yticks((np.arange(len(rows)) + 0.5) * (side + 2) - 0.5, list(rows))
print("drawn to", hg.viz.save(figure, options.out))
