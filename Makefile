# The two commands: `make figures` and `make test`. Only python >= 3.11 and make are assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Two cores: two test processes with one BLAS thread each, never 2 x 2.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
# Compared with by `make bench`; `make bench BENCH="--quick --jobs a b"` for a look.
PEERS  := jax jaxopt optimistix lineax torch torchopt
BENCH  ?=
# Verified by `make peers`; `make peers VERIFY="--libraries torchopt --families ridge"` for some rows of the table.
VERIFIED := $(PEERS) higher
VERIFY   ?=

.PHONY: setup figures report ledger test test-gpu diagnosis mutants bench peers profile certificates faults check lint types clean
.DEFAULT_GOAL := figures

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "implicit_grad needs Python 3.11 or newer, not " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

figures: setup
	$(BIN)/implicit-grad reproduce

# Every figure again, in full, then the page and the ledger. A claim that does not hold (exit code 1) stops nothing here.
report: setup
	$(BIN)/implicit-grad reproduce all --report --ledger docs/ledger.md || test $$? -eq 1

# The ledger from the stored results, computing nothing; a test holds the committed one to it.
ledger: setup
	$(BIN)/python -m analysis.report --ledger docs/ledger.md

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# Needs an NVIDIA GPU with a driver for CUDA 13: without one it fails, it does not skip.
test-gpu: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[gpu]'
	IMPLICIT_GRAD_REQUIRE_GPU=1 $(BIN)/python -m pytest tests/gpu tests/test_device_cupy.py
	$(BIN)/python -m benchmarks.gpu

# Peers are optional: one that cannot be installed is named here and in the table, and the others go on. The constraint
# keeps a package that needs PyTorch from bringing another version of it.
bench: setup
	@for peer in $(PEERS); do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint benchmarks/constraints.txt $$peer \
	    || echo "bench: $$peer could not be installed and is left out"; \
	done
	$(BIN)/python -m benchmarks $(BENCH)

# Where the time goes, and other ways to write the loop; writes benchmarks/PROFILE.md.
profile: setup
	$(BIN)/python -m benchmarks.profile

# Their meta-gradients under `verify`; writes docs/peers.md. One that cannot be installed or imported is named there.
peers: setup
	@for peer in $(VERIFIED); do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint benchmarks/constraints.txt $$peer \
	    || echo "peers: $$peer could not be installed and is left out"; \
	done
	$(BIN)/python -m benchmarks.peers $(VERIFY)
	IMPLICIT_GRAD_PEERS=1 $(BIN)/python -m pytest tests/test_peers.py \
	  tests/test_verify_foreign.py tests/test_verify_torch.py tests/test_verify_jax.py

# Every error bar against its reference; exits with 1 if one is crossed. Writes docs/certificates.md.
certificates: setup
	$(BIN)/python -m benchmarks.certificates

# Every wrong formula that verify knows, and 2,000 right gradients: fails at a false alarm. Writes docs/diagnosis.md.
diagnosis: setup
	$(BIN)/python -m benchmarks.diagnosis

# Every law against every mutant: fails if one survives, a sound control is accused, or a law kills nothing.
mutants: setup
	$(BIN)/python -m implicit_grad.testing.mutants docs/mutants.md

# The sweep engine under kill -9, full disks, rivals and damaged files; exits with 1 if a cell is lost.
faults: setup
	$(BIN)/python -m benchmarks.faults

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
