# Leat. `make demo` and `make test` are the two commands that a newcomer needs; they set up what they use.
#
#   make demo    the main job on real data, on an embedded NATS server    (RATE=2000 events a second)
#                KAFKA=1: twice on a Kafka broker of its own: all on Kafka, exactly once; then topics there, lineage on NATS
#   make test    all tests
#   make test-kafka  all of Kafka on three brokers, and its faults
#   make check   formatting, vet, staticcheck, dependency direction, generated files; rewrites nothing
#   make fuzz    every fuzz target, FUZZTIME each
#   make bench   every figure beside its floor, measured in the same run; writes bin/bench.json
#   make build   bin/leat
#   make setup   fetch ONNX Runtime's shared library into the user's cache folder

SHELL       := /bin/bash
GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 5s
RATE        ?= 2000
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export CGO_ENABLED := 1

.PHONY: build setup java demo test test-kafka check fuzz bench crash generate clean

build:
	@mkdir -p bin
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/leat ./cmd/leat

setup: build
	bin/leat doctor --fix --only onnxruntime

ifdef KAFKA
demo: setup java
	integration/kafka/demo.sh $(RATE)
else
demo: setup
	bin/leat demo --rate $(RATE)
endif

# The tests of Kafka run real brokers, whose jars Maven fetches once into the user's cache folder.
java:
	.ci/java

# The race detector is on for everything that is concurrent; the packages of `make test` that are not (codecs, files)
# run without it first, because allocation counts are asserted there.
test: setup java
	$(GO) test -timeout 15m ./...
	$(GO) test -race -short -timeout 15m ./connectors/... ./pipeline/... ./lineage/... ./scorers/...
	cd deploy/check && $(GO) test -count=1 ./...

check:
	.ci/check $(STATICCHECK)

fuzz:
	.ci/fuzz $(FUZZTIME)

bench: setup java
	$(GO) run ./integration/bench

crash: setup
	$(GO) test -timeout 60m ./integration/crash -rounds 300 -v

# The connector, and its contracts, on three brokers (make test: on one), where a topic has three replicas and needs two in
# sync. Then brokers and servers die under load, on one broker and on three.
test-kafka: setup
	.ci/java faketime
	$(GO) test -timeout 30m ./connectors/kafka -kafka.brokers 3
	$(GO) test -timeout 60m ./integration/kafka/faults -full -v

generate: build
	bin/leat pipelines schema > docs/pipeline.schema.json
	bin/leat openapi > docs/openapi.json
	bin/leat docs > docs/cli.md
	$(GO) test -count=1 ./connectors/connectortest -run TestGuarantees -update

clean:
	rm -rf bin
