"""How well `verify` judges wrong gradients and right ones: `python -m benchmarks.diagnosis`, or `make diagnosis`."""
