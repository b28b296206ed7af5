"""Training from PNG files in class folders, which are read batch by batch in a thread while the step runs."""

import tempfile
from pathlib import Path

import jax
from PIL import Image

import handgrad as hg
from handgrad import data


def write(folder, images, labels):
    """Each image goes to FOLDER/CLASS/NUMBER.png."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = Path(folder, str(label), f"{i:04}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return folder


def decoded(paths, y):
    """The images of a batch; `prefetch` calls this in its thread."""
    return data.normalise(data.read_images(paths, channels=1)), y


digits, net, optimizer = data.load_digits(), hg.models.digits_cnn(), hg.adam(2e-3)
step = hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer)
train_state = hg.init_train_state(net, optimizer, jax.random.key(0), (8, 8, 1))
with tempfile.TemporaryDirectory() as folder:
    files = data.image_files(write(Path(folder, "train"), digits.train_x, digits.train_y))
    test = data.image_folder(write(Path(folder, "test"), digits.test_x, digits.test_y), channels=1)
    print(f"{len(files.paths):,} training images in the folders {' '.join(files.classes)}")
    for epoch in range(8):
        order = data.batches(files.paths, files.y, 64, seed=0, epoch=epoch)
        for x, y in data.prefetch(order, transform=decoded):
            train_state, _ = step(train_state, x, y)
        scores = hg.evaluate(net, train_state.params, train_state.state, data.normalise(test.x), test.y)
        print(f"epoch {epoch + 1}   test accuracy {100 * scores['accuracy']:.1f} %")
