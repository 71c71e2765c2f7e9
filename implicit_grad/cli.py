"""Command line: `implicit-grad reproduce [FIGURE … | all]`, `implicit-grad verify module:gradient …`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from implicit_grad.errors import ArgumentError, ImplicitGradError, MissingDependency

try:
    import tyro
except ImportError:
    sys.exit("implicit-grad: the command line needs tyro: pip install 'implicit-grad[sweep]'")


@dataclass(frozen=True)
class Reproduce:
    """Draw figures: run their sweeps and write PDF, PNG and results."""

    figures: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of figures, or all; default: those of the README."""
    quick: bool = False
    """Few tasks and short runs: a look, not a result."""
    seed: int | None = None
    """Seed of tasks and parameters; default: that of the committed figures."""
    out: Path = Path("figures")
    """Folder for the figures; sweeps go to its subfolder results."""
    replot: bool = False
    """Draw from the stored sweeps, computing nothing."""
    paper: Literal["page", "neurips", "icml", "icml-wide", "jmlr"] = "page"
    """Whose text width and type size the figures shall have."""
    backend: str | None = None
    """Where to compute: numpy or cupy; default: IMPLICIT_GRAD_BACKEND, else numpy."""
    jobs: int = 1
    """Processes on this machine, or -1 for one on each core. What measures time or memory runs alone all the same."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, as tcp://host:8786: compute on its workers, which need the same code."""
    fresh: bool = False
    """Compute everything anew. Otherwise a run goes on from the results that an earlier one left."""
    report: bool = False
    """Also write report.html into the folder: figures, claims, verdicts. Exits with 1 if a claim does not hold."""
    ledger: Path | None = None
    """Also write every number and its verdict to this path, as Markdown; exits as --report does."""

    def run(self) -> None:
        """Run the command; exit with 1 if a claim that is reported does not hold."""
        from analysis import figure as analysis
        from analysis.cells import cells_of, compute
        from implicit_grad.backend import get_backend
        from implicit_grad.storage import check_writable

        # Before any file is touched: a device that is not there is an error, not a reason to use another.
        place = None if self.replot else get_backend(self.backend)
        stems = analysis.STEMS if "all" in self.figures else self.figures or analysis.DEFAULT
        chosen = [analysis.figure(stem) for stem in stems]
        check_writable(self.out)
        if self.ledger is not None:
            check_writable(self.ledger.parent)
            if self.ledger.is_dir():
                raise ArgumentError(f"ledger: expected the path of a file, {self.ledger} is a folder")
        seed = analysis.SEED if self.seed is None else self.seed
        if seed < 0:
            raise ArgumentError(f"seed: expected a whole number >= 0, got {seed}")
        runner = self._runner()
        # In a log a line a figure is enough.
        live = sys.stderr.isatty()
        with _progress(len(chosen)) as bar:
            if runner is not None and place is not None:  # the panels of all figures at once
                cells = [
                    cell
                    for each in chosen
                    for cell in cells_of(each, quick=self.quick, seed=seed, backend=place.name).values()
                ]
                folder = check_writable(self.out / "results")
                compute(
                    cells,
                    folder,
                    runner=runner,
                    fresh=self.fresh,
                    progress=partial(bar.set_description, refresh=live),
                )
            for each in chosen:
                files = each.reproduce(
                    self.out,
                    quick=self.quick,
                    seed=seed,
                    replot=self.replot,
                    backend=place,
                    paper=self.paper,
                    fresh=self.fresh and runner is None,
                    progress=lambda stage, stem=each.stem: bar.set_description(f"{stem}: {stage}", refresh=live),
                )
                bar.update()
                bar.write("wrote " + " ".join(map(str, files)))
        if self.report or self.ledger is not None:
            self._report([each.stem for each in chosen])

    def _runner(self) -> Any:
        """Who computes; None for this process."""
        from implicit_grad.engine import Cluster, Local

        if self.scheduler is None:
            return None if self.jobs == 1 else Local(self.jobs)
        if self.jobs != 1:
            raise ArgumentError(f"jobs: the cluster at {self.scheduler} has workers of its own; leave --jobs out")
        return Cluster(self.scheduler)

    def _report(self, stems: list[str]) -> None:
        from analysis import report

        results = [report.read(self.out, stem) for stem in stems]
        page = self.out / "report.html" if self.report else None
        print("wrote " + " ".join(map(str, report.write(results, report=page, register=self.ledger))))
        failed = report.failures(results)
        if failed:
            print(f"implicit-grad: {failed} of {sum(len(each.claims) for each in results)} claims do not hold")
            sys.exit(1)


@dataclass(frozen=True)
class Fetch:
    """Download a data set, verify it, and pack it where its tasks look for it."""

    dataset: tyro.conf.Positional[Literal["omniglot"]]
    """Name of the data set."""
    folder: Path | None = None
    """Where to put it; default: IMPLICIT_GRAD_CACHE, else the system's cache folder."""

    def run(self) -> None:
        """Run the command."""
        from implicit_grad.data import fetch_omniglot

        print(f"ready: {fetch_omniglot(self.folder)}")


@dataclass(frozen=True)
class Verify:
    """Is this meta-gradient right? Exit code 0: pass; 1: fail; 2: cannot tell (or bad usage, said on stderr)."""

    problem: str
    """The problem, as module:name: a BilevelProblem, or a function without arguments that makes one."""
    candidate: tyro.conf.Positional[str] = ""
    """The gradient, as module:name: theta -> gradient, or (problem, theta) -> gradient."""
    command: str = ""
    """A program that computes the gradient instead: it reads one .npz file and writes another (any language)."""
    theta: str = ""
    """Where to compare, as module:name: an array (d,) or (k, d); default: three random draws."""
    rtol: float | None = None
    """Relative error that is good enough; default: what rounding explains."""
    html: Path | None = None
    """Also write the report to this file."""
    seed: int = 77
    """Of random θ."""

    def run(self) -> None:
        """Run the command."""
        from implicit_grad.storage import atomic_target, check_writable
        from implicit_grad.verify import verify
        from implicit_grad.verify._named import named, named_problem

        if bool(self.candidate) == bool(self.command):
            raise ArgumentError("candidate: expected either module:name or --command, and not both")
        if self.html is not None:
            check_writable(self.html.parent)
        problem = named_problem(self.problem)
        candidate = self._program() if self.command else named("candidate", self.candidate)
        theta = named("theta", self.theta) if self.theta else None
        report = verify(candidate, problem, theta, rtol=self.rtol, seed=self.seed)
        print(report)
        if self.html is not None:
            with atomic_target(self.html) as temporary:
                temporary.write_text(report.to_html(), encoding="utf-8")
        sys.exit(report.verdict.exit_code)

    def _program(self) -> Any:
        import shlex

        from implicit_grad.verify import command_candidate

        return command_candidate(shlex.split(self.command))


def _progress(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="figure", dynamic_ncols=True)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `implicit-grad`: exits with 1 if a reported claim fails, 2 on bad arguments, 130 on Ctrl-C."""
    command = tyro.extras.subcommand_cli_from_dict(
        {"reproduce": Reproduce, "verify": Verify, "fetch": Fetch},
        prog="implicit-grad",
        description="Is this implicit (meta-)gradient right, how wrong is it, and why?",
        args=arguments,
    )
    try:
        command.run()
    except MissingDependency as error:
        print(f"implicit-grad: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(command, Verify) else 1)  # 1 is a verdict there
    except ImplicitGradError as error:
        print(f"implicit-grad: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("implicit-grad: interrupted; finished panels are kept: run the same command again", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
