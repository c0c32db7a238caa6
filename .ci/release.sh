#!/bin/sh
# Makes the commits and tags of a release, once its images are pushed: release.sh VERSION DIGEST DIGEST-SH.
# The first commit names the images by digest, the second one the first one by its hash: whoever uses a tag of
# ours, or its hash, runs exactly what was released. Nothing is pushed.
set -eu
cd "$(git rev-parse --show-toplevel)"
version=$1 digest=$2 digest_sh=$3
image=ghcr.io/backstep/backstep
for d in "$digest" "$digest_sh"; do
	expr "$d" : 'sha256:[0-9a-f]\{64\}$' >/dev/null || { echo "release: $d is no digest" >&2; exit 2; }
done
expr "$version" : '[0-9]*\.[0-9]*\.[0-9]*$' >/dev/null || { echo "release: $version is no version" >&2; exit 2; }

files=$(git ls-files action.yml actions templates .github/workflows/chain.yml .github/workflows/rollback.yml)
# shellcheck disable=SC2086
sed -i "s|$image:edge-sh|$image:$version-sh@$digest_sh|; s|$image:edge|$image:$version@$digest|" $files
git commit -qam "Release $version: images by digest"
pinned=$(git rev-parse HEAD)
sed -i "s|\(backstep/backstep/actions/[a-z-]*\)@main|\1@$pinned # v$version|" .github/workflows/chain.yml .github/workflows/rollback.yml
git commit -qam "Release $version: actions by commit"
git tag -a "v$version" -m "backstep $version"
git tag -a "$version" -m "backstep $version, as GitLab's catalog wants it"
git tag -f "v${version%%.*}" >/dev/null
git tag -f "v${version%.*}" >/dev/null
