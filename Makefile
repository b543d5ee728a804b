# Thin targets over CMake presets (CMakePresets.json); `make help` lists them.
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
# Progress on a terminal, silence in a log.
QUIET := $(if $(MAKE_TERMOUT),,-- --quiet)
# $(call configure,PRESET): silent unless it fails.
configure = @mkdir -p build && cmake --preset $(1) > build/configure-$(1).log 2>&1 || \
	{ cat build/configure-$(1).log >&2; exit 2; }

.DEFAULT_GOAL := build
.PHONY: help build demo test install format tidy sanitize fuzz bench counts python-env python-test parity clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/  make \1\t\2/p' Makefile | expand -t 22

build:  ## the program: build/release/samebits
	@tools/install_dependencies.sh build
	$(call configure,release)
	@cmake --build --preset release -j $(JOBS) --target samebits $(QUIET)

demo: build  ## a ported model is judged, twice, in under a minute
	@tools/demo.sh build/release/samebits

test:  ## builds everything and runs all tests that need no Python
	@tools/install_dependencies.sh build
	$(call configure,release)
	@cmake --build --preset release -j $(JOBS) $(QUIET)
	@ctest --preset release -j $(JOBS)

install: build  ## into PREFIX (/usr/local); DESTDIR is respected
	@cmake --install build/release --prefix $(PREFIX)

format:  ## clang-format on all C++ files
	@tools/install_dependencies.sh format
	@git ls-files -z '*.h' '*.cc' | xargs -0 clang-format-14 -i

tidy:  ## clang-tidy on all C++ files
	@tools/install_dependencies.sh build tidy
	$(call configure,release)
	@tools/tidy.py build/release $(JOBS)

sanitize:  ## all tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/install_dependencies.sh build
	$(call configure,dev)
	@cmake --build --preset dev -j $(JOBS) $(QUIET)
	@ctest --preset dev -j $(JOBS)

fuzz:  ## a short run of every libFuzzer target (SECONDS_EACH=20)
	@tools/install_dependencies.sh build fuzz
	$(call configure,fuzz)
	@cmake --build --preset fuzz -j $(JOBS) $(QUIET)
	@tools/fuzz.sh build/fuzz $(or $(SECONDS_EACH),20)

bench:  ## builds the benchmarks: build/bench/bench
	@tools/install_dependencies.sh build bench
	$(call configure,bench)
	@cmake --build --preset bench -j $(JOBS) $(QUIET)
	@echo "the benchmarks are in build/bench/bench; docs/performance.md says how they are run"

counts: build  ## instructions of the hot loops, by valgrind, against those recorded
	@tools/install_dependencies.sh counts
	@tools/instruction_counts.py build/release/samebits

python-env:  ## build/venv with torch, transformers and jax
	@tools/install_dependencies.sh python
	@tools/python_env.sh build/venv

python-test: test python-env  ## tests of the Python package, of planted bugs, of real weights
	@tools/python_test.sh build/venv

parity: build python-env  ## transformers against a replay, component by component: docs/parity.md
	@tools/parity.sh build/venv

clean:  ## removes build/ but for the Python environment and downloaded models
	@rm -rf build/release build/dev build/fuzz build/bench build/demo build/ci build/*.log
