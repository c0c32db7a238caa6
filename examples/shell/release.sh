#!/bin/sh
# The whole chain on any CI system: release.sh ENVIRONMENT REPOSITORY. What a step finds out, the next ones read
# from the file that BACKSTEP_OUTPUT names, which has to be a new one each time. The exit code is backstep's own: 5
# means that the release was bad and has been taken back.
set -eu
outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT
export BACKSTEP_OUTPUT="$outputs/backstep.env" BACKSTEP_ENVIRONMENT="$1" BACKSTEP_REPOSITORY="$2"

backstep build-image
backstep deploy --dry-run --allow-older # what is wrong is told before a tag moves
backstep semver-tag --git-tag
backstep deploy
backstep verify --on-fail rollback
