#!/usr/bin/env bash
# Builds Gitea and its runner into a folder: gitea.sh FOLDER. Neither can be built by go install: modules with
# replace directives, or without a list of versions, are required by a throw-away module instead.
set -euo pipefail
into=$1
mkdir -p "$into"

# program NAME MODULE VERSION TAGS
program() {
	[ ! -x "$into/$1" ] || return 0
	local work source
	work=$(mktemp -d)
	source=$(cd "$work" && go mod download -json "$2@$3" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	{
		echo 'module tool.invalid/x'
		grep '^go ' "$source/go.mod"
		echo "require $2 $3"
		sed -n '/^require/,/^)/p' "$source/go.mod"
		sed -n '/^replace /p; /^replace (/,/^)/p' "$source/go.mod"
	} >"$work/go.mod"
	cp "$source/go.sum" "$work/"
	printf '//go:build tools\n\npackage t\n\nimport _ "%s"\n' "$2" >"$work/t.go"
	(cd "$work" && go mod download "$2" && go build -mod=mod -tags "$4" -o "$into/$1" "$2")
	if [ "$1" = gitea ]; then # what it reads at run time
		mkdir -p "$into/static" && cp -r "$source"/{options,templates,public} "$into/static/" && chmod -R u+w "$into/static"
	fi
	rm -rf "$work"
}
program gitea-runner gitea.com/gitea/runner v1.0.8 ''
program gitea code.gitea.io/gitea v1.26.0 'sqlite sqlite_unlock_notify'
