# Every target sets itself up: the first one makes .venv and installs requirements.lock, the next ones find it there.
# PYTHON=/path/to/python3.12 chooses the interpreter; otherwise the first of the list below that really runs.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
UV ?= uv

# A name on the PATH proves nothing (a pyenv shim may stand for a version that is not chosen), so each one is run.
USABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c "$(USABLE)" >/dev/null 2>&1 && echo "$$python" && break; done)

.PHONY: help
help:  ## print the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(STAMP)  ## only make .venv and install what the others need

# The stamp is written last and removed first: a set-up that was interrupted leaves none and starts over from an empty
# .venv, while a change of the lock installs the difference.
$(STAMP): requirements.lock setup.cfg pyproject.toml
	@set -euo pipefail; { \
	if [ -e $@ ] && $(PY) -c pass 2>/dev/null; then \
		rm -f $@; \
	else \
		python="$(PYTHON)"; \
		if ! "$${python:-false}" -c "$(USABLE)" >/dev/null 2>&1; then \
			echo "rl_jax needs Python 3.11, 3.12 or 3.13 with its venv and ensurepip modules (Debian: python3-venv). Found:" \
				"$${python:-none on the PATH}. Name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; \
			exit 1; \
		fi; \
		echo "set-up: making $(VENV) with $$python ($$("$$python" --version 2>&1))"; \
		"$$python" -m venv --clear $(VENV); \
	fi; \
	echo "set-up: installing the $$(grep -c '^[a-z]' $<) packages of $< (a few minutes the first time)"; \
	$(PY) -m pip install --quiet --disable-pip-version-check --no-input -r $<; \
	$(PY) -m pip install --quiet --disable-pip-version-check --no-input --no-deps -e .; \
	touch $@; \
	echo "set-up: done"; \
	} >&2

.PHONY: run
run: $(STAMP)  ## train the default job: offline RL beside cloning on halfcheetah-medium, some minutes on a CPU
	@$(PY) -m experiments.offline_rl.train --config=configs/offline_rl.py:quick-bc --workdir=runs/BC
	@$(PY) -m experiments.offline_rl.train --config=configs/offline_rl.py:quick --workdir=runs/offline_rl_quick --config.rival=runs/BC
	@$(PY) -m experiments.offline_rl.film --run=runs/offline_rl_quick

.PHONY: test
test: $(STAMP)  ## run the tests, in two processes (minutes; the first time compiles)
	@$(PY) -m pytest -n 2 --dist loadfile

.PHONY: test-slow
test-slow: $(STAMP)  ## run the checks that take minutes each, and the promises of every agent
	@$(PY) -m pytest -m slow -n 2 --dist loadfile

.PHONY: lint
lint: $(STAMP)  ## check style and the order of imports
	@$(PY) -m flake8 .
	@$(PY) -m isort --check-only --diff --quiet .

.PHONY: benchmark
benchmark: $(STAMP)  ## measure updates per second and compile time
	@$(PY) -m experiments.benchmark --suite=offline_rl

.PHONY: smollm2
smollm2: $(STAMP)  ## fetch SmolLM2-135M-Instruct, a chat model, into the data cache (93 MB)
	@$(PY) -m rl_jax.language.smollm2

.PHONY: lock
lock:  ## write requirements.lock again from setup.cfg (needs uv; LOCK_FLAGS=--upgrade takes the newest versions)
	@$(UV) pip compile --universal --python-version 3.11 --no-emit-index-url --custom-compile-command "make lock" --quiet \
		--extra mujoco --extra adroit --extra metaworld --extra atari --extra minigrid --extra datasets --extra analysis --extra generative --extra language --extra science --extra slurm --extra notebooks --extra test $(LOCK_FLAGS) --output-file requirements.lock setup.cfg

.PHONY: clean
clean:  ## remove .venv and the caches; runs/ stays
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache
	@find rl_jax experiments configs tests -type d -name __pycache__ -prune -exec rm -rf {} +
