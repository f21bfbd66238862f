# Everything works from a clean clone with Python 3.11+ and make; `make setup` is what the others share.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test peers check format lock install clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "penstock needs Python 3.11 or later; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 10 --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

# The main job, once, in a fresh state folder: no key, no network.
demo: $(READY)
	@examples/demo.sh $(BIN)/penstock

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile --durations=15

# Real servers by others to test against, from the npm registry, and Prometheus's parser; where they
# are not, `make test` says what was not run. Bluesky's AppView also wants Debian's postgresql and
# redis-server.
peers: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps prometheus-client==0.26.0 \
		|| echo "WARNING: Prometheus's parser cannot be installed: NOT RUN" >&2
	@sh tests/peers/install.sh

# Everything a change must pass besides its tests.
check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Needs uv and a package index; the file names neither.
lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock

# For good, as root: a virtual environment where a service can see it, and what systemd needs.
# Another publication on the same machine: make install ARGS='--name NAME'.
PREFIX ?= /opt/penstock
install:
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check --retries 10 --require-hashes -r requirements.lock
	$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --force-reinstall .
	$(PREFIX)/bin/penstock install-service $(ARGS)

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
