#!/bin/sh
# Builds the program of one service: build.sh SERVICE VERSION. Both are examples/shop, under their own names.
set -eu
cd "$(dirname "$0")"
CGO_ENABLED=0 go build -trimpath -ldflags "-X main.name=$1 -X main.version=$2 -X main.does=${DOES:-work}" -o "$1/app" ../shop/main.go
