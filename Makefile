# make demo   the bot in a simulated Discord in your browser; no account, no bill
# make test   everything that must pass before a commit
# make matrix worker processes killed at every point, on every route and database, and over and over with 1,000 jobs
# make soak   20,000 jobs in virtual hours on both databases; long, and prints a table
# make bench  every figure of docs/performance.md, about ten minutes
#
# All make .venv and install the locked dependencies when needed, and again when a lock changes.
# `make demo ARGS="--port 8100"` and `make test ARGS="-k config"` pass arguments on.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
UV ?= uv
ARGS ?=

# The tests start hundreds of processes: none is to compile the bot anew, however this shell has it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test bench matrix soak lock clean
help:
	@sed -n 's/^# \{0,1\}//p' Makefile

demo: $(VENV)/.run
	$(BIN)/animatic demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

matrix: $(VENV)/.dev
	ANIMATIC_EVERY_ROW=1 ANIMATIC_KILLED_JOBS=1000 $(BIN)/pytest -s tests/test_kill_matrix.py $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m tests.bench $(ARGS)

# `make lock` keeps what is locked where it can; `make lock ARGS=--upgrade` takes the newest of everything.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock" --group build pyproject.toml
lock:
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	$(COMPILE) --extra charts --extra demo --extra postgres --output-file requirements.lock $(ARGS)
	$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock $(ARGS)
	$(COMPILE) --extra dev --extra bench --constraint requirements-dev.lock --output-file requirements-bench.lock $(ARGS)

clean:
	rm -rf $(VENV) build dist animatic.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The project itself is installed without dependencies and without a build environment of its own:
# setuptools is in the locks, so nothing unlocked is ever fetched.
$(VENV)/.run: $(BIN)/python requirements.lock pyproject.toml
	@echo "Installing what the bot needs into $(VENV), about a minute the first time"
	@$(PIP) --require-hashes --requirement requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(BIN)/python requirements-dev.lock pyproject.toml
	@echo "Installing what the bot and its tests need into $(VENV), a minute or two the first time"
	@$(PIP) --require-hashes --requirement requirements-dev.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements-bench.lock
	@echo "Installing what the measurements need besides into $(VENV)"
	@$(PIP) --require-hashes --requirement requirements-bench.lock
	@touch $@

$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
		if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			exec "$$python" -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "Animatic needs Python 3.11 or newer with its venv module, and found none." >&2; \
	echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make demo PYTHON=/path/to/python" >&2; \
	exit 1
