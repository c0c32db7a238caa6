#!/usr/bin/env bash
# Runs every fuzzer of the repository for some time each, one after the other: .ci/fuzz.sh [TIME, 1m by default]. What it finds is
# written to testdata/fuzz of the package: commit that as a seed, with what mends it.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-1m}
failed=0
fuzzers=$(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' internal cmd | wc -l)
ran=0
for package in $(grep -rlE --include='*_test.go' '^func Fuzz' internal cmd | xargs -n 1 dirname | sort -u); do
  for fuzzer in $(grep -hoE '^func Fuzz[A-Za-z0-9]+' "$package"/*_test.go | sed 's/func //'); do
    echo "== ./$package $fuzzer"
    go test "./$package" -run '^$' -fuzz "^$fuzzer\$" -fuzztime "$time" || failed=1
    ran=$((ran + 1))
  done
done
test "$ran" = "$fuzzers" || { echo "ran $ran of $fuzzers fuzzers" >&2; exit 1; }
exit "$failed"
