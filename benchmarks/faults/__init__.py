"""Faults put into sweeps, and what becomes of their cells: `python -m benchmarks.faults`, or `make faults`."""
