# Everything a person or a machine does with this tree. "make" lists it.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# The go command uses every core by itself, and "deps" must come before "build".
.NOTPARALLEL:

COMMANDS  := $(patsubst cmd/%/main.go,%,$(wildcard cmd/*/main.go))
PROVIDERS := $(filter-out internal hostile yara,$(patsubst providers/%/main.go,%,$(wildcard providers/*/main.go)))
HOSTILE   := $(patsubst providers/hostile/%/main.go,%,$(wildcard providers/hostile/*/main.go))
GO_BUILD  := CGO_ENABLED=0 go build -trimpath
TOOLS     := $(or $(XDG_CACHE_HOME),$(HOME:%=%/.cache),/var/tmp)/keepout-tools

# What a fresh Debian lacks: clamd and libyara are engines of shipped providers; gcc links libyara and the race
# detector; python3, bindfs and fuse3 stage a vendor in another language and a slow file system for the tests, and
# grub-common checks what is written for GRUB.
ENGINES := clamav-daemon libyara-dev gcc libc6-dev pkg-config
DEBIAN  := $(ENGINES) python3 bindfs fuse3 grub-common
# What "make test-vm" boots machines with.
MACHINES := qemu-system-x86 ovmf mtools fdisk cpio grub-pc-bin systemd-boot-efi shim-signed sbsigntool mmdebstrap
INSTALL := apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
IS_ROOT  = $(filter 0,$(shell id -u))
lacking  = $(filter-out $(shell dpkg-query -W -f '$${db:Status-Abbrev}=$${Package}\n' $(1) 2>/dev/null | sed -n 's/^ii *=//p'),$(1))

# Asked when used: "make deps" may have just installed them.
HAVE_GCC  = $(shell command -v gcc)
HAVE_YARA = $(and $(HAVE_GCC),$(wildcard /usr/include/yara.h /usr/local/include/yara.h))

##@ Build and run

.PHONY: help build yara run deps deps-vm install-engines generate check-generate clean FORCE

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

build: $(COMMANDS:%=bin/%) $(PROVIDERS:%=bin/providers/%) $(HOSTILE:%=bin/hostile/%) yara ## everything into bin/

$(COMMANDS:%=bin/%): bin/%: FORCE
	$(GO_BUILD) -o $@ ./cmd/$*

# It travels in an image of bounded size: nothing is inlined but where the first picture is drawn.
bin/keepout-rescue: private GO_BUILD += -ldflags='-s -w' -gcflags=all=-l -gcflags=image/...= \
	-gcflags=golang.org/x/image/...= -gcflags=./internal/crashscreen= -tags nethttpomithttp2

$(PROVIDERS:%=bin/providers/%) bin/providers/yara: bin/providers/%: bin/keepout FORCE
	@mkdir -p $@
	$(GO_BUILD) -o $@/keepout-$* ./providers/$*
	@cp providers/$*/provider.yaml $(wildcard providers/$*/selftest.*) $@/
	bin/keepout provider seal $@

# Those that misbehave on purpose, for "keepout drill": beside bin/providers, so that nobody configures one by mistake.
$(HOSTILE:%=bin/hostile/%): bin/hostile/%: bin/keepout FORCE
	@mkdir -p $@
	$(GO_BUILD) -o $@/keepout-$* ./providers/hostile/$*
	@cp providers/hostile/$*/provider.yaml $@/provider.yaml
	bin/keepout provider seal $@

# The only engine that links a C library; without that library everything else builds as ever.
bin/providers/yara: private GO_BUILD := CGO_ENABLED=1 go build -trimpath -tags yara
yara: FORCE
	@$(if $(wildcard providers/yara/main.go),$(if $(HAVE_YARA),$(MAKE) bin/providers/yara,\
		echo "yara: not built, libyara and gcc are not installed: sudo make install-engines"))

run: build ## show it working on this machine: bin/keepout demo (as root)
	@bin/keepout demo

deps: ## install what this Debian machine lacks (as root), or say what
	$(call install,$(DEBIAN))

deps-vm: deps # install what boots test machines
	$(call install,$(MACHINES))

install-engines: ## install clamd and libyara only
	$(call install,$(ENGINES))

define install
	@$(if $(call lacking,$(1)),$(if $(IS_ROOT),\
		echo "installing $(call lacking,$(1))" && $(INSTALL) $(call lacking,$(1)),\
		echo "lacking $(call lacking,$(1)): sudo make $@"),\
		echo "all installed: $(1)")
endef

generate: $(PROTOC_TOOLS) ## write the generated code and the OpenAPI document from the .proto files
	$(call protoc,.)
	$(call protoc_fleet,.)

check-generate: $(PROTOC_TOOLS) ## fail when the generated code is not what generate writes
	@$(if $(shell command -v protoc),rm -rf bin/_generated && mkdir -p bin/_generated && $(call protoc,bin/_generated) \
		&& $(call protoc_fleet,bin/_generated) && for f in $(GENERATED); do cmp bin/_generated/$$f $$f || exit 1; done,\
		echo "check-generate: protoc is not installed (Debian: protobuf-compiler 3.21.12)")

PROTOC_TOOLS = $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-connect-go
FLEETPB      = internal/fleet/fleetpb
GENERATED    = wire/keepoutpb/keepout.pb.go $(FLEETPB)/fleet.pb.go $(FLEETPB)/fleetpbconnect/fleet.connect.go \
	$(FLEETPB)/openapi.json

protoc = protoc --plugin=$(TOOLS)/protoc-gen-go -I wire --go_out=$(1) \
	--go_opt=module=github.com/keepout-security/keepout wire/keepout.proto

# The OpenAPI document is made from the same file, with its comments.
protoc_fleet = protoc --plugin=$(TOOLS)/protoc-gen-go --plugin=$(TOOLS)/protoc-gen-connect-go -I internal/fleet \
	--go_out=$(1) --go_opt=module=github.com/keepout-security/keepout \
	--connect-go_out=$(1) --connect-go_opt=module=github.com/keepout-security/keepout internal/fleet/fleet.proto \
	&& mkdir -p $(1)/$(FLEETPB) && protoc -I internal/fleet --include_imports --include_source_info \
	--descriptor_set_out=/dev/stdout internal/fleet/fleet.proto \
	| go run ./internal/fleet/openapi/write > $(1)/$(FLEETPB)/openapi.json

clean: ## remove bin/
	rm -rf bin

##@ Test

LANES   := build vet vet-windows vet-darwin unit sim providers tidy root vm micro icount
RESULTS := bin/results
TALLY    = go run ./internal/tally
GO_TEST  = go test -json $(if $(HAVE_GCC),-race)
YARA_TAG = $(if $(HAVE_YARA),-tags yara)
# What must build for every system: the Linux parts are behind the sensor.
PORTABLE := ./event ./wire/... ./provider/... ./internal/arbiter ./internal/supervisor ./internal/rollback \
	./internal/rollout/... ./internal/durable ./internal/fleet/... ./cmd/keepout-fleet

.PHONY: test test-unit test-sim test-root test-vm test-vm-full lane-vm-full drill-boot bench bench-promises bench-icount bench-profile fuzz lint $(LANES:%=lane-%)

test: deps deps-vm ## every layer this machine can run; the last line counts what ran
	@rm -rf $(RESULTS)
	@$(MAKE) --keep-going $(LANES:%=lane-%) || true
	@$(TALLY) total -dir $(RESULTS) $(LANES)

test-unit: lane-unit lane-tidy ## no root, less than a minute

SEED ?= 1
test-sim: lane-sim ## power cuts and a million steps of a host, from SEED=1

test-root: export KEEPOUT_LANE ?= root
test-root: lane-providers lane-root ## the real kernel and the real engines (as root)

test-vm: export KEEPOUT_LANE ?= vm
test-vm: deps-vm lane-vm ## whole machines that fail to boot and recover (RUN=REGEXP); pictures in bin/vm-artefacts

test-vm-full: export KEEPOUT_LANE ?= vm-full
test-vm-full: deps-vm lane-vm-full ## whole Debian systems that fail to boot and recover, 25 min (RUN=REGEXP; as root)

# The story of a test of test/vm, told while it happens; with a DISPLAY and qemu-system-gui also in a window.
FIRMWARE ?= UEFI
DRILL     = $(CURDIR)/bin/vm-artefacts/TestRecovery$(FIRMWARE)
drill-boot: export KEEPOUT_LANE ?= vm
drill-boot: deps-vm ## a machine that does not start recovers, with pictures: bin/vm-artefacts (FIRMWARE=BIOS)
	@mkdir -p bin; { KEEPOUT_VM_WINDOW='$(DISPLAY)' go test -count=1 -v -timeout 30m -run '^TestRecovery$(FIRMWARE)$$' \
		./test/vm 2>&1; echo $$? > bin/drill-boot.status; } | tee bin/drill-boot.log | sed -n -u 's/^.*story: //p'
	@if [ "$$(cat bin/drill-boot.status)" = 0 ]; then echo "the pictures side by side: $(DRILL)/index.html"; \
		else tail -n 40 bin/drill-boot.log; exit 1; fi

lane-build:
	@$(TALLY) check -dir $(RESULTS) -lane build -- $(MAKE) build

lane-vet:
	@$(TALLY) check -dir $(RESULTS) -lane vet -- go vet $(YARA_TAG) ./...

lane-vet-windows lane-vet-darwin: lane-vet-%:
	@$(TALLY) check -dir $(RESULTS) -lane vet-$* -- env GOOS=$* CGO_ENABLED=0 go vet $(PORTABLE)

lane-unit:
	@$(TALLY) run -dir $(RESULTS) -lane unit -- $(GO_TEST) -timeout 5m \
		$$(go list ./... | grep -vE '/keepout/(test/(root|vm|icount)|providers|internal/(tidy|sim|rollout))(/|$$)')

# Without the race detector: one goroutine plays each history, and there are thousands.
lane-sim:
	@$(TALLY) run -dir $(RESULTS) -lane sim -- sh -c 'go test -json -count=1 -timeout 15m ./internal/rollout/... && \
		go test -json -count=1 -timeout 15m ./internal/sim -args -seed $(SEED)'

lane-providers:
	@$(TALLY) run -dir $(RESULTS) -lane providers -- $(GO_TEST) -timeout 10m $(YARA_TAG) ./providers/...

lane-tidy:
	@$(TALLY) run -dir $(RESULTS) -lane tidy -- go test -json -count=1 ./internal/tidy

# One package after the other: each may fill memory, mark a file system of its own or stop a daemon.
lane-root:
	@$(TALLY) run -dir $(RESULTS) -lane root -- go test -json -count=1 -p 1 -timeout 20m ./test/root/...

# Two machines at a time: each emulates two processors. Those with a whole Debian system take longer than a change can
# wait for, and have a lane of their own.
RUN ?= .
FULL = ^TestRecoveryFull
lane-vm:
	@$(TALLY) run -dir $(RESULTS) -lane vm -- go test -json -count=1 -parallel 2 -timeout 20m -run '$(RUN)' -skip '$(FULL)' \
		./test/vm/...

lane-vm-full:
	@$(TALLY) run -dir $(RESULTS) -lane vm-full -- go test -json -count=1 -parallel 2 -timeout 60m \
		-run '$(if $(filter .,$(RUN)),$(FULL),$(RUN))' ./test/vm/...

# What an operation takes in instructions, against docs/performance/icount-baseline.json.
lane-icount:
	@$(TALLY) run -dir $(RESULTS) -lane icount -- go test -json -count=1 -timeout 100m ./test/icount/...

# Each micro-benchmark once, so that none can rot; one package after the other, as with root. Those of bench take
# minutes and much of the machine: "make bench-promises" and "make bench".
lane-micro:
	@$(TALLY) run -dir $(RESULTS) -lane micro -- go test -json -p 1 -timeout 15m $(YARA_TAG) \
		-run '^$$' -bench . -benchtime 1x $$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u | grep -vx ./bench)

##@ Measure: see docs/performance

BENCH = go test ./bench -run '^$$' -benchtime $(BENCHTIME) -timeout 90m

ROUNDS ?= 5
SCALE  ?= full
ONLY   ?=
OUT    ?= $(CURDIR)/docs/performance
bench: BENCHTIME = 1x
bench: ## compare with everything else, 15 min (ROUNDS=1 SCALE=small OUT=: half a minute, nothing written)
	$(BENCH) -bench '^BenchmarkComparison$$' -args -rounds $(ROUNDS) -scale $(SCALE) -only '$(ONLY)' -out '$(OUT)'

# Those of bench that SPECIFICATION.md names; the others there are in lane-micro. internal/tidy holds that.
PROMISES := Hop|Remembered|Load|Start|CoreLost|Crowd|CrashPending|StoppedScanner|FleetCheckIn|FleetLongPolls|FleetHalt|FleetHaltProcesses
BENCHTIME ?= 1x
bench-promises: ## the other numbers of SPECIFICATION.md (BENCHTIME=10x)
	$(BENCH) -bench '^Benchmark($(PROMISES))$$' -args -scale $(SCALE)

bench-icount: deps-vm ## instructions of an open and an exec against the baseline (UPDATE=1 writes it)
	go test -count=1 ./test/icount -v -timeout 100m -args $(if $(UPDATE),-update)

bench-profile: BENCHTIME = 1x
bench-profile: ## where the core's time goes in a first open: docs/performance/flame.svg
	$(BENCH) -bench '^BenchmarkProfile$$' -args -scale $(SCALE) -out '$(OUT)'

FUZZTIME ?= 10s
fuzz: ## each fuzz target for FUZZTIME=10s
	@grep -rn --include='*_test.go' '^func Fuzz' . | sed 's/^\.\/\(.*\)\/[^/]*:.*func \(Fuzz[A-Za-z0-9_]*\).*/\1 \2/' \
		| while read -r dir target; do \
			go test "./$$dir" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) || exit 1; done

##@ Tools: built from tools/go.mod, kept outside the tree

$(TOOLS)/golangci-lint: PACKAGE := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/protoc-gen-go: PACKAGE := google.golang.org/protobuf/cmd/protoc-gen-go
$(TOOLS)/protoc-gen-connect-go: PACKAGE := connectrpc.com/connect/cmd/protoc-gen-connect-go
$(TOOLS)/%: tools/go.mod tools/go.sum
	go -C tools build -trimpath -o $@ $(PACKAGE)

lint: $(TOOLS)/golangci-lint check-generate ## golangci-lint with .golangci.yml, and the generated code
	$(TOOLS)/golangci-lint run ./...
