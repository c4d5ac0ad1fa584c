# Every target that needs packages installs them first, into this clone; see local/bootstrap.sh.
# Ports and the state directory are variables: make up AIRFLOW_PORT=9090 RUN_DIR=/tmp/second
.DEFAULT_GOAL := help
PY := .venv/bin/python

.PHONY: help demo up down status test test-loop test-faults lint bench

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

demo:  ## the whole loop on real purchases: DATA=cdnow (default), shop, or a file such as online_retail.parquet
	@sh local/bootstrap.sh run
	@$(PY) -m local demo $(if $(DATA),--data '$(DATA)')

up:  ## start every service of the machine
	@sh local/bootstrap.sh run
	@$(PY) -m local up

down:  ## stop every service; leaves no process behind
	@sh local/bootstrap.sh run
	@$(PY) -m local down

status:  ## a table of the services: state, port, uptime, memory, log
	@sh local/bootstrap.sh run
	@$(PY) -m local status

test:  ## all tests except the slow ones of test-faults; ARGS='tests/ml -k gate' selects some
	@sh local/bootstrap.sh all
	@$(PY) -m pytest -n 2 --no-loadscope-reorder -m 'not faults' $(ARGS)

test-loop:  ## only the tests that run whole days through the whole machine
	@sh local/bootstrap.sh all
	@$(PY) -m pytest -m loop $(ARGS)

test-faults:  ## only the tests that kill, break and delay parts of the whole machine
	@sh local/bootstrap.sh all
	@$(PY) -m pytest -n 2 --no-loadscope-reorder -m faults --unconfined $(ARGS)

lint:  ## style, types, import rules, and config, SQL and expectations against each other
	@sh local/bootstrap.sh all
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m ml check

bench:  ## benchmarks; ARGS selects some
	@sh local/bootstrap.sh all
	@$(PY) -m bench $(ARGS)
