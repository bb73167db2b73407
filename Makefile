# One virtual environment, made from the lock with nothing but Python >= 3.11 and pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
GENERATE := .venv-generate
INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes
EDITABLE := . gen/python $(patsubst %/pyproject.toml,%,$(wildcard clients/*/pyproject.toml))
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' $(UPGRADE)
PROTOS := $(sort $(wildcard protos/angarium/v1/*.proto))
GRPCURL_VERSION := v1.9.3

MAKEFLAGS += --no-print-directory

.DELETE_ON_ERROR:
.PHONY: help run test check prove mutants bench generate breaking lock release
help: ## what this file does
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile

run: $(BIN)/.installed ## the gateway with a sandbox upstream and a demonstration, on ./data
	$(BIN)/python deploy/local.py

test: $(BIN)/.installed $(BIN)/grpcurl ## every test, on SQLite and on a Postgres of its own
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 2 --junit-xml=.venv/tests.xml tests
	@if [ -n "$$CI" ] && grep -o '<skipped[^>]*>' .venv/tests.xml; then echo "no test may be skipped here"; exit 1; fi

check: $(BIN)/.installed ## everything that must hold before a merge; ends with the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(MAKE) breaking
	$(MAKE) generate
	@status="$$(git status --porcelain gen)" && if [ -n "$$status" ]; then \
		echo "$$status"; echo "gen/ is not what protos/ gives: commit what 'make generate' wrote"; exit 1; fi
	$(MAKE) test

breaking: $(BIN)/.installed ## the contract against the last release
	@test -s gen/baseline.binpb || { echo "gen/baseline.binpb is missing: nothing to compare the contract with"; exit 1; }
	$(BIN)/buf breaking protos --against gen/baseline.binpb

prove: $(BIN)/.installed ## every fault, over and over, for MINUTES (60): kills, power cuts, storms, freezes, clocks, stops
	$(BIN)/python -m tests.proof --minutes $(or $(MINUTES),60)

mutants: $(BIN)/.installed ## puts faults into copies of the source, and shows that a check kills each
	$(BIN)/python -m tests.mutants

bench: $(BIN)/.installed ## what the gateway costs beside the bare thing, for docs/benchmarks.md
	$(BIN)/python -m bench

generate: $(BIN)/.installed $(GENERATE)/.installed ## the stubs in gen/ from protos/
	@test -n "$(PROTOS)" || { echo "no protos"; exit 1; }
	rm -rf $(GENERATE)/out && mkdir $(GENERATE)/out
	$(GENERATE)/bin/python -m grpc_tools.protoc --proto_path=protos \
		--plugin=$(BIN)/protoc-gen-mypy --plugin=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=$(GENERATE)/out --mypy_out=quiet:$(GENERATE)/out \
		--grpc_python_out=$(GENERATE)/out --mypy_grpc_out=quiet:$(GENERATE)/out $(PROTOS)
	grep -L '^service ' $(PROTOS) | sed 's,protos/\(.*\)\.proto,$(GENERATE)/out/\1_pb2_grpc.py,' | xargs rm -f
	touch $(GENERATE)/out/angarium/v1/py.typed
	rm -rf gen/python/angarium && mv $(GENERATE)/out/angarium gen/python/angarium

lock: $(BIN)/.installed ## the locks from pyproject.toml; `make lock UPGRADE=--upgrade` takes newer versions
	$(LOCK) pyproject.toml --group install --output-file requirements/run.txt
	$(LOCK) pyproject.toml --group install --group test --group lint --group types --group lock \
		--constraints requirements/run.txt --output-file requirements/dev.txt
	$(LOCK) --group generate --output-file requirements/generate.txt
	$(LOCK) --group grpcurl --output-file requirements/grpcurl.txt

release: check ## makes today's contract the one that later changes are compared with (add the line to CHANGELOG.md)
	$(BIN)/buf build protos --exclude-source-info --output gen/baseline.binpb

$(BIN)/.installed: requirements/dev.txt pyproject.toml $(addsuffix /pyproject.toml,$(EDITABLE))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) --requirement requirements/dev.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		$(addprefix --editable ./,$(EDITABLE))
	touch $@

$(GENERATE)/.installed: requirements/generate.txt
	rm -rf $(GENERATE) && $(PYTHON) -m venv $(GENERATE)
	$(GENERATE)/bin/python $(INSTALL) --requirement requirements/generate.txt
	touch $@

$(BIN)/grpcurl: .ci/grpcurl requirements/grpcurl.txt | $(BIN)/.installed
	.ci/grpcurl $(BIN) $(GRPCURL_VERSION)
	touch -h $@
