# `make demo` and `make test` set up all they need: a virtual environment in .venv, made once and used again.
PYTHON ?= python3
VENV := .venv
TPU := .venv-tpu
BIN := $(VENV)/bin
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export TF_CPP_MIN_LOG_LEVEL ?= 2
# On a CPU XLA asks for its temporaries anew each step; keeping freed memory saves 13-23 % of the demo's step.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296
export MALLOC_TOP_PAD_ ?= 268435456

.PHONY: install demo test lint fuzz faults compile long

install: $(VENV)/.installed

# What the project needs, for `make demo`; and what its tests need besides, peers to compare with among it.
$(VENV)/.installed: setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("cc_jax needs Python >= 3.11, and $(PYTHON) is %d.%d; name another with: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

# Plain SigLIP against the concept losses on the embedded dataset; the result is demo/report.html and demo/report.png.
demo: install
	$(BIN)/python -m cc_jax.tools.demo --out demo

# By two processes; one that has nothing left to do takes over tests of the other.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

# All that reads files of strangers, for so many seconds; inputs that do what must not happen are kept in tests/fuzz/seeds.
SECONDS ?= 3600
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz $(SECONDS)

# 20 000 tiny steps with evaluations and checkpoints, in a new workdir: memory, threads, files and logs must not grow.
long: $(VENV)/.installed-dev
	folder=$$(mktemp -d) && $(BIN)/python -m cc_jax.data.prepare --source shapes:scenes=300 --out $$folder/shapes \
		&& $(BIN)/python tests/long_run.py --data $$folder/shapes --workdir $$folder/run && rm -r $$folder

# Everything that can go wrong with a run, 200 kills at random moments among it: an hour or so on two CPU cores.
faults: $(VENV)/.installed-dev
	CC_JAX_FAULTS=all $(BIN)/python -m pytest -s tests/faults

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

# The main config's step, compiled for a small slice by the TPUs' own compiler, which lies beside .venv, on top of it. Its
# lesser effort halves the time.
compile: $(TPU)/.installed
	JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 $(TPU)/bin/python -m cc_jax.tools.compile --config configs/siglip_b16_cc.py:batch_size=16 --topology v5e:2x2

$(TPU)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(TPU)
	$(TPU)/bin/python -c 'import pathlib, site, sys; (pathlib.Path(site.getsitepackages()[0]) / "beside.pth").write_text(sys.argv[1])' "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	$(TPU)/bin/pip install --quiet 'jax[tpu]'
	@touch $@
