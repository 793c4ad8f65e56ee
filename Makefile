# The commands of this project. Needs python3 (3.11 or newer), make, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready
DOCS_READY := $(VENV)/.docs-ready
SECURITY_READY := $(VENV)/.security-ready
# The markers are declared in pyproject.toml.
UNIT := not (hosts or ray or own_grid or documents or leases or computing or hostile or postgres or processes)

PIP_LOCKED := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile -r
# Writes every second package of a lock file to another file.
define SPLIT_LOCK
import re, sys
packages = re.findall(r"^[A-Za-z0-9].*(?:\n[ #].*)*", open(sys.argv[1], encoding="utf-8").read(), re.MULTILINE)
for start, path in enumerate(sys.argv[2:]):
    open(path, "w", encoding="utf-8").write("\n".join(packages[start::2]) + "\n")
endef
export SPLIT_LOCK

.PHONY: help demo unit coverage test field simulate drill soak check security bench docs wheel lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Everything is pinned with hashes; the project itself is installed as it lies here.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "raygrid needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing Python packages into $(VENV); this takes a minute or two, and is done once" >&2
	$(PYTHON) -m venv $(VENV)
	@# Two at once, because pip uses one processor; the lock is complete, so that neither needs the other's packages.
	@# While one pip replaces the setuptools of a new environment, the other would warn of an invalid distribution.
	@$(BIN)/python -m pip uninstall --quiet --quiet --yes --disable-pip-version-check setuptools
	@$(BIN)/python -c "$$SPLIT_LOCK" requirements.lock $(VENV)/first.lock $(VENV)/second.lock
	$(PIP_LOCKED) $(VENV)/first.lock & first=$$!; $(PIP_LOCKED) $(VENV)/second.lock && wait $$first
	@# pip compiles on one processor only; some packages contain files that are no Python of this version. What is
	@# hardly ever imported is compiled when it is.
	@$(BIN)/python -m compileall -q -j 0 -x '/(cfnlint|moto|networkx|sympy|rllib|tune|train|tests)/' $(VENV) >/dev/null 2>&1 || true
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $(READY)

demo: $(READY) ## start a grid on this machine, price the example book, kill a node agent meanwhile, show prices per kind
	$(BIN)/raygrid demo

unit: $(READY) ## run the pure tests, without PostgreSQL, Ray or seconds of waiting; under a minute
	$(BIN)/python -m pytest -q -n 3 --dist worksteal --max-worker-restart=0 -m "$(UNIT)" tests/unit tests/contract

# Branches, too; it fails below `fail_under` in pyproject.toml.
coverage: $(READY) ## measure what the unit and contract tests reach of core, store and parent
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --max-worker-restart=0 --cov --cov-report=term tests/unit tests/contract

# make test ROW=ray runs one row; tests/run.py names them and says what runs beside what.
test: $(READY) ## run every test, and print one summary; ROW=ray for one part of them
	$(BIN)/python -m tests.run $(ROW)

# make field FIELD_ARGS='--only wine'; --list names the cases.
field: $(READY) ## try problems that others have reported, on real grids (wine, .NET and Java where they are installed)
	$(BIN)/python -m field $(FIELD_ARGS)

# make simulate SEEDS=2000 FIRST_SEED=0 MUTANT=endless-attempts; MUTANT=list names the bugs that can be planted.
SEEDS ?= 200
FIRST_SEED ?= 0
simulate: $(READY) ## run the grid's own code under seeded faults on a virtual clock; SEEDS=2000 FIRST_SEED=0
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first-seed $(FIRST_SEED) $(addprefix --mutant=,$(MUTANT))

drill: $(READY) ## run every drill five times on five hosts, and cut links, with medians (Linux, root)
	$(BIN)/python -m tests.faults.drills

soak: $(READY) ## twenty minutes of load on five hosts, with a random fault every twenty seconds (Linux, root)
	$(BIN)/python -m tests.faults.soak

check: $(READY) ## formatter, linter, strict types, import contracts, bandit, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict examples/quantlib/*.py
	$(BIN)/mypy --strict examples/ore/*.py
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive raygrid
	$(BIN)/codespell

# What tries requests and inputs has a lock of its own, within the versions of the first.
$(SECURITY_READY): $(READY) requirements-security.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-security.lock
	@touch $(SECURITY_READY)

# make security SECURITY_ARGS='--only fuzz --fuzzer forms --seconds 60'
security: $(SECURITY_READY) ## 20,000 requests of Schemathesis, ten minutes of each fuzzer, advisories; well over an hour
	$(BIN)/python -m security $(SECURITY_ARGS)

# What the grid is measured beside has a lock of its own, within the versions of the first.
$(BENCH_READY): $(READY) requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $(BENCH_READY)

# make bench WORKLOAD=1 PROFILE=1 BENCH_ARGS='--rounds 5'
bench: $(BENCH_READY) ## all measurements beside xargs, HyperQueue, Dask, Celery and Ray; WORKLOAD=1 for one of them
	$(BIN)/python -m bench $(addprefix --workload=,$(WORKLOAD)) $(if $(PROFILE),--profile=bench-profile) $(BENCH_ARGS)

# What builds the documentation has a lock of its own, too.
$(DOCS_READY): $(READY) requirements-docs.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $(DOCS_READY)

# Strict: a broken link, an unknown name or a missing page is an error. The variable silences an advertisement.
docs: $(DOCS_READY) ## build the documentation as a site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "open site/index.html, or with the search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

# For machines of a cluster: see cluster.yaml.
wheel: $(READY) ## build raygrid as one file in dist/, for the machines of a cluster
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .

lock: $(READY) ## write requirements.lock and its companions anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra examples --extra postgres --extra dev --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra postgres --constraint requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  --upgrade --output-file requirements-run.lock
	$(BIN)/uv pip compile pyproject.toml --extra bench --constraint requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  --upgrade --output-file requirements-bench.lock
	$(BIN)/uv pip compile pyproject.toml --extra docs --constraint requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  --upgrade --output-file requirements-docs.lock
	$(BIN)/uv pip compile pyproject.toml --extra security --constraint requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  --upgrade --output-file requirements-security.lock

clean: ## remove what these commands have built
	rm -rf $(VENV) build dist site *.egg-info .test-logs .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
