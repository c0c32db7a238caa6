#!/usr/bin/env bash
# Builds the two images, TAG and TAG-sh, and does with them what is asked: image.sh TAG [VERSION [load|push|keep]].
# load, the default, hands them to the Docker engine at hand; push pushes them with the login of docker login; keep only leaves them in
# bin/image. The digests are in bin/image/digest and bin/image/digest-sh, the lists of what is in them beside these, as sbom*.cdx.json.
# The same commit and VERSION give the same digests, with the same busybox-static, git, ca-certificates and libraries of Debian or Ubuntu.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
tag=$1 version=${2:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)} end=${3:-load}
root=bin/image
GOTOOLCHAIN=$(sed -n 's/^toolchain //p' go.mod)
export GOTOOLCHAIN # another compiler makes another program
created=$(git log -1 --format=%ct) arch=$(go env GOARCH)
rm -rf "$root"
mkdir -p "$root"/minimal/{usr/local/bin,usr/share/backstep,etc/ssl/certs,tmp} "$root"/shell/{bin,usr/share/backstep}
chmod 1777 "$root/minimal/tmp"

# The revision is a label: what Go would find out of git depends on the tags that were fetched.
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w -X github.com/backstep/backstep/internal/cli.Version=$version" \
	-o "$root/minimal/usr/local/bin/backstep" ./cmd/backstep
cp LICENSE THIRD_PARTY.txt "$root/minimal/usr/share/backstep/"
# The certificates of the package, and none that this machine trusts beside them.
dpkg-query -L ca-certificates | grep '^/usr/share/ca-certificates/.*\.crt$' | sort | xargs -d '\n' sed -s -e '$a\' \
	>"$root/minimal/etc/ssl/certs/ca-certificates.crt"

cp "$(command -v busybox)" "$root/shell/bin/busybox"
for name in sh ash cat sleep tail ls mkdir rm cp mv echo printf env test true false id grep sed head chmod tr wc date pwd uname tee touch find; do
	ln -s busybox "$root/shell/bin/$name"
done
bash .ci/programs.sh "$root/shell"

mkdir -p bin/tools
go build -trimpath -o bin/tools ./ship/image ./ship/bill
packages() { sed -n 's|.*"purl": "pkg:deb/[a-z]*/\([^@"]*\)@.*|\1|p' "$1" | sort -u; }
sbom() { # FILE ROOT…
	local out=$1
	shift
	bin/tools/bill -version "$version" -created "$created" -out "$out" "$@"
}
terms() { # ROOT ROOT…: the terms of the packages of all the roots go into the first one
	local name to=$1
	sbom "$root/draft.json" "${@:2}"
	for name in $(packages "$root/draft.json"); do
		mkdir -p "$to/usr/share/doc/$name"
		cp -L "/usr/share/doc/$name/copyright" "$to/usr/share/doc/$name/copyright"
	done
}
terms "$root/minimal" "$root/minimal"
terms "$root/shell" "$root/shell"
sbom "$root/sbom.cdx.json" "$root/minimal"
sbom "$root/sbom-sh.cdx.json" "$root/minimal" "$root/shell"
cp "$root/sbom.cdx.json" "$root/minimal/usr/share/backstep/"
cp "$root/sbom-sh.cdx.json" "$root/shell/usr/share/backstep/sbom.cdx.json"

build() { # NAME FILE ROOT…
	local name=$1 file=$2 label=org.opencontainers.image
	shift 2
	bin/tools/image -tag "$name" -archive "$root/image${file#digest}.tar" -created "$created" -arch "$arch" $([ "$end" != push ] || echo -push) \
		-label $label.version="$version" -label $label.revision="$(git rev-parse HEAD)" -label $label.source=https://github.com/backstep/backstep \
		-label $label.licenses=Apache-2.0 -label $label.title=backstep "$@" >"$root/$file"
	[ "$end" != load ] || docker load -q -i "$root/image${file#digest}.tar"
	echo "$name: $(cat "$root/$file"), $(wc -c <"$root/image${file#digest}.tar" | awk '{printf "%.1f MB compressed", $1/1e6}')"
}
build "$tag" digest "$root/minimal"
build "$tag-sh" digest-sh "$root/minimal" "$root/shell"
