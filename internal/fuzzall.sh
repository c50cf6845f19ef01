#!/usr/bin/env bash
# Runs each fuzz target of the module for FUZZTIME. go test can run only one target at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
git grep -o --untracked '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | while IFS=: read -r file target; do
	package=./$(dirname "$file")
	target=${target#func }
	echo "== $package $target"
	POP3_INTEROP=off go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-3s}" "$package" </dev/null
done
