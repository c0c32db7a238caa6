#!/bin/sh
# Releases one service: release.sh SERVICE VERSION. The exit code is backstep's own: 5 means that the release was bad and has been
# taken back.
set -eu
cd "$(dirname "$0")/$1"
export BACKSTEP_ENVIRONMENT=production
repository=registry.example.com/acme/$1

backstep build-image --repository "$repository" --version "$2" --tags "$2"
backstep deploy --image "$repository:$2"
backstep verify --on-fail rollback
