#!/usr/bin/env bash
# Copies git, its helper for HTTPS and further programs into a root, with the shared libraries that they ask for:
# programs.sh ROOT [PROGRAM…].
set -euo pipefail
root=$1 core=$(git --exec-path)
mkdir -p "$root"/usr/bin "$root"/usr/lib/git-core
shift
for name in git "$@"; do cp -L "$(command -v "$name")" "$root/usr/bin/"; done
cp -L "$core/git-remote-http" "$root/usr/lib/git-core/"
ln -s git-remote-http "$root/usr/lib/git-core/git-remote-https"
for name in git git-upload-pack git-receive-pack; do ln -s ../../bin/git "$root/usr/lib/git-core/$name"; done
ldd "$root"/usr/bin/* "$core/git-remote-http" | grep -o '/[^ ]*\.so[^ ]*' | sort -u | while read -r library; do
	mkdir -p "$root$(dirname "$library")"
	cp -L "$library" "$root$library"
done
