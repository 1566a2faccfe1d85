#!/usr/bin/env bash
# Writes the tarballs of a release and SHA256SUMS into target/dist: the static program, the manual pages, the
# completions, the example units, and README.md with the pages and examples that it refers to.
#
# Usage: packaging/release.sh [TARGET...]     by default x86-64 and arm64
#
# The same source, Rust and C library give the same bytes, in any directory. A TARGET of another processor needs its
# standard library (rustup target add TARGET), and its linker and C library (gcc-aarch64-linux-gnu and
# libc6-dev-arm64-cross on Debian).

set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C TZ=UTC

if (($# == 0)); then
    set -- x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
fi

version=$(sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q}' Cargo.toml)
# The date of the version, which a source tree without a history has, too.
released=$(sed -n "s/^## \[${version//./\\.}\] - //p" CHANGELOG.md)
if [[ ! $released ]]; then
    echo "CHANGELOG.md has no date for version $version" >&2
    exit 1
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date -d "$released" +%s)}
export SOURCE_DATE_EPOCH

build=${CARGO_TARGET_DIR:-$PWD/target}
dist=$build/dist
rm -rf "$dist"
mkdir -p "$dist"

for target; do
    flags=(
        -C target-feature=+crt-static
        "--remap-path-prefix=$build=target"
        "--remap-path-prefix=$PWD=udgram"
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
    )
    case $target in
        # It starts 5 % faster than with randomised addresses.
        x86_64-*) flags+=(-C relocation-model=static) ;;
        aarch64-*) [[ $(uname -m) == aarch64 ]] || flags+=(-C linker=aarch64-linux-gnu-gcc) ;;
    esac
    # A path may contain a blank, so the flags are separated by U+001F.
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf %s "${flags[*]}") \
        cargo build --release --locked --bin udgram --target "$target"
    program=$build/$target/release/udgram
    if readelf --program-headers "$program" | grep -q INTERP; then
        echo "$program is not static" >&2
        exit 1
    fi

    name=udgram-$version-$target
    root=$dist/$name
    # Its modes do not depend on the umask.
    install -d -m 755 "$root" "$root"/{completions,docs,examples,man,systemd}
    install -m 755 "$program" "$root/"
    install -m 644 README.md BENCHMARKS.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$root/"
    install -m 644 docs/*.md docs/*.svg "$root/docs/"
    install -m 644 examples/*.rs "$root/examples/"
    install -m 644 completions/* "$root/completions/"
    install -m 644 man/* "$root/man/"
    install -m 644 packaging/systemd/* "$root/systemd/"
    tar --create --directory "$dist" --format=gnu --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
        --owner=0 --group=0 --numeric-owner "$name" |
        gzip --best --no-name >"$dist/$name.tar.gz"
    rm -rf "$root"
done

if ! grep -q '^repository = ' Cargo.toml; then
    echo "Cargo.toml has no 'repository': CONTRIBUTING.md has what the first publication needs" >&2
fi

cd "$dist"
sha256sum -- *.tar.gz | tee SHA256SUMS
