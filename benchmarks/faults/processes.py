"""Sweeps whose processes are killed, interrupted, or in each other's way."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

import numpy as np

from benchmarks.faults.bench import Bench, Count, LostError


def kills(bench: Bench, rng: np.random.Generator, times: int, *, jobs: int, whole_group: bool = True) -> Count:
    """Kill -9 at random moments, over one folder, until it is complete; then over a new one."""
    killed = finished = done = runs = 0
    bench.clear()
    while killed < times:
        process = bench.start(jobs=jobs)
        assert process.stdout is not None
        said = [process.stdout.readline().strip()]
        if said != ["ready"]:
            raise LostError(f"the sweep after {killed} kills failed: {process.communicate()[1]}")
        if killed % 4 != 3:  # else it may die before its first cell
            said.append(process.stdout.readline().strip())
        # Moments over half of a sweep: several kills meet one folder before it is complete.
        time.sleep(float(rng.uniform(0, 0.5 * bench.duration / jobs)))
        with suppress(ProcessLookupError):
            (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        said += process.communicate(timeout=60)[0].split()
        killed += process.returncode == -signal.SIGKILL
        done += bench.check_promises(said)
        if process.returncode == 0:
            bench.compare()
            finished += 1
            runs += bench.runs()
            bench.clear()
    bench.finish(jobs=jobs)
    finished += 1
    runs += bench.runs()
    excess = runs - finished * bench.cells
    if excess > killed * jobs:
        raise LostError(f"{killed} kills cost {excess} runs of cells: more than those that were running")
    name = f"kill -9, {jobs} {'process' if jobs == 1 else 'workers'}{'' if whole_group else ', parent only'}"
    return Count(name, killed, finished * bench.cells, f"{done} reported done, 0 lost; {excess} run twice")


def worker_kills(bench: Bench, rng: np.random.Generator, times: int) -> Count:
    """Kill -9 of one worker of two: the sweep itself goes on to its end."""
    sweeps = killed = 0
    while killed < times:
        bench.clear()
        process = bench.start(jobs=2)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()  # the first cell is done: the workers are there
        time.sleep(float(rng.uniform(0, 0.3 * bench.duration)))
        children = _workers(process.pid)
        if children:
            with suppress(ProcessLookupError):
                os.kill(int(rng.choice(children)), signal.SIGKILL)
                killed += 1
        said, errors = process.communicate(timeout=120)
        if process.returncode:
            raise LostError(f"a sweep did not outlive its worker: {errors}")
        bench.check_promises(said.split())
        bench.compare()
        sweeps += 1
    return Count("kill -9 of one worker of two", killed, sweeps * bench.cells, "every sweep ended well, 0 lost")


def _workers(pid: int) -> list[int]:
    """Loky's workers among the children of a process; its resource tracker is left alone."""
    listed = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "popen_loky" in line]


def interrupts(bench: Bench, rng: np.random.Generator, times: int) -> Count:
    """SIGINT to the process group, as a terminal sends it: exit code 130, finished cells kept."""
    done = interrupted = 0
    while interrupted < times:
        bench.clear()
        process = bench.start(jobs=1 + interrupted % 2)
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(2)]
        time.sleep(float(rng.uniform(0, 0.2 * bench.duration)))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        more, errors = process.communicate(timeout=60)
        said += more.split()
        if len(said) > bench.cells:
            continue  # it was over before the signal came
        if process.returncode != 130:
            raise LostError(f"exit code {process.returncode} after SIGINT: {errors}")
        interrupted += 1
        done += bench.check_promises(said)
    bench.finish()
    return Count("SIGINT to the group", times, bench.cells, f"exit code 130; {done} reported done, 0 lost")


def concurrent(bench: Bench, times: int, writers: int = 3) -> Count:
    """Several sweeps of the same cells on one folder at once: each cell is computed once."""
    runs = 0
    for _ in range(times):
        bench.clear()
        crowd = [bench.start(jobs=1 + i % 2) for i in range(writers)]
        for process in crowd:
            _, errors = process.communicate(timeout=300)
            if process.returncode:
                raise LostError(f"a writer failed: {errors}")
        bench.compare()
        runs += bench.runs()
    if runs != times * bench.cells:
        raise LostError(f"{runs} runs for {times * bench.cells} cells")
    return Count(f"{writers} writers on one folder", times, times * bench.cells, f"{runs} runs: each cell once")
