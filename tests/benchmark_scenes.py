"""A plan of benchmarks so small that it runs in a test."""

from benchmarks.cases import Model, ProductCase, SweepCase
from benchmarks.jobs import Plan
from benchmarks.pairing import Effort

TINY = Plan(
    Effort(screening=1, rounds=1, block=0.001),
    products=(
        ProductCase(Model((1, 3, 1)), 2, 4),
        ProductCase(Model((6, 4, 3), 3), 2, 5),
        ProductCase(Model((6, 3), 3, bias=False), 2, 5),
    ),
    sweep=SweepCase(tasks=2, lams=(40.0, 80.0), last=4, cg_steps=3, model=Model((1, 3, 1)), shots=4),
    memory_steps=(1, 4, 16, 64, 256),
)
