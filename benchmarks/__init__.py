"""The benchmark suite: handgrad beside Flax, Equinox, Haiku, plain JAX and PyTorch. `python -m benchmarks --help`."""
