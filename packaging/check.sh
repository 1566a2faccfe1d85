#!/usr/bin/env bash
# Checks the files of packaging/ and the packages of Cargo.toml: that they have the version of Cargo.toml, and that
# each installs the program, all manual pages, the completions, the pages of docs/ and the examples. Names what it
# cannot check.

set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

skipped() {
    echo "not checked: $1"
}
fail() {
    echo "$1" >&2
    exit 1
}

version=$(sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q}' Cargo.toml)
for line in \
    "packaging/arch/PKGBUILD:pkgver=$version" \
    "packaging/alpine/APKBUILD:pkgver=$version"; do
    grep -q -x -F "${line#*:}" "${line%%:*}" || fail "${line%%:*} lacks ${line#*:}"
done
grep -q "^udgram ($version-" packaging/debian-changelog || fail "packaging/debian-changelog lacks version $version"
grep -q "^## \[$version\] - " CHANGELOG.md || fail "CHANGELOG.md lacks version $version"

# makepkg and abuild set and read these variables.
shellcheck --shell=bash --exclude=SC2034,SC2154,SC2164 packaging/arch/PKGBUILD
shellcheck --shell=dash --exclude=SC2034,SC2154,SC2164 packaging/alpine/APKBUILD

# Checks the list of installed files on stdin. $1 names the package; the other arguments are the ends of further
# paths that it must have.
has_all() {
    local package=$1 file
    shift
    sed 's/\.gz$//' >"$work/list"
    for file in bin/udgram man/* completions/udgram.fish docs/*.md docs/*.svg examples/*.rs README.md BENCHMARKS.md "$@"; do
        case $file in
            man/*) file=man${file##*.}/${file#man/} ;;
            completions/*) file=vendor_completions.d/${file#completions/} ;;
        esac
        grep -q "/${file//./\\.}\$" "$work/list" || fail "the package for $package lacks $file"
    done
    for file in bash-completion/completions/udgram _udgram; do
        grep -q "/$file\$" "$work/list" || fail "the package for $package lacks $file"
    done
    echo "ok: $package"
}

# The functions that fill the packages of Arch Linux and Alpine, in a tree with a stand-in for the program.
mkdir -p "$work/src/udgram-$version/target/release"
cp -R README.md BENCHMARKS.md CHANGELOG.md LICENSE-* man completions docs examples packaging "$work/src/udgram-$version/"
cp /bin/true "$work/src/udgram-$version/target/release/udgram"
(
    cd "$work/src"
    bash -euc 'srcdir=$PWD pkgdir=$1; . "$2"; package' - "$work/arch" "$OLDPWD/packaging/arch/PKGBUILD"
    cd "udgram-$version"
    sh -euc 'srcdir=.. pkgdir=$1; . "$2"; package' - "$work/alpine" "$PWD/packaging/alpine/APKBUILD"
)
find "$work/arch" -type f | has_all 'Arch Linux' CHANGELOG.md licenses/udgram/LICENSE-MIT examples/udgram-listen.service
find "$work/alpine" -type f | has_all Alpine CHANGELOG.md licenses/udgram/LICENSE-MIT

if command -v makepkg >/dev/null; then
    # makepkg refuses to run as root.
    install -d -m 777 "$work/makepkg"
    cp packaging/arch/PKGBUILD "$work/makepkg/"
    chmod 755 "$work"
    as=()
    [[ $(id -u) != 0 ]] || as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    (cd "$work/makepkg" && HOME=$PWD "${as[@]}" makepkg --printsrcinfo) >"$work/srcinfo"
    grep -q "pkgver = $version" "$work/srcinfo" || fail "makepkg does not read $version from PKGBUILD"
    echo "ok: makepkg reads PKGBUILD"
else
    skipped "makepkg is not installed"
fi
if command -v namcap >/dev/null; then
    namcap packaging/arch/PKGBUILD
else
    skipped "namcap is not installed"
fi
skipped "a build by abuild, which Alpine alone has"

if command -v rpm >/dev/null && command -v cargo-generate-rpm >/dev/null && [[ -x target/release/udgram ]]; then
    cargo generate-rpm --output "$work/udgram.rpm"
    rpm --query --list --package "$work/udgram.rpm" | has_all RPM CHANGELOG.md licenses/udgram/LICENSE-MIT
    [[ $(rpm --query --package --queryformat '%{VERSION}' "$work/udgram.rpm") == "$version" ]]
else
    skipped "RPM needs rpm, cargo-generate-rpm, and target/release/udgram"
fi
if command -v cargo-deb >/dev/null && [[ -x target/release/udgram ]]; then
    cargo deb --locked --quiet --no-build --no-strip --output "$work/udgram.deb" >/dev/null
    dpkg-deb --fsys-tarfile "$work/udgram.deb" | tar --list | has_all Debian udgram/changelog udgram/changelog.Debian udgram/copyright
else
    skipped "Debian needs cargo-deb, and target/release/udgram"
fi

if command -v nix-instantiate >/dev/null; then
    nix=(nix-instantiate --option build-users-group '')
    "${nix[@]}" --parse packaging/nix/flake.nix packaging/nix/package.nix >/dev/null
    # The derivation without nixpkgs: with stand-ins for the functions that it takes.
    evaluated=$("${nix[@]}" --eval --strict --expr '(import ./packaging/nix/package.nix {
        lib = {
            importTOML = path: builtins.fromTOML (builtins.readFile path);
            cleanSource = path: path;
            licenses = { mit = "MIT"; asl20 = "Apache-2.0"; };
            platforms.linux = [ ];
        };
        rustPlatform.buildRustPackage = derivation: derivation;
        installShellFiles = null;
    }).version')
    [[ $evaluated == "\"$version\"" ]] || fail "the derivation has version $evaluated"
    echo "ok: the Nix derivation is evaluated"
    skipped "a build by Nix, which needs nixpkgs"
else
    skipped "nix-instantiate is not installed"
fi

builder=
for candidate in podman buildah docker; do
    if [[ ! $builder ]] && "$candidate" info >/dev/null 2>&1; then builder=$candidate; fi
done
if [[ $builder ]]; then
    cp /bin/true "$work/udgram"
    "$builder" build --file packaging/Containerfile --tag udgram-check "$work" >"$work/built" 2>&1 ||
        fail "$(<"$work/built")"
    "$builder" rmi udgram-check >/dev/null
    echo "ok: $builder builds the container"
else
    skipped "the container needs podman, buildah or docker"
fi

for tarball in target/dist/*.tar.gz; do
    [[ -e $tarball ]] || { skipped "the tarballs, which packaging/release.sh writes"; break; }
    tar --list --file "$tarball" >"$work/tarball"
    for file in udgram README.md BENCHMARKS.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE man/* completions/* docs/*.md \
        docs/*.svg examples/*.rs systemd/udgram-listen.socket; do
        grep -q "^[^/]*/$file\$" "$work/tarball" || fail "$tarball lacks $file"
    done
    echo "ok: $tarball"
done

if command -v systemd-analyze >/dev/null; then
    # The command of the service must exist.
    mkdir "$work/units"
    cp packaging/systemd/* "$work/units/"
    sed -i 's|^ExecStart=/usr/bin/udgram|ExecStart=/bin/true|; /^Documentation=/d' "$work"/units/*.service
    systemd-analyze verify --recursive-errors=no "$work"/units/*
    echo "ok: units"
else
    skipped "systemd-analyze is not installed"
fi
