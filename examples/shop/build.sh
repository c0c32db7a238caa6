#!/bin/sh
# Builds the program that the Dockerfile copies.
set -eu
CGO_ENABLED=0 PATH=$PATH:/usr/local/go/bin go build -trimpath -o shop main.go
