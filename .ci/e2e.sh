#!/usr/bin/env bash
# Runs the tests that need real parts. Debian's packages are installed when we may; distribution v3 is built once
# from its module and kept in a folder outside the checkout; a Docker engine is started when none answers.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${BACKSTEP_CACHE:-$HOME/.cache/backstep}

missing=()
for need in docker-registry:docker-registry dockerd:docker.io haproxy:haproxy busybox:busybox-static; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	elif [ "${CI:-}" = true ]; then
		echo "e2e: missing, and cannot be installed: ${missing[*]}" >&2
		exit 1
	else
		echo "e2e: skipped: it needs apt-get install ${missing[*]}"
		exit 0
	fi
fi

distribution=$cache/distribution-v3.1.2/registry
if [ ! -x "$distribution" ]; then
	echo "e2e: building distribution v3.1.2 into $cache (some minutes, once)"
	mkdir -p "$(dirname "$distribution")"
	GOBIN=$(dirname "$distribution") go install github.com/distribution/distribution/v3/cmd/registry@v3.1.2
fi

export DOCKER_API_VERSION=${DOCKER_API_VERSION:-1.41} # what Debian's engine speaks
work=$(mktemp -d)
stop() {
	[ -z "${engine:-}" ] || { kill "$engine" && wait "$engine" || true; }
	rm -rf "$work"
}
trap stop EXIT
if ! docker version >/dev/null 2>&1; then
	dockerd >"$work/dockerd.log" 2>&1 &
	engine=$!
	for _ in $(seq 300); do
		docker version >/dev/null 2>&1 && break
		kill -0 "$engine" 2>/dev/null || { cat "$work/dockerd.log" >&2; exit 1; }
		sleep 0.1
	done
	docker version >/dev/null || { cat "$work/dockerd.log" >&2; exit 1; }
fi

bash .ci/image.sh backstep:e2e
BACKSTEP_E2E=1 BACKSTEP_TEST_IMAGE=backstep:e2e BACKSTEP_DISTRIBUTION=$distribution go test -count=1 -run E2E ./...
