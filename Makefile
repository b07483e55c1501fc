.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV   := .venv
LOCK   := dev
BIN    := $(VENV)/bin
# Tests wait as often as they compute: one process more than there are cores.
WORKERS ?= $(shell expr $$(nproc) + 1)
export PYTHONPATH := operator:serving_image:dev
# Files are UTF-8, whatever locale a library sets meanwhile.
export PYTHONUTF8 := 1
# What one process has compiled, the many others need not.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show what can be done here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements/$(LOCK).txt
	@$(PYTHON) -c 'import ensurepip, sys; assert (3, 11) <= sys.version_info < (3, 14)' || \
	  { echo "Python 3.11 to 3.13 with venv is needed (on Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/$(LOCK).txt requirements/uv.txt
	touch $@

.PHONY: venv
venv: $(VENV)/.installed ## Make the virtual environment from the locked requirements

.PHONY: demo
demo: venv ## A kind cluster, the chart, a detector, real detections, a canary, its promotion and roll-back
	$(BIN)/python -m demo_cluster

.PHONY: demo-ray
demo-ray: venv ## From a Deployment to Ray and back under load, with a real KubeRay in the demo cluster
	$(BIN)/python -m demo_cluster.ray

.PHONY: demo-prometheus
demo-prometheus: venv ## A Prometheus in the demo cluster, by the lines of docs/guides/monitoring.md, with the chart's rules
	$(BIN)/python -m cluster prometheus

.PHONY: demo-down
demo-down: venv ## Delete the demo cluster (its caches stay)
	$(BIN)/python -m cluster down

.PHONY: test
test: venv ## Everything: checks, unit, serving, operator, chart and end-to-end tests
	$(MAKE) test-needs
	$(BIN)/python -m pytest -n $(WORKERS) --junitxml=build/tests.xml --durations=20

.PHONY: test-needs
test-needs: venv   # both at a time: a cluster that comes up mostly waits
	$(MAKE) -j2 test-compiled test-cluster

.PHONY: test-compiled
test-compiled: check
	mkdir -p build
	$(BIN)/python -m pytest --collect-only -q > build/collected.txt || { cat build/collected.txt; exit 1; }

.PHONY: test-cluster
test-cluster: venv
	dev/ensure-chromium
	$(BIN)/python -m cluster assets > /dev/null
	$(BIN)/python -m cluster up --no-metrics   # nothing tested scales by load

# What has passed for this very state of the files is not run again; it is asked for by `test-all` alone.
STATE = $(shell { git rev-parse HEAD; git diff HEAD; git ls-files -oz --exclude-standard | xargs -0r cat; } \
  | sha1sum | cut -c-12)
ALL := unit contract chart memory serving operator ray \
  $(patsubst tests/%.py,%,$(wildcard tests/e2e/test_*.py tests/faults/test_*.py))

.PHONY: test-all
test-all: venv ## Every test in its long form, in parts of at most an hour; goes on where it was stopped (hours)
	$(MAKE) test-needs
	$(MAKE) $(ALL:%=build/all/$(STATE)/%.xml)

build/all/%/ray.xml:
	mkdir -p $(@D)
	$(MAKE) test-ray ARGS=--junitxml=$@.running
	mv $@.running $@

build/all/%.xml:
	mkdir -p $(@D)
	part='$*'; part=tests/$${part#*/}; test -d "$$part" || part+=.py; \
	  YOLOFLEET_FAULTS=whole $(BIN)/python -m pytest -m "" -n $(WORKERS) --junitxml=$@.running "$$part"
	mv $@.running $@

.PHONY: test-seeing
test-seeing: venv ## Bad models called off, good ones released, on real pods (hours; goes on where it was stopped; ARGS=blind)
	$(BIN)/python -m seeing build/seeing/$(STATE) $(ARGS)

.PHONY: test-times
test-times: venv ## Where the time of the last `make test` went, by folder and test
	$(BIN)/python -m steady --of build/tests.xml --slowest 30

.PHONY: test-steady
test-steady: venv ## Run tests again and again beside a busy core; tells what ever failed (ARGS='-n 20 tests/unit')
	$(BIN)/python -m steady --beside 1 $(ARGS)

.PHONY: check
check: venv ## Format, lint, types, import contracts (seconds)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test-unit
test-unit: venv ## The tests that need neither a cluster nor a browser
	$(BIN)/python -m pytest tests/unit

.PHONY: test-gpu
test-gpu: ## The tests that need an NVIDIA GPU, with what the image for GPUs has (downloads gigabytes)
	$(MAKE) venv VENV=.venv-gpu LOCK=dev-gpu
	.venv-gpu/bin/python -m pytest tests/gpu

# With what `make test-gpu` has installed, or `make venv`: it downloads nothing.
.PHONY: bench-gpu
bench-gpu: ## Measure on an NVIDIA GPU (ten minutes at most, no downloads; ARGS='--against ../before': another checkout too)
	$(firstword $(wildcard .venv-gpu $(VENV)))/bin/python -m bench.gpu $(ARGS)

# Ray is large, so it is no part of $(VENV): its environment is kept with the caches.
RAY := $(or $(YOLOFLEET_CACHE),$(HOME)/.cache/yolofleet)/venv-ray

.PHONY: test-ray
test-ray: ## The server on Ray Serve, with a Ray of its own (installs half a gigabyte once)
	$(MAKE) venv VENV=$(RAY) LOCK=dev-ray
	$(RAY)/bin/python -m pytest -m ray $(ARGS) tests/ray

.PHONY: bench-ray
bench-ray: ## Measure what Ray Serve costs one detector, with and without HAProxy (ten minutes)
	$(MAKE) venv VENV=$(RAY) LOCK=dev-ray
	$(RAY)/bin/python -m bench.ray $(ARGS)

.PHONY: bench-operator
bench-operator: venv ## Measure the operator with 10, 100 and 1,000 detectors against its targets (half an hour; ARGS=--peers: beside others)
	$(BIN)/python -m cluster assets > /dev/null
	$(BIN)/python -m bench.operator $(ARGS)

.PHONY: test-faults
test-faults: venv ## Break the operator in every known way, each write of each trace (well over an hour)
	$(BIN)/python -m cluster assets > /dev/null
	YOLOFLEET_FAULTS=whole $(BIN)/python -m pytest -m "" tests/faults

.PHONY: bench-serving
bench-serving: venv ## Measure yoloserve beside what people would pick instead (a quarter of an hour; ARGS=--quick)
	$(BIN)/python -m bench.serving $(ARGS)

.PHONY: parity
parity: venv ## Compare boxes with the public YOLO package, and mAP by precision (an hour; ARGS='yolov8n' less)
	$(BIN)/python -m parity check $(ARGS)
	$(BIN)/python -m parity precision

.PHONY: release
release: venv ## Build a release into dist/VERSION, and push it where REGISTRY says (VERSION=0.1.0 IMAGES='torch gpu')
	$(BIN)/python -m release "$(VERSION)" --registry "$(REGISTRY)" --images $(IMAGES)

.PHONY: release-walk
release-walk: venv ## Install, upgrade, roll back and uninstall two releases of this commit, in a cluster of their own
	YOLOFLEET_CLUSTER=yolofleet-walk YOLOFLEET_INGRESS_PORT=-1 $(BIN)/python -m release.walk

.PHONY: pull-walk
pull-walk: venv ## The demo as on a machine that pulls its images, from a registry of our own (root; ten minutes)
	$(BIN)/python -m pulling

.PHONY: generate
generate: venv ## Write the CRD, its copy in the chart and the API reference from the types
	$(BIN)/python -m yolofleet.api.generate
	$(BIN)/python -m server_settings

.PHONY: lock
lock: ## Compile requirements/*.txt from pyproject.toml
	./requirements/compile
