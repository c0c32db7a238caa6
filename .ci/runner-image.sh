#!/usr/bin/env bash
# Makes the image that act and gitlab-ci-local run jobs in, without pulling anything: runner-image.sh TAG. It needs
# busybox-static, bash-static, git, rsync and ca-certificates.
set -euo pipefail
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc/ssl/certs,root} && mkdir -m 1777 "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
for name in $(busybox --list | grep -v -x -e busybox -e sh -e bash); do ln -s busybox "$root/bin/$name"; done
cp -L /bin/bash-static "$root/bin/bash" && ln -s bash "$root/bin/sh"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
bash "$(dirname "$0")/programs.sh" "$root" rsync
tar -C "$root" -c . | docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' - "$1" >/dev/null
