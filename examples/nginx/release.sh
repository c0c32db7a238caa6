#!/bin/sh
# Releases it: release.sh VERSION. The exit code is backstep's own: 5 means that the release was bad and has been taken back.
set -eu
cd "$(dirname "$0")"
export BACKSTEP_ENVIRONMENT=production
repository=registry.example.com/acme/shop

backstep build-image --repository "$repository" --version "$1" --tags "$1"
backstep deploy --image "$repository:$1"
backstep verify --on-fail rollback
