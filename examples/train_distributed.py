"""Train one net in several processes: the batch is spread over all their devices, each step is that of one big batch.

    python examples/train_distributed.py --processes 2      starts two of them on this machine, two CPU devices each
    srun python examples/train_distributed.py               under Slurm, on a TPU slice: one each, which find each other

Started again after a stop, it goes on from the newest checkpoint. Process 0 alone writes.
"""

import argparse
import socket
import subprocess
import sys

import jax

import handgrad as hg
from handgrad.training import distributed

parser = argparse.ArgumentParser(description="Train a net on handwritten digits in several processes.")
parser.add_argument("--processes", type=int, default=1, help="start so many on this machine, on its CPU")
parser.add_argument("--epochs", type=int, default=4, help="times through the data (%(default)s)")
parser.add_argument("--run-dir", default="runs/distributed", help="where to write and go on (%(default)s)")
parser.add_argument("--peer", nargs=3, metavar=("ADDRESS", "PROCESSES", "ID"), help=argparse.SUPPRESS)
options = parser.parse_args()

if options.processes > 1:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, *sys.orig_argv[1:], "--processes=1", "--peer", address, str(options.processes)]
    peers = [subprocess.Popen([*command, str(number)]) for number in range(options.processes)]
    raise SystemExit(max(abs(peer.wait()) for peer in peers))

if options.peer:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    address, processes, number = options.peer
    distributed.initialize(address, int(processes), int(number))
else:
    distributed.initialize()

digits = hg.data.load_digits()
x, test_x = hg.data.normalise(digits.train_x), hg.data.normalise(digits.test_x)
net, optimizer = hg.models.digits_cnn(), hg.momentum(0.02)
mesh = jax.make_mesh((jax.device_count(),), ("data",))
step = distributed.data_parallel(hg.make_train_step(hg.Objective(net, hg.SoftmaxCrossEntropy()), optimizer), mesh)
state = hg.init_train_state(net, optimizer, jax.random.key(0), x.shape[1:])
state, history = hg.fit(
    state, step, x, digits.train_y, batch_size=32, epochs=options.epochs, run_dir=options.run_dir, resume=True
)
test = hg.evaluate(net, state.params, state.state, test_x, digits.test_y)
if distributed.is_main():
    print(f"{jax.process_count()} processes with {jax.device_count()} devices, {int(state.step)} steps")
    print(f"training loss {history['train_loss'][-1]:.3f}, test accuracy {test['accuracy']:.1%}")
