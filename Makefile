# The commands of this project. Needs python3 (3.11 or newer), make, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready
# Hosts of their own mostly wait for Ray, so that everything else runs beside them: first what needs neither hosts nor Ray
# nor much time on a processor, and gives way to them, then grids on this machine, and beside these the tests in which
# leases must live, one after the other: a machine with more to do than it can lets them run out. What only computes takes
# whatever of the processors these leave.
ON_HOSTS := tests/faults
ON_RAY := $(wildcard tests/integration/test_ray_*.py) $(addprefix tests/integration/test_,readme.py notebook.py)
OF_LEASES := $(addprefix tests/integration/test_,standby_leaders.py lost_groups.py drill.py draining.py several_parents.py \
  node_and_leader_loss.py job_store_outage.py)
ONLY_COMPUTE := $(wildcard tests/unit/test_simulate_*.py tests/unit/test_example_*.py)
BESIDE := .beside-hosts.log .beside-leases.log .beside-computing.log

.PHONY: help demo test field drill soak check bench wheel lock clean

help:
	@echo "make demo    start a grid on this machine, price the example book, kill a node agent meanwhile, show prices per kind"
	@echo "make test    run every test"
	@echo "make field   problems that others have reported, tried on real grids (wine, .NET and Java where they are there)"
	@echo "make drill   every drill five times on five hosts, and real cuts of links, with medians (Linux, root)"
	@echo "make soak    twenty minutes of load on five hosts, with a random fault every twenty seconds (Linux, root)"
	@echo "make check   formatter, linter, strict types, import contracts"
	@echo "make bench   all measurements beside xargs, HyperQueue, Dask, Celery and Ray; WORKLOAD=1 for one of them"
	@echo "make wheel   raygrid as one file, in dist/, for the machines of a cluster"
	@echo "make lock    write requirements.lock and requirements-bench.lock anew from pyproject.toml"

# Everything is pinned with hashes; the project itself is installed as it lies here.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "raygrid needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing Python packages into $(VENV); this takes a minute or two, and is done once" >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $(READY)

demo: $(READY)
	$(BIN)/raygrid demo

test: $(READY)
	@$(BIN)/python -m pytest $(ON_HOSTS) >.beside-hosts.log 2>&1 & hosts=$$!; \
	  trap 'kill $$hosts $$leases $$computing; wait $$hosts $$leases $$computing; exit 130' INT TERM; \
	  nice -n 5 $(BIN)/python -m pytest -n 4 --dist loadfile \
	    $(addprefix --ignore=,$(ON_HOSTS) $(ON_RAY) $(OF_LEASES) $(ONLY_COMPUTE)); others=$$?; \
	  $(BIN)/python -m pytest $(OF_LEASES) >.beside-leases.log 2>&1 & leases=$$!; \
	  nice -n 19 $(BIN)/python -m pytest $(ONLY_COMPUTE) >.beside-computing.log 2>&1 & computing=$$!; \
	  $(BIN)/python -m pytest $(ON_RAY); on_ray=$$?; \
	  wait $$leases; of_leases=$$?; wait $$computing; computed=$$?; wait $$hosts; on_hosts=$$?; \
	  cat $(BESIDE); rm -f $(BESIDE); \
	  test $$others$$on_ray$$of_leases$$computed$$on_hosts = 00000

# make field FIELD_ARGS='--only wine'; --list names the cases.
field: $(READY)
	$(BIN)/python -m field $(FIELD_ARGS)

drill: $(READY)
	$(BIN)/python -m tests.faults.drills

soak: $(READY)
	$(BIN)/python -m tests.faults.soak

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict examples/quantlib/*.py
	$(BIN)/mypy --strict examples/ore/*.py
	$(BIN)/lint-imports

# What the grid is measured beside has a lock of its own, within the versions of the first.
$(BENCH_READY): $(READY) requirements-bench.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $(BENCH_READY)

# make bench WORKLOAD=1 PROFILE=1 BENCH_ARGS='--rounds 5'
bench: $(BENCH_READY)
	$(BIN)/python -m bench $(addprefix --workload=,$(WORKLOAD)) $(if $(PROFILE),--profile=bench-profile) $(BENCH_ARGS)

# For machines of a cluster: see cluster.yaml.
wheel: $(READY)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra examples --extra postgres --extra dev --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra bench --constraint requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	  --upgrade --output-file requirements-bench.lock

clean:
	rm -rf $(VENV) build dist *.egg-info $(BESIDE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
