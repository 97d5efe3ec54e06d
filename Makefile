# Batchlab. `make demo` and `make test` need nothing done by hand before them but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# A process a core: most of what tests wait for are processes of their own.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist worksteal
# Images of containers often set this; without bytecode every command compiles anew what it imports, which doubles its start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup ray docs wheel demo test test-slow check ui server server-postgres bench bench-tables bench-retraining faults verdicts lock browser postgres test-browser clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY) ## Create .venv and install what requirements.lock names

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Batchlab needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@echo "Compiling the CPU kernels, about 20 s, unless they are on disk already, and what is imported"
	@$(BIN)/python -c "import flows.comparison, flows.display, prefect.server.api.server, mlflow.store.tracking.sqlalchemy_store, tasks.warming; list(map(__import__, tasks.warming.LATER))" & \
	  $(BIN)/python -c "from batchlab.engine.backends import numba_cpu; from batchlab.table import turning; numba_cpu.warm(); turning.warm()" && wait
	@touch $@

demo: $(READY) ## The verdict on the lesson's prices and on diabetes, twelve seconds of search each
	$(BIN)/batchlab compare --profile lesson --max-minutes 0.2
	$(BIN)/batchlab compare --data diabetes --max-minutes 0.2
	@echo
	@echo "Open the MLflow UI with: make ui   (it prints the address to open)"

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-slow: $(READY) ## Run the tests that take long: whole stories, kills at random moments, both databases
	$(BIN)/python -m pytest -m slow --timeout 1200

check: $(READY) ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: $(READY) ## Open the MLflow UI on loopback
	$(BIN)/batchlab ui

server: $(READY) ## Start a Prefect server and a worker on loopback, and deploy the flows
	$(BIN)/batchlab server start --worker

server-postgres: $(READY) postgres ## The same on PostgreSQL, with an MLflow server; both servers ask for a password
	$(BIN)/batchlab server start --postgres --worker

bench: $(READY) ## Measure the engine beside its peers (add QUICK=--quick for 3 minutes); writes docs/benchmarks.md
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r benchmarks/requirements.lock
	$(BIN)/python -m benchmarks $(QUICK)

bench-tables: $(READY) ## Measure packing and streaming beside their peers (30 GB of disk); writes docs/packing.md, docs/streaming.md
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r benchmarks/requirements.lock
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.streaming

bench-retraining: $(READY) ## Measure the gate, a year of retraining and scoring, 15 minutes; writes docs/gate.md, retraining_year.md, scoring.md
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.year
	$(BIN)/python -m benchmarks.scoring

browser: ## Install Chromium and its driver, for the browser tests (Debian, Ubuntu)
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); $$sudo apt-get update -qq && $$sudo apt-get install -y -qq chromium chromium-driver; }

postgres: ## Install PostgreSQL, for server-postgres and the tests (Debian, Ubuntu)
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); $$sudo apt-get update -qq && $$sudo apt-get install -y -qq postgresql; }

test-browser: $(READY) browser ## Install a browser and run the tests that need one
	$(BIN)/python -m pytest tests/test_browser.py

faults: $(READY) ## Disturb real comparisons in every way that docs/reliability.md names; hours, or FAULTS="--kills 50"
	$(BIN)/python -m benchmarks.faults faults $(FAULTS)

verdicts: $(READY) ## Whether verdicts hold: data sets × limits, Optuna, coverage; 6 hours, or STAGES="--stages short"; writes docs/verdicts.md
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r benchmarks/requirements.lock
	$(BIN)/python -m benchmarks.verdicts verdicts $(STAGES)

ray: $(READY) ## Install Ray, for trainings on a cluster (run.on=ray) and their tests
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-ray.lock

docs: $(READY) ## Build the documentation as a site: open site/index.html
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r docs/requirements.lock
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: $(READY) ## Build a wheel in dist/, of the library with its flows and command line
	$(BIN)/python -m hatchling build -t wheel

lock: $(READY) ## Resolve requirements.lock again from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade \
	  --group dev pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade \
	  --group dev --group bench --constraint requirements.lock pyproject.toml --output-file benchmarks/requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ray"], sep="\n")' | \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade \
	  --constraint requirements.lock - --output-file requirements-ray.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade \
	  --constraint requirements.lock --group docs --output-file docs/requirements.lock

clean: ## Stop the servers; remove .venv, caches and everything under mlruns/
	-test ! -x $(BIN)/batchlab || $(BIN)/batchlab server stop
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find mlruns -mindepth 1 -not -name .gitkeep -delete
