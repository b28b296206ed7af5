"""Train a small net or a residual net on Fashion-MNIST by hand-derived gradients.

    python examples/train_fashion_mnist.py --data-dir FOLDER --net small
    python examples/train_fashion_mnist.py --data-dir FOLDER --net residual

All 60,000 training images, stochastic gradient descent with Nesterov momentum over one cycle of the learning rate, and
augmentation on the device: flips, for the residual net shifts and cutout too. The test images are looked at after each
epoch and choose no epoch: the last line is the accuracy after the last one. The line before adds the net's answer to
the mirror image.
"""

import argparse

import jax

import handgrad as hg
from handgrad.cli import fresh_run_dir, print_results
from handgrad.data import augment

MEAN, STD = 0.286, 0.353  # of the training images' pixels, in [0, 1]
BLACK = -MEAN / STD
FLIP = augment.flip()
HARDER = augment.compose(FLIP, augment.shift(2, value=BLACK), augment.cutout(8, value=BLACK))
NETS = {  # net, epochs, and augmentation: a small net has no room to learn more than it is shown
    "small": (hg.models.fashion_cnn(), 12, FLIP),
    "residual": (hg.models.resnet9(widths=(24, 48, 96, 192)), 25, HARDER),
}

parser = argparse.ArgumentParser(description="Train a net on Fashion-MNIST by hand-derived gradients.")
parser.add_argument("--data-dir", required=True, help="the folder that holds the four files of Fashion-MNIST")
parser.add_argument("--net", choices=NETS, default="small", help="below 100,000 parameters, or with blocks (small)")
parser.add_argument("--run-dir", help="where to write (runs/fashion_NET; if a run is there, beside it)")
parser.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
parser.add_argument("--epochs", type=int, help="times through the data (small 12, residual 25)")
parser.add_argument("--batch-size", type=int, default=128, help="images a step (%(default)s)")
parser.add_argument("--learning-rate", type=float, default=0.1, help="the largest one of the cycle (%(default)s)")
parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (%(default)s)")
parser.add_argument("--images", type=int, help="the first so many training images, for a trial")
options = parser.parse_args()

hg.keep_memory()
fashion = hg.data.load_fashion_mnist(options.data_dir)
x, y = hg.data.normalise(fashion.train_x, MEAN, STD)[: options.images], fashion.train_y[: options.images]
test_x, test_y = hg.data.normalise(fashion.test_x, MEAN, STD), fashion.test_y

net, epochs, change = NETS[options.net]
epochs = options.epochs or epochs
objective = hg.Objective(net, hg.SoftmaxCrossEntropy(label_smoothing=0.1), l2=2.5e-4)
rate = hg.schedules.one_cycle(options.learning_rate, epochs * (len(x) // options.batch_size))
optimizer = hg.momentum(rate, nesterov=True)
train_state = hg.init_train_state(net, optimizer, jax.random.key(options.seed), x.shape[1:])
print(f"{options.net} net, {hg.summary(net, x.shape[1:]).parameters:,} parameters", flush=True)

run_dir = options.run_dir or f"runs/fashion_{options.net}"
run_dir = run_dir if options.resume else fresh_run_dir(run_dir)
train_state, history = hg.fit(
    train_state,
    hg.make_train_step(objective, optimizer),
    x,
    y,
    batch_size=options.batch_size,
    epochs=epochs,
    seed=options.seed,
    validation=(test_x, test_y),
    augment=change,
    run_dir=run_dir,
    resume=options.resume,
)
print(f"trained {int(train_state.step):,} steps in {sum(history['seconds']) / 60:.0f} minutes\n")
print_results(net, train_state, test_x, test_y, fashion.classes, run_dir)


def log_probabilities(images):
    """Log p of each class, (n, 10)."""
    return jax.nn.log_softmax(hg.predict(net, train_state.params, train_state.state, images))


plain, mirrored = log_probabilities(test_x), log_probabilities(test_x[:, :, ::-1])
print(f"with the mirror image's answer added {100 * float(hg.accuracy(plain + mirrored, test_y)):.2f} %")
print(f"test accuracy {100 * float(hg.accuracy(plain, test_y)):.2f} %")
