# `make` lists the targets. Everything is installed below this folder, except missing Debian packages.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DAGSTER_HOME := $(CURDIR)/.mirror/dagster
export MIRROR_SETTLE_MINUTES ?= 0.2
PORT ?= 3000

.PHONY: help setup demo ui test test-all acceptance lint bench bigquery-acceptance docs-types docs-alerts lock image clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.installed dbt_project/target/manifest.json ## Install what is missing, parse the dbt models

.venv/.installed: requirements.lock requirements-fast.lock pyproject.toml .ci/packages .ci/venv
	@.ci/packages
	@.ci/venv
	@touch $@

dbt_project/target/manifest.json: .venv/.installed $(shell find dbt_project -name '*.sql' -o -name '*.yml' | grep -v /target/)
	@echo "dbt parses its project"
	@cd dbt_project && dbt --quiet parse --profiles-dir . --vars '{mirror_date: 2026-01-01}'

demo: setup ## Mirror a sample database of today, and print a summary
	@mirror demo

ui: setup ## The Dagster UI over the demo, on http://127.0.0.1:$(PORT)
	@mkdir -p $(DAGSTER_HOME) && cp dagster.yaml $(DAGSTER_HOME)/
	@if [ -d .mirror/servers ]; then mirror demo start; fi
	@echo "http://127.0.0.1:$(PORT)   (Ctrl-C stops it)"
	@if [ -d .mirror/servers ]; then eval "$$(mirror demo environment)"; fi; \
	dagster dev -w workspace.yaml -h 127.0.0.1 -p $(PORT)

test: setup ## Every test, against real private servers (the heaviest profiles: make test-all)
	@pytest -n 2 --dist loadfile -m "not slow"

test-all: setup ## Every test with its heaviest profile
	@pytest -n 2 --dist loadfile

acceptance: setup ## The demo's databases in production's settings, and all dbt models (slow; CI runs them)
	@pytest -n 2 --dist loadfile tests/test_production.py tests/dbt/test_lake_build.py

lint: setup ## ruff and the type checker
	@ruff check . && ruff format --check . && mypy

bench: setup .mirror/bench/venv/.installed ## Ratios against the floor, measured in one run: docs/performance.md
	@python -m benchmarks.run
	@python -m benchmarks.report

.mirror/bench/venv/.installed: requirements-bench.lock benchmarks/install
	@benchmarks/install

bigquery-acceptance: setup ## What only a real project proves: PROJECT=<project> LAKE=gs://<bucket>/<folder> [LOCATION=..]
	@python -m benchmarks.bigquery_acceptance --warehouse "bigquery:$(PROJECT)?location=$(or $(LOCATION),US)" --lake "$(LAKE)"

docs-types: setup ## Write docs/types.md from the code
	@python -m mirror_assets.mirroring.typedoc

docs-alerts: setup ## Write docs/alerts.md from the code
	@python -m mirror_assets.orchestration.alerts.doc

lock: setup ## Resolve the lock files again (hashes, no index addresses)
	@.ci/lock

# Of a registry of yours, a tag that is used once, and a base that nobody can move.
image: ## The image of production: make image IMAGE=registry/mirror-assets TAG=.. BASE=..@sha256:..
	@test -n "$(IMAGE)" -a -n "$(TAG)" || { echo "make image IMAGE=registry/mirror-assets TAG=.. BASE=.." >&2; exit 1; }
	@[[ "$(BASE)" =~ @sha256:[0-9a-f]{64}$$ ]] || { echo "BASE names no digest. Next: docker buildx imagetools inspect python:3.11-slim-bookworm, then make image .. BASE=docker.io/library/python:3.11-slim-bookworm@sha256:.." >&2; exit 1; }
	@docker build -f deploy/Dockerfile --build-arg BASE=$(BASE) -t $(IMAGE):$(TAG) .

clean: ## Stop the demo's servers and delete .mirror and .venv
	@if [ -d .mirror/servers ] && [ -x .venv/bin/mirror ]; then mirror demo stop; fi
	@rm -rf .mirror .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@echo "removed .mirror, .venv and caches"
