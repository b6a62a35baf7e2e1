# `make demo` and `make test` need nothing but Python >= 3.11: they make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
# Test files at once. Each takes a core and 1 GB.
JOBS ?= 2
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

export HF_HUB_OFFLINE := 1

.PHONY: demo test test-wheel check format docs notebooks simulate bench-limiter bench-cache bench-speed bench-compression load-test clean

demo: $(VENV)/.demo  ## replay real questions bare and dispatched, print a table, write a plot
	$(PY) -m benchmarks.demo $(ARGS)

test: $(VENV)/.dev test-wheel  ## the whole suite, on real servers and a real model
	$(PY) tests/redis8.py
	$(PY) tests/openai3.py
	$(PY) -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/.dev  ## lint, formatting, types, layers
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/.docs  ## the guides and the reference, into build/docs; fails on a broken link or name
	$(VENV)/bin/zensical build --clean --strict

test-wheel: $(VENV)/.dev  ## the built wheel alone, without any extra, in an empty environment
	rm -rf build/wheel && mkdir -p build/wheel
	$(PY) -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/python -m pip --disable-pip-version-check install --quiet build/wheel/*.whl
	cd build/wheel && env/bin/python -c "import dispatch_core" && env/bin/dispatcher --help > /dev/null

simulate: $(VENV)/.demo  ## a rate-limited provider on port 8089
	$(VENV)/bin/dispatcher simulate --rpm 600 --tpm 60000 $(ARGS)

bench-limiter: $(VENV)/.bench  ## every limiter before every kind of provider, in virtual time; then on one Redis
	$(PY) -m benchmarks.limiter $(ARGS)
	$(PY) -m benchmarks.limiter.cost
	$(PY) -m benchmarks.limiter.redis_cost
	$(PY) -m benchmarks.limiter.processes

bench-cache: $(VENV)/.dev  ## hit rate and error of every cache policy, then bench-speed: make bench-cache DATA=folder (it says which files)
	$(PY) -m benchmarks.cache_quality $(if $(DATA),--data $(DATA)) $(ARGS)
	$(MAKE) bench-speed

load-test: $(VENV)/.loadtest  ## bare and dispatched programs at the article's demand, in real time (25 min; ARGS=--quick: 3)
	$(PY) -m dispatch_core export-model
	$(PY) -m benchmarks.load_test $(ARGS)

bench-speed: $(VENV)/.dev  ## what hits, stores and imports cost, next to the bare embedding, Redis and other caches
	$(PY) -m dispatch_core export-model
	$(PY) -m benchmarks.cache_speed $(ARGS)

bench-compression: $(VENV)/.dev  ## tokens saved against answers kept, by every compressor
	$(PY) -m dispatch_core export-model
	$(PY) -m benchmarks.compression $(ARGS)

notebooks: $(VENV)/.dev  ## run the notebooks and keep what they show; ARGS=3 runs the third
	$(PY) -m notebooks.execute $(ARGS)

clean:
	rm -rf $(VENV) build demo-output benchmark-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache

# torch is pinned and goes first: left to the resolver, it comes with several GB of CUDA libraries.
$(VENV)/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a few minutes the first time"
	$(PIP) torch
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.loadtest: $(VENV)/.demo
	$(PIP) --editable '.[loadtest]'
	@touch $@
