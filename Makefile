# make test runs all checks and tests. Tests with real servers fetch the servers from Debian's packages. POP3_INTEROP
# selects these tests: off skips all of them, on skips those whose server is not available, and require fails then.

GO          ?= go
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
NESTED      := $(patsubst ./%/go.mod,%,$(shell find . -mindepth 2 -name go.mod -not -path '*/testdata/*' | sort))
FUZZTIME    ?= 3000x
MUTATIONS   ?= 1
MUTATE_TIME ?= 60s
RELEASES    := go1.26.8 go1.27.3
PLATFORMS   := linux/386 darwin/arm64 windows/amd64 freebsd/amd64
EXP         := golang.org/x/exp/cmd
EXP_VERSION := v0.0.0-20261014143641-f0251eb4aa3e
APIDIFF     := $(GO) run $(EXP)/apidiff@$(EXP_VERSION) -m
MODULE      := $(shell $(GO) list -m)

export POP3_INTEROP ?= on
export GOTOOLCHAIN  ?= local

.PHONY: test fmt lines vet staticcheck cross unit interop nested fuzz-short fuzz releases apidiff gorelease bench
.PHONY: mutate mutate-short

test: fmt lines vet staticcheck cross unit releases nested fuzz-short mutate-short interop
	@echo 'all green'

fmt:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }

# A line has at most 120 columns. A tab counts as 4 columns. In the C locale awk counts octets, so the continuation
# octets of UTF-8 are removed first.
lines:
	@git ls-files -z '*.go' | LC_ALL=C xargs -0 awk '{ line = $$0; gsub(/\t/, "    ", line); gsub(/[\200-\277]/, "", line) } \
		length(line) > 120 { print FILENAME ":" FNR ": " length(line) " columns"; long = 1 } END { exit long }'

vet:
	$(GO) vet ./...

staticcheck:
	$(STATICCHECK) ./...

# The code for other systems is vetted but not run, except for 386: sizes must have 64 bits on 32-bit systems too.
cross:
	@if GOARCH=386 CGO_ENABLED=0 $(GO) test -run '^$$' ./internal/crlf >/dev/null 2>&1; then \
		GOARCH=386 CGO_ENABLED=0 $(GO) test -short . ./internal/conformance ./sasl ./pop3test; \
	else echo 'NOT RUN: tests on 386, because this machine cannot run programs for 386'; fi
	@set -e; for platform in $(PLATFORMS); do \
		echo "== $$platform"; \
		(export GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		$(GO) vet . ./internal/conformance ./sasl ./pop3test ./fetch ./examples/...; cd cmd/popfetch && $(GO) vet ./...); \
	done

# GOWORK=off selects the versions in go.mod, which users get, and not those in go.work.
unit:
	GOWORK=off POP3_INTEROP=off $(GO) test -race ./...

interop:
	$(GO) test -count 1 -timeout 20m -v ./internal/interop
	$(GO) test -count 1 -v -run '^TestReal' ./fetch
	cd cmd/popfetch && $(GO) test -count 1 -v -run '^TestDovecot' .

nested:
	@set -e; for module in $(NESTED); do \
		echo "== $$module"; \
		(cd $$module && $(GO) vet ./... && $(STATICCHECK) ./... && POP3_INTEROP=off $(GO) test -race ./...); \
	done

# fuzz-short runs each fuzz target for a number of inputs. With a time in place of the number, go test sometimes reports
# its own deadline as a failure. fuzz runs each target for five minutes, or for FUZZTIME of the environment.
fuzz-short:
	@FUZZTIME=$(FUZZTIME) ./internal/fuzzall.sh

fuzz:
	@FUZZTIME=$${FUZZTIME:-5m} ./internal/fuzzall.sh

# mutate breaks the source in one place at a time; then a test must fail. mutate-short does so in MUTATIONS places, which
# differ from commit to commit. It only reports a mutation that no test finds, or for which MUTATE_TIME is too short.
# internal/mutate/survivors.txt lists the mutations that do no harm.
mutate:
	$(GO) run ./internal/mutate

mutate-short:
	@timeout $(MUTATE_TIME) $(GO) run ./internal/mutate -sample $(MUTATIONS) -seed "$$(git rev-parse HEAD)" || \
	case $$? in \
	124) echo 'NOT FINISHED: no test failed within $(MUTATE_TIME)' ;; \
	*) echo 'a mutation survived: it needs a test, or a line in internal/mutate/survivors.txt' ;; \
	esac

# The library supports the two current releases of Go. All tests run with the installed release. This target runs the
# tests of the packages that users import with the other release.
releases:
	@set -e; for release in $(RELEASES); do \
		if [ "$$release" = "$$($(GO) env GOVERSION)" ]; then continue; fi; \
		if ! GOTOOLCHAIN=$$release $(GO) version; then echo "NOT RUN: $$release, which is not available"; continue; fi; \
		(export GOTOOLCHAIN=$$release POP3_INTEROP=off; $(GO) vet ./...; \
		$(GO) test -short . ./sasl ./pop3test ./fetch ./internal/conformance); \
	done

# make apidiff BASE=v0.1.0 prints the changes of the API since a tag, and which of them are incompatible.
apidiff:
	@set -e; dir=$$(mktemp -d); trap 'git worktree remove --force $$dir/base; rm -r $$dir' EXIT; \
	git worktree add -q --detach $$dir/base $(BASE); \
	(cd $$dir/base && $(APIDIFF) -w $$dir/old $(MODULE)); \
	$(APIDIFF) $$dir/old $(MODULE)

# make gorelease BASE=v0.1.0 VERSION=v0.2.0 checks whether a version may have that number. It fetches BASE from the
# module proxy.
gorelease:
	$(GO) run $(EXP)/gorelease@$(EXP_VERSION) -base=$(BASE) -version=$(VERSION)

bench:
	$(MAKE) -C benchmarks bench
