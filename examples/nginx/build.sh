#!/bin/sh
# Builds the program: build.sh VERSION. It is examples/shop.
set -eu
cd "$(dirname "$0")"
CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$1 -X main.does=${DOES:-work}" -o app ../shop/main.go
