# make test runs everything that has to be green. Real servers come from Debian's packages where that can be done:
# POP3_INTEROP=off leaves them out, =on skips those that are not to be had, =require fails where one is missing.

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

# At most 120 columns, of which a tab takes 4. In the C locale a character is counted by its first octet.
lines:
	@git ls-files -z '*.go' | LC_ALL=C xargs -0 awk '{ line = $$0; gsub(/\t/, "    ", line); gsub(/[\200-\277]/, "", line) } \
		length(line) > 120 { print FILENAME ":" FNR ": " length(line) " columns"; long = 1 } END { exit long }'

vet:
	$(GO) vet ./...

staticcheck:
	$(STATICCHECK) ./...

# Other systems are built and vetted, not run; except for 32 bits, where sizes must have 64 all the same.
cross:
	@if GOARCH=386 CGO_ENABLED=0 $(GO) test -run '^$$' ./internal/crlf >/dev/null 2>&1; then \
		GOARCH=386 CGO_ENABLED=0 $(GO) test -short . ./internal/conformance ./sasl ./pop3test; \
	else echo 'NOT RUN: tests on 386, whose programs this machine does not run'; fi
	@set -e; for platform in $(PLATFORMS); do \
		echo "== $$platform"; \
		(export GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		$(GO) vet . ./internal/conformance ./sasl ./pop3test ./fetch ./examples/...; cd cmd/popfetch && $(GO) vet ./...); \
	done

# Without go.work, so that the versions are those of go.mod, which users get.
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

# Each fuzz target for some thousand inputs, and not for a time: at the end of one, go test takes its own deadline for a
# failure now and then. fuzz is for an hour.
fuzz-short:
	@FUZZTIME=$(FUZZTIME) ./internal/fuzzall.sh

fuzz:
	@FUZZTIME=$${FUZZTIME:-5m} ./internal/fuzzall.sh

# The source is broken in one place at a time, and some test has to fail: everywhere, or in places that are drawn
# anew for each commit, where a survivor is only reported, and so is one that was not killed in MUTATE_TIME.
# internal/mutate/survivors.txt has the places where a mutation does no harm.
mutate:
	$(GO) run ./internal/mutate

mutate-short:
	@timeout $(MUTATE_TIME) $(GO) run ./internal/mutate -sample $(MUTATIONS) -seed "$$(git rev-parse HEAD)" || \
	case $$? in \
	124) echo 'NOT FINISHED: the mutation after $(MUTATE_TIME), in which no test failed' ;; \
	*) echo 'a mutation survived: it needs a test, or a line in internal/mutate/survivors.txt' ;; \
	esac

# The two current releases of Go: all tests run with the one that is installed, and here those of what users import with
# the other.
releases:
	@set -e; for release in $(RELEASES); do \
		if [ "$$release" = "$$($(GO) env GOVERSION)" ]; then continue; fi; \
		if ! GOTOOLCHAIN=$$release $(GO) version; then echo "NOT RUN: $$release, which is not to be had"; continue; fi; \
		(export GOTOOLCHAIN=$$release POP3_INTEROP=off; $(GO) vet ./...; \
		$(GO) test -short . ./sasl ./pop3test ./fetch ./internal/conformance); \
	done

# make apidiff BASE=v0.1.0 says what has changed for importers since a tag, and what of it breaks them.
apidiff:
	@set -e; dir=$$(mktemp -d); trap 'git worktree remove --force $$dir/base; rm -r $$dir' EXIT; \
	git worktree add -q --detach $$dir/base $(BASE); \
	(cd $$dir/base && $(APIDIFF) -w $$dir/old $(MODULE)); \
	$(APIDIFF) $$dir/old $(MODULE)

# make gorelease BASE=v0.1.0 VERSION=v0.2.0 says whether a version may have that number. BASE comes from the module proxy.
gorelease:
	$(GO) run $(EXP)/gorelease@$(EXP_VERSION) -base=$(BASE) -version=$(VERSION)

bench:
	$(MAKE) -C benchmarks bench
