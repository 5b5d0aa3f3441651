# The commands of the project. `make` lists them.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
TOOLS := .venv-lock

# The first Python that works and is new enough; 3.11, the version of CI, is preferred. Set it with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- install: a private environment in .venv; quick when nothing changed ---------------------------

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The packages that run: client, worker, gateway, Flower, an embedded Redis.
$(VENV)/.runs: pyproject.toml producer/pyproject.toml worker/pyproject.toml gateway/pyproject.toml $(LOCK)
	@test -n "$(PYTHON)" || { echo "Headrace needs Python 3.11 or later, and none is on PATH; set it with make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "installing into $(VENV) with $(PYTHON) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot create an environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --constraint $(LOCK) --editable producer --editable 'worker[embedded,flower]' --editable gateway
	@touch $@

# The packages for tests and checks.
$(VENV)/.develops: $(VENV)/.runs
	@$(PIP) install --constraint $(LOCK) --group dev
	@touch $@

.PHONY: install
install: $(VENV)/.develops ## Install everything into .venv
	@echo "installed in $(VENV)"

# --- run -------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.runs ## Train models, start a worker, predict a CSV through the queue
	@$(BIN)/headrace demo

.PHONY: dev
dev: $(VENV)/.runs ## Run the same stack until Ctrl-C, with Flower on http://127.0.0.1:5555
	@$(BIN)/headrace dev

.PHONY: secrets
secrets: ## Create certificates, users and passwords for docker-compose.yml, in ./secrets
	@deploy/secrets.sh

.PHONY: certs
certs: ## Create new certificates in ./secrets, from the same CA
	@deploy/secrets.sh certs

# --- check -----------------------------------------------------------------------------------------

# Options for pytest: make test ARGS='-k batch -x'
ARGS ?=

# The tests of a file run in one process, because they share servers and workers.
.PHONY: test
test: $(VENV)/.develops ## Run all tests except the long ones
	$(BIN)/pytest --numprocesses 5 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-quick
test-quick: $(VENV)/.develops ## Run the unit tests, in less than a minute
	$(BIN)/pytest --numprocesses auto tests/unit $(ARGS)

.PHONY: test-long
test-long: $(VENV)/.develops ## Run the tests that take minutes
	$(BIN)/pytest -m long --ignore tests/packaging --ignore tests/deploy --ignore tests/chart --ignore tests/engines \
		--ignore tests/inference_clients $(ARGS)

.PHONY: test-packaging
test-packaging: $(VENV)/.develops ## Build the wheels and install them as a user does
	$(BIN)/pytest -m long tests/packaging $(ARGS)

ENGINES := .venv-engines

# The engines bring 80 packages, which the other tests do not need.
$(ENGINES)/.made: tests/engines/requirements.txt producer/pyproject.toml worker/pyproject.toml $(LOCK)
	@test -n "$(PYTHON)" && $(PYTHON) -m venv $(ENGINES)
	@echo "installing Ray, Dask, Spark and DuckDB into $(ENGINES) (two minutes, once)"
	@$(ENGINES)/bin/pip install --quiet --disable-pip-version-check --constraint $(LOCK) --editable producer \
		--editable 'worker[parquet]' --requirement tests/engines/requirements.txt
	@touch $@

.PHONY: test-engines
test-engines: $(VENV)/.develops $(ENGINES)/.made ## Predict with Ray, Dask, Spark and DuckDB (needs Java)
	$(BIN)/pytest -m long tests/engines $(ARGS)

KSERVE := .venv-kserve
MLSERVER := .venv-mlserver

# Neither can be installed beside the other, nor beside the newest pandas.
$(KSERVE)/.made $(MLSERVER)/.made: .venv-%/.made: tests/inference_clients/%.txt
	@test -n "$(PYTHON)" && $(PYTHON) -m venv .venv-$*
	@echo "installing $* into .venv-$* (a minute, once)"
	@.venv-$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: test-clients
test-clients: $(VENV)/.develops $(KSERVE)/.made $(MLSERVER)/.made ## Call a gateway with the clients of KServe, MLServer and MLflow
	$(BIN)/pytest -m long tests/inference_clients $(ARGS)

# The two drills take longest and come first.
.PHONY: chart-test
chart-test: $(VENV)/.develops ## Check the objects of the Helm chart; play its pods, where there is a Docker engine
	$(BIN)/pytest -m long --numprocesses 2 --dist loadfile --no-loadscope-reorder --randomly-dont-reorganize \
		tests/chart/test_pods.py tests/chart/test_scaling_drill.py tests/chart $(ARGS)

.PHONY: deploy-test
deploy-test: $(VENV)/.develops ## Build the images, start the stack as in the README, and test it (needs Docker)
	$(BIN)/pytest -m long tests/deploy --ignore tests/deploy/long $(ARGS)

.PHONY: deploy-test-long
deploy-test-long: $(VENV)/.develops ## Also run every command of docs/production/, and faulty deploys (15 minutes)
	$(BIN)/pytest -m long tests/deploy $(ARGS)

.PHONY: compat
compat: $(VENV)/.develops ## Run kombu's and Celery's own tests on our transport (from PyPI; an hour)
	$(BIN)/python -m tests.compat $(ARGS)

# Longer, a part, or with new inputs for the corpus: make fuzz ARGS='--seconds 3600 --target message --keep'
.PHONY: fuzz
fuzz: $(VENV)/.develops ## Mutate all that others write, guided by the code that it reaches (about 15 minutes)
	$(BIN)/python -m tests.fuzz $(ARGS)

# A part: make zoo ARGS='--only LightGBM'
.PHONY: zoo
zoo: $(VENV)/.develops ## Serve 300 kinds of models and compare each with itself; write docs/reference/models.md (8 minutes)
	$(BIN)/python -m tests.zoo $(if $(ARGS),$(ARGS),--docs)

# Options for the suite: make chaos ARGS='1 6 --systems headrace'; `python -m tests.chaos --help` lists it.
# Some scenarios, the others as they are: make chaos ARGS='23 24 --update'
.PHONY: chaos
chaos: $(VENV)/.develops ## Inject faults under load, and write docs/reliability.md (45 minutes)
	$(BIN)/python -m tests.chaos --out tests/chaos/results/latest.json --docs $(ARGS)

# A part: make model-check ARGS='--only claims'; `python -m tests.model_check --help` lists it. Needs spin and gcc.
.PHONY: model-check
model-check: $(VENV)/.develops ## Check the claim protocol's model with spin; write docs/reliability.md (8 minutes)
	$(BIN)/python -m tests.model_check $(if $(ARGS),$(ARGS),--docs)

# A round that broke a promise, again: make chaos-long ARGS='--seed 7 --round 12'. Fewer kills: ARGS='--kills 20'.
.PHONY: chaos-long
chaos-long: $(VENV)/.develops ## Kill processes 10,000 times under load, in rounds with a seed (hours)
	$(BIN)/python -m tests.chaos.kill_rounds $(ARGS)

# Shorter: make soak ARGS='--minutes 30 --rate 40'. Ctrl-C ends it with a partial result, which is only printed.
.PHONY: soak
soak: $(VENV)/.develops ## Run a whole stack for two hours with a kill each minute, and look for leaks and lost jobs
	$(BIN)/python -m tests.soak --out tests/soak/results/latest.json --docs $(ARGS)

# Needs root, for network namespaces. They end with the command, however it ends.
.PHONY: machines
machines: $(VENV)/.develops ## Run workers on several machines with slow, half-open and lost links (root, 2 minutes)
	$(BIN)/python -m tests.machines

.PHONY: lint
lint: $(VENV)/.develops ## Check style, format, generated code, types, and imports between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python producer/generate_blocking.py --check
	$(BIN)/python deploy/helm/reference.py --check
	$(BIN)/python -m docs.cli_json --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Fails on a broken link or anchor, and on a page that is missing from the navigation of mkdocs.yml. With --quiet it
# would not: MkDocs counts the warnings that it logs.
.PHONY: docs
docs: $(VENV)/.develops ## Build the site of docs/ into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

.PHONY: docs-terminal
docs-terminal: $(VENV)/.runs ## Record `headrace demo` as a picture of a terminal for docs/README.md
	$(BIN)/python docs/terminal.py

# A form may gain fields; one that loses a field is refused: `python -m docs.cli_json --help`.
.PHONY: docs-json
docs-json: $(VENV)/.develops ## Run every command with --json, and write the examples of docs/reference/cli-json*.md
	$(BIN)/python -m docs.cli_json_examples

AUDIT := .venv-audit

$(AUDIT)/.made: Makefile
	@test -n "$(PYTHON)" && $(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1 bandit==1.9.4 detect-secrets==1.5.0
	@touch $@

.PHONY: audit
audit: audit-code audit-versions ## Search for risky code, committed secrets and vulnerable dependencies

# B310 is skipped because ruff checks the same as S310, with a reason on each exempted line. The two disabled plugins
# report every `password:` and every URL with a user name.
.PHONY: audit-code
audit-code: $(AUDIT)/.made ## Search for risky code and committed secrets
	$(AUDIT)/bin/bandit --quiet --recursive --severity-level medium --skip B310 producer worker gateway deploy
	$(AUDIT)/bin/detect-secrets-hook --no-verify --disable-plugin KeywordDetector --disable-plugin BasicAuthDetector \
		--exclude-lines hunter2 $$(git ls-files)

# pip-audit asks PyPI for each version; it fails if PyPI does not answer.
.PHONY: audit-versions
audit-versions: $(AUDIT)/.made ## Search for vulnerable dependencies (asks PyPI)
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement $(LOCK)

# --- measure ---------------------------------------------------------------------------------------

# Options for the suite: make bench ARGS='--peers headrace,celery --rounds 1'; `python -m benchmarks --help` lists it.
# One measurement, the others as they are: make bench ARGS='--update --more fleet'
.PHONY: bench
bench: $(VENV)/.develops ## Measure Headrace beside its peers, and write docs/benchmarks.md (an hour)
	$(BIN)/python -m benchmarks --docs $(ARGS)

.PHONY: bench-swap
bench-swap: $(VENV)/.runs ## Measure the cost of a new version to a busy worker, and write docs/swapping.md (5 minutes)
	$(BIN)/python -m benchmarks.pool_replacement --docs $(ARGS)

# A part: make bench-bulk ARGS='--update --only online,memory'
.PHONY: bench-bulk
bench-bulk: $(VENV)/.develops ## Measure bulk runs beside scripts, Dask and Ray, and write docs/bulk-benchmarks.md (half an hour)
	$(BIN)/python -m benchmarks.bulk --docs $(ARGS)

# A part: make bench-http ARGS='--update --only client,files'
.PHONY: bench-http
bench-http: $(VENV)/.develops ## Measure the HTTP gateway beside FastAPI and MLServer, and write docs/http-benchmarks.md (15 minutes)
	$(BIN)/python -m benchmarks.http --docs $(ARGS)

# Smaller: make bench-flower ARGS='--jobs 5000 --requests 3'
.PHONY: bench-flower
bench-flower: $(VENV)/.runs ## Measure Flower's pages with 100,000 jobs, and write docs/flower-benchmarks.md (10 minutes)
	$(BIN)/python -m benchmarks.dashboard --docs $(ARGS)

.PHONY: bench-short
bench-short: $(VENV)/.runs ## Run the benchmarks with small sizes and few peers, to test them (5 minutes)
	$(BIN)/python -m benchmarks --short --peers headrace,celery,celery-tuned,huey \
		--more fast,depths,pools,telemetry,fleet --out benchmarks/results/short.json $(ARGS)

# --- maintain --------------------------------------------------------------------------------------

.PHONY: generate
generate: $(VENV)/.develops ## Write the blocking client, the reference of the chart, and the schemas of --json
	$(BIN)/python producer/generate_blocking.py
	$(BIN)/python deploy/helm/reference.py
	$(BIN)/python -m docs.cli_json

.PHONY: format
format: $(VENV)/.develops ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: ## Update requirements.lock to the newest compatible versions
	@test -n "$(PYTHON)" && $(PYTHON) -m venv $(TOOLS) && $(TOOLS)/bin/pip install --quiet --disable-pip-version-check uv
	@$(TOOLS)/bin/uv --no-config pip compile --quiet --universal --upgrade --python-version 3.11 --group dev pyproject.toml \
		--no-emit-package headrace --no-emit-package headrace-worker --no-emit-package headrace-gateway --custom-compile-command 'make lock' \
		--output-file $(LOCK).body
	@{ echo "# The versions of CI, of the images and of \`make\`: pip constraints, so each installs only what it needs."; \
		cat $(LOCK).body; } >$(LOCK) && rm $(LOCK).body
	@echo "$(LOCK) is updated: run the tests, then commit it"

RELEASE := .venv-release

$(RELEASE)/.made: Makefile
	@test -n "$(PYTHON)" && $(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/pip install --quiet --disable-pip-version-check build==1.6.1 twine==7.0.0
	@touch $@

# Uploads nothing.
.PHONY: release
release: $(VENV)/.develops $(RELEASE)/.made ## Build wheels, sdists, chart, list of packages and notes into dist/
	$(BIN)/python -m deploy.release --tools $(RELEASE)/bin/python $(ARGS)

.PHONY: clean
clean: ## Remove the files that the commands above create
	rm -rf $(VENV) $(VENV)-bench $(ENGINES) $(KSERVE) $(MLSERVER) $(TOOLS) $(AUDIT) $(RELEASE) .compat .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build site
	find producer worker gateway tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
