# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` need Go, git and make only. The tools of lint, gen and verify are pinned in tools/go.mod.

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help

export GOTOOLCHAIN := local
export GOFLAGS     := -mod=readonly -buildvcs=false

GO       ?= go
MODULE   := github.com/connectsoft/plumbline
TOOL     := $(GO) tool -modfile=tools/go.mod
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X main.version=$(VERSION)
IMAGE    ?= plumbline:$(VERSION)
FUZZTIME ?= 20s
STATE    ?= .plumbline

# Every Go file that people write.
SOURCES = $(shell git ls-files -co --exclude-standard -- '*.go' ':!*.pb.go' ':!*.gen.go' | while read -r f; do [ -f "$$f" ] && echo "$$f"; done)

.PHONY: help
help: ## what there is to make
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/plumbline, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/plumbline ./cmd/plumbline

.PHONY: demo
demo: build ## build, start a daemon, play the whole story, check every step
	bin/plumbline demo

.PHONY: run
run: build ## a daemon on 127.0.0.1 with its state in .plumbline, until Ctrl-C
	bin/plumbline serve --state-dir $(STATE)

.PHONY: test
test: ## all tests, without cgo
	CGO_ENABLED=0 $(GO) test -timeout 8m ./...

.PHONY: race
race: ## all tests, shuffled, under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -shuffle=on -timeout 20m ./...

.PHONY: lint
lint: lint-format ## format, vet, staticcheck
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet -tags bench ./cmd/plumbline
	CGO_ENABLED=0 $(GO) vet -tags 'chaos failpoint' ./cmd/plumbline
	CGO_ENABLED=0 $(TOOL) staticcheck ./...

.PHONY: lint-format
lint-format:
	@bad=$$(gofmt -l $(SOURCES); $(TOOL) gofumpt -l $(SOURCES)); \
	if [ -n "$$bad" ]; then echo "not formatted (run: make format):"; echo "$$bad" | sort -u; exit 1; fi

.PHONY: format
format: ## write every file as gofumpt wants it
	$(TOOL) gofumpt -w $(SOURCES)

.PHONY: vuln
vuln: ## known vulnerabilities in what is linked (asks vuln.go.dev)
	$(TOOL) govulncheck ./...

.PHONY: gen
gen: gen-api gen-proto gen-schemas ## write all generated files again

.PHONY: gen-api
gen-api:
	$(TOOL) oapi-codegen -config api/oapi-codegen.yaml api/openapi.yaml

.PHONY: gen-proto
gen-proto:
	@command -v protoc >/dev/null || { echo "protoc is missing: apt-get install protobuf-compiler (3.21.12)"; exit 1; }
	@mkdir -p .cache/bin
	$(GO) build -modfile=tools/go.mod -o .cache/bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	PATH="$$PWD/.cache/bin:$$PATH" protoc -I api/pb --go_out=. --go_opt=module=$(MODULE) \
		--go-grpc_out=. --go-grpc_opt=module=$(MODULE) api/pb/plumbline/v1/*.proto

.PHONY: gen-schemas
gen-schemas:
	CGO_ENABLED=0 $(GO) test ./desired -run '^TestSchemas$$' -count 1 -rewrite

# Each pass of verify leaves the tree as it was, or fails.
.PHONY: verify
verify: ## format, lint, tidy and generate change nothing
	@$(MAKE) --no-print-directory verify-clean
	@for pass in format tidy gen; do \
		echo "verify: $$pass"; $(MAKE) --no-print-directory $$pass; \
		$(MAKE) --no-print-directory verify-clean WHAT="after make $$pass: commit what it changed"; \
	done
	@echo "verify: lint"; $(MAKE) --no-print-directory lint

.PHONY: verify-clean
verify-clean:
	@if [ -n "$$(git status --porcelain)" ]; then echo "the tree is not clean $(WHAT)"; git status --short; git diff | head -40; exit 1; fi

.PHONY: tidy
tidy: ## go.mod and go.sum as the imports want them
	$(GO) mod tidy
	cd tools && $(GO) mod tidy

.PHONY: bench
bench: ## one line a goal: name, figure, bar, ok or short
	@mkdir -p .cache
	CGO_ENABLED=0 $(GO) test -tags bench -run '^TestBench' -v -count 1 -timeout 30m ./cmd/plumbline | tee .cache/bench.log
	@grep -P '\t(ok|short)$$' .cache/bench.log

.PHONY: chaos
chaos: ## the real daemon killed at every failpoint under load (CHAOS_KILLS, 500; CHAOS_SEED replays)
	@mkdir -p .cache
	CGO_ENABLED=0 $(GO) test -tags 'chaos failpoint' -run 'Chaos|Failpoint' -v -count 1 -timeout 60m ./cmd/plumbline | tee .cache/chaos.log
	@grep -P '\t(ok|short)$$' .cache/chaos.log

.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME (20s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r f; do \
		grep -oE '^func Fuzz[A-Za-z0-9_]+' "$$f" | awk '{ print $$2 }' | while read -r name; do \
			echo "fuzz: $$(dirname "$$f") $$name"; \
			CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$f")"; \
		done; \
	done

.PHONY: image
image: ## a container image from the Dockerfile (needs docker)
	@command -v docker >/dev/null || { echo "docker is not installed; bin/plumbline of make build is all that the image holds besides git"; exit 1; }
	docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

.PHONY: clean
clean: ## remove what make built (not .plumbline, which holds state)
	rm -rf bin .cache
