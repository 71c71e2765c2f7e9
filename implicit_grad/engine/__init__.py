"""Sweeps that survive: pure cells with content-addressed results, on one core, several, or a cluster."""

from implicit_grad.engine.cell import Cell as Cell
from implicit_grad.engine.cluster import Cluster as Cluster
from implicit_grad.engine.runners import Local as Local
from implicit_grad.engine.runners import Runner as Runner
from implicit_grad.engine.runners import Serial as Serial
from implicit_grad.engine.store import Store as Store
from implicit_grad.engine.sweeping import Results as Results
from implicit_grad.engine.sweeping import Tally as Tally
from implicit_grad.engine.sweeping import sweep as sweep
