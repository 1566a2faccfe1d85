#!/usr/bin/env bash
# Checks the files of packaging/ as far as the tools for it are installed, and that they have the version of
# Cargo.toml.

set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q}' Cargo.toml)
for line in \
    "packaging/arch/PKGBUILD:pkgver=$version" \
    "packaging/alpine/APKBUILD:pkgver=$version"; do
    grep -q -x -F "${line#*:}" "${line%%:*}"
done
grep -q "^udgram ($version-" packaging/debian-changelog
grep -q "^## \[$version\] - " CHANGELOG.md

# makepkg and abuild set and read these variables.
shellcheck --shell=bash --exclude=SC2034,SC2154,SC2164 packaging/arch/PKGBUILD
shellcheck --shell=dash --exclude=SC2034,SC2154,SC2164 packaging/alpine/APKBUILD

if command -v systemd-analyze >/dev/null; then
    # The command of the service must exist.
    units=$(mktemp -d)
    trap 'rm -rf "$units"' EXIT
    cp packaging/systemd/* "$units"
    sed -i 's|^ExecStart=/usr/bin/udgram|ExecStart=/bin/true|; /^Documentation=/d' "$units"/*.service
    systemd-analyze verify --recursive-errors=no "$units"/*
fi
if command -v nix-instantiate >/dev/null; then
    nix-instantiate --option build-users-group '' --parse packaging/nix/flake.nix packaging/nix/package.nix >/dev/null
fi
