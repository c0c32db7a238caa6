#!/usr/bin/env bash
# Runs the tests that need real registries. Debian's docker-registry is installed when we may; distribution v3
# is built once from its module and kept in a folder outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${BACKSTEP_CACHE:-$HOME/.cache/backstep}

if ! command -v docker-registry >/dev/null; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends docker-registry >/dev/null
	elif [ "${CI:-}" = true ]; then
		echo "e2e: docker-registry is missing and cannot be installed" >&2
		exit 1
	else
		echo "e2e: skipped: it needs docker-registry (apt-get install docker-registry)"
		exit 0
	fi
fi
distribution=$cache/distribution-v3.1.2/registry
if [ ! -x "$distribution" ]; then
	echo "e2e: building distribution v3.1.2 into $cache (some minutes, once)"
	mkdir -p "$(dirname "$distribution")"
	GOBIN=$(dirname "$distribution") GOFLAGS=-mod=mod go install github.com/distribution/distribution/v3/cmd/registry@v3.1.2
fi
export BACKSTEP_E2E=1 BACKSTEP_DISTRIBUTION=$distribution
go test -count=1 -run E2E ./...
