#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME each (go test takes one target at a time).
set -euo pipefail
cd "$(dirname "$0")/.."
for package in $(go list ./...); do
	for target in $(POP3_INTEROP=off go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "== $package $target"
		POP3_INTEROP=off go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-3s}" "$package"
	done
done
