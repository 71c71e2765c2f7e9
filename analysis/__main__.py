"""Draw every figure: `python -m analysis`."""

from implicit_grad.cli import main

main(["reproduce", "all"])
