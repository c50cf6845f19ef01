# make test runs everything that has to be green. Real servers come from Debian's packages where that can be done:
# POP3_INTEROP=off leaves them out, =on skips those that are not to be had, =require fails where one is missing.

GO          ?= go
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
NESTED      := $(patsubst ./%/go.mod,%,$(shell find . -mindepth 2 -name go.mod -not -path '*/testdata/*' | sort))
FUZZTIME    ?= 3s

export POP3_INTEROP ?= on
export GOTOOLCHAIN  ?= local

.PHONY: test fmt vet staticcheck cross unit interop nested fuzz-short fuzz releases bench

test: fmt vet staticcheck cross unit nested fuzz-short interop
	@echo 'all green'

fmt:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }

vet:
	$(GO) vet ./...

staticcheck:
	$(STATICCHECK) ./...

# Other systems are built and vetted, not run; except for 32 bits, where sizes must have 64 all the same.
cross:
	@if [ "$$(uname -sm)" = 'Linux x86_64' ]; then \
		GOARCH=386 CGO_ENABLED=0 $(GO) test -short . ./sasl ./pop3test; \
	else echo 'NOT RUN: tests on 386, which need Linux on x86_64'; fi
	GOOS=darwin  GOARCH=arm64 $(GO) vet . ./sasl ./pop3test
	GOOS=windows GOARCH=amd64 $(GO) vet . ./sasl ./pop3test
	GOOS=linux   GOARCH=386   $(GO) vet . ./sasl ./pop3test

unit:
	POP3_INTEROP=off $(GO) test -race ./...

interop:
	$(GO) test -count 1 -v ./internal/interop
	$(GO) test -count 1 -v -run '^TestReal' ./fetch
	cd cmd/popfetch && $(GO) test -count 1 -v -run '^TestDovecot' .

nested:
	@set -e; for module in $(NESTED); do \
		echo "== $$module"; \
		(cd $$module && $(GO) vet ./... && $(STATICCHECK) ./... && POP3_INTEROP=off $(GO) test -race ./...); \
	done

# Each fuzz target for a moment; fuzz is for an hour.
fuzz-short:
	@FUZZTIME=$(FUZZTIME) ./internal/fuzzall.sh

fuzz:
	@FUZZTIME=$${FUZZTIME:-5m} ./internal/fuzzall.sh

# The two current releases of Go.
releases:
	set -e; for release in go1.26.8 go1.27.3; do GOTOOLCHAIN=$$release $(GO) test -short ./...; done

bench:
	$(MAKE) -C benchmarks bench
