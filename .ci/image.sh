#!/usr/bin/env bash
# Builds the two images, TAG and TAG-sh, with the engine at hand: image.sh TAG [VERSION]. It needs busybox-static,
# git, ca-certificates and a Docker engine of Debian's or Ubuntu's.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=$1 version=${2:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)}
root=bin/image
rm -rf "$root"
mkdir -p "$root"/minimal/{usr/local/bin,usr/share/backstep,etc/ssl/certs,tmp} "$root/shell/bin"
chmod 1777 "$root/minimal/tmp"

CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -X github.com/backstep/backstep/internal/cli.Version=$version" \
	-o "$root/minimal/usr/local/bin/backstep" ./cmd/backstep
go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0 bin -json -output-version 1.5 \
	-output "$root/minimal/usr/share/backstep/sbom.cdx.json" "$root/minimal/usr/local/bin/backstep" 2>/dev/null
cp /etc/ssl/certs/ca-certificates.crt "$root/minimal/etc/ssl/certs/"

cp "$(command -v busybox)" "$root/shell/bin/busybox"
for name in sh ash cat sleep tail ls mkdir rm cp mv echo printf env test true false id grep sed head chmod tr wc date pwd uname tee touch find; do
	ln -s busybox "$root/shell/bin/$name"
done
bash .ci/programs.sh "$root/shell"

label() { # as OCI has them
	printf -- '--label org.opencontainers.image.%s\n' "version=$version" "revision=$(git rev-parse HEAD)" \
		"source=https://github.com/backstep/backstep" licenses=Apache-2.0 title=backstep
}
# shellcheck disable=SC2046
docker build -q $(label) --target minimal -t "$tag" -f Dockerfile "$root"
# shellcheck disable=SC2046
docker build -q $(label) --target shell -t "$tag-sh" -f Dockerfile "$root"
for image in "$tag" "$tag-sh"; do
	echo "$image: $(docker save "$image" | gzip | wc -c | awk '{printf "%.1f MB compressed", $1/1e6}')"
done
