# Two commands on a fresh machine with python3 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := smalti/ops/kernels/native.so

PEERS := .venv-peers
SCALE := .venv-scale

.PHONY: browser emoji demo test test-kernels test-slow test-scale sanitize fuzz check lint types format clean peers bench bench-quality bench-graphs interop release docs

demo: $(STAMP)  ## train a dVAE and a text-to-image transformer on the bundled emoji, evaluate both, sample
	$(BIN)/smalti demo --out runs/demo

# A process for every core, each with one thread: files are shared out whole
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
test: $(STAMP) $(NATIVE)  ## the default test suite; `make test WORKERS=0` in one process
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder -rs

test-scale: $(SCALE)/.installed  ## code shards by Daft and Ray, and read by others, in an environment of their own
	OMP_NUM_THREADS=1 $(SCALE)/bin/python -m pytest tests/scale

# Daft wants an older pyarrow and an older tqdm than those that are tested elsewhere
$(SCALE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SCALE)
	grep -vE '^(pyarrow|tqdm)=' constraints.txt > $(SCALE)/constraints.txt
	$(SCALE)/bin/python -m pip install --quiet --disable-pip-version-check -c $(SCALE)/constraints.txt torch==2.13.0 numpy
	$(SCALE)/bin/python -m pip install --quiet --disable-pip-version-check -c $(SCALE)/constraints.txt \
	  -e '.[data,scale,streams]' 'pytest>=8' pandas duckdb
	touch $@

emoji: $(STAMP) $(NATIVE)  ## the models of the package, trained from scratch and evaluated: about half an hour of one core
	OMP_NUM_THREADS=1 $(BIN)/python tools/emoji_models.py

browser: $(STAMP)  ## onnxruntime-web, 33 MB from the npm registry, once: the tests of the studio need it, and Chromium
	$(BIN)/python -c "from smalti.studio.runtime import runtime; runtime()"

KERNEL_TESTS := tests/ops tests/priors tests/codec tests/laws/test_priors.py
AVAILABLE = "from smalti.ops.native import VARIANTS, load; print(*filter(load, VARIANTS), 'off')"

test-kernels: $(STAMP) $(NATIVE)  ## what meets the kernels, with every variant that this machine has and without
	@variants="$$($(BIN)/python -c $(AVAILABLE))"; echo "kernels on this machine: $$variants"; \
	printf '%s\n' $$variants | OMP_NUM_THREADS=1 xargs -P 2 -I{} sh -c 'out=$$(SMALTI_KERNELS={} $(BIN)/python -m pytest \
	  -p no:cacheprovider $(KERNEL_TESTS) 2>&1) && echo "SMALTI_KERNELS={} passed" || { echo "$$out"; echo "SMALTI_KERNELS={} FAILED"; exit 1; }'

# tests/ops goes through the variants itself, odd calls among it; a finding ends the process
SANITIZED := build/sanitized/$(NATIVE)
sanitize: $(STAMP) $(NATIVE)  ## the kernels under AddressSanitizer and UndefinedBehaviorSanitizer; needs gcc, takes minutes
	SMALTI_SANITIZE=1 $(BIN)/python setup.py --quiet build_ext --build-lib build/sanitized --build-temp build/sanitized
	@variants="$$($(BIN)/python -c $(AVAILABLE))"; export SMALTI_KERNELS_FILE="$$PWD/$(SANITIZED)" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2; \
	preload="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"; \
	check() { echo "SMALTI_KERNELS=$$1 $$2"; SMALTI_KERNELS=$$1 LD_PRELOAD="$$preload" \
	  $(BIN)/python -m pytest -q -p no:cacheprovider --capture=sys $$2 || exit 1; }; \
	check auto tests/ops; \
	for variant in $$variants; do [ $$variant = off ] || \
	  check $$variant "$(filter-out tests/ops,$(KERNEL_TESTS))"; done

FUZZ := images=100000 archives=100000 archives_deep=100000 configs=20000 weights=10000 texts=10000 codes_files=10000 folders=20000 tables=50000 foreign=50000
fuzz: $(STAMP) $(NATIVE)  ## mutated files and folders, killed runs: long; `make fuzz FUZZ=archives=1000`
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.run $(FUZZ)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.kills
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.requests

test-slow: $(STAMP) $(NATIVE)  ## what takes minutes: every bottleneck and estimator on 2 and 3 processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

check: lint types docs test test-kernels test-slow test-scale  ## everything that CI runs but `make release`

lint: $(STAMP)  ## style, and docstrings of everything public
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and pinned, so that nothing else chooses another build
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

$(NATIVE): setup.py $(wildcard smalti/ops/kernels/*.[ch]) | $(STAMP)  ## anew after an update
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch -c $@

THREADS := 2
BESIDE_PEERS := lookup gumbel training_step encode sampling export
ALONE := data_loading imports process against validation precision profile_step large_images scaling code_shards server

# DATA is a folder with photos-*.parquet and cifar10-*.parquet; without it `make bench` leaves the quality out
bench: $(BESIDE_PEERS:%=bench-%) $(ALONE:%=bench-%) $(if $(DATA),bench-quality)  ## everything, then the tables; about an hour
	$(BIN)/python tools/tables.py

$(BESIDE_PEERS:%=bench-%): bench-%: $(PEERS)/.installed  ## one of them; `make bench-lookup THREADS=1`
	PYTHONPATH=.:benchmarks OMP_NUM_THREADS=$(THREADS) $(PEERS)/bin/python benchmarks/$*.py

$(ALONE:%=bench-%): bench-%: $(STAMP)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python benchmarks/$*.py

bench-quality: $(PEERS)/.installed  ## decibels for seconds; `make bench-quality DATA=DIR`
	@[ -n "$(DATA)" ] || { echo "bench-quality: name the folder of photos-*.parquet and cifar10-*.parquet with DATA=DIR"; exit 2; }
	PYTHONPATH=.:benchmarks OMP_NUM_THREADS=1 $(PEERS)/bin/python benchmarks/quality.py --data "$(DATA)"

# SOURCES is a folder of clones of what is not on PyPI: LlamaGen, 1d-tokenizer, minDALL-E, vqgan-jax, Cosmos-Tokenizer
interop: $(STAMP) $(PEERS)/.installed  ## converted models beside the originals; `make interop SOURCES=DIR`
	OMP_NUM_THREADS=1 $(PEERS)/bin/python -m benchmarks.originals --out build/interop $(if $(SOURCES),--sources "$(SOURCES)")
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/interop.py --files build/interop
	$(BIN)/python tools/tables.py

bench-interop: $(PEERS)/.installed  ## the speed of VQGAN f16 at full size beside taming's code
	PYTHONPATH=.:benchmarks OMP_NUM_THREADS=$(THREADS) $(PEERS)/bin/python benchmarks/interop.py --speed

# PHOTOS is a folder of photographs, PNG or JPEG
bench-graphs: $(STAMP)  ## exported graphs beside smalti, in onnxruntime; `make bench-graphs PHOTOS=DIR`
	@[ -n "$(PHOTOS)" ] || { echo "bench-graphs: name a folder of photographs with PHOTOS=DIR"; exit 2; }
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/graphs.py "$(PHOTOS)"
	$(BIN)/python tools/tables.py

peers: $(PEERS)/.installed  ## other projects, to measure beside: never in the same environment as smalti's own

$(PEERS)/.installed: benchmarks/peers.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 numpy setuptools
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt transformers safetensors pillow tqdm
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers.txt
	$(PEERS)/bin/python setup.py --quiet build_ext --inplace
	touch $@

docs: $(VENV)/.docs  ## the site of the pages, in build/docs; a warning is an error
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html -c docs . build/docs
	@echo wrote build/docs/index.html

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# HOME_URL is the project's address, PYTHONS the interpreters to install the wheels with
RELEASE := .venv-release
release: $(RELEASE)/.installed  ## a source archive and two wheels, checked, in dist/; uploads nothing
	$(RELEASE)/bin/python tools/release.py --home "$(HOME_URL)" --pythons $(PYTHONS)

$(RELEASE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77' 'build>=1.2' 'twine>=6' 'auditwheel>=6.1'
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(SCALE) $(RELEASE) runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
