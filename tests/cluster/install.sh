#!/bin/sh
# Installs what the tests need besides Python packages: Slurm, munge, iproute2, Chromium, and the
# libraries that mongod links. Does nothing where everything is there already. Debian and Ubuntu.
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing() {
    while read -r program package; do
        command -v "$program" >/dev/null 2>&1 || echo "$package"
    done <<LIST
srun slurm-client
slurmctld slurmctld
slurmd slurmd
munged munge
ip iproute2
nsenter util-linux
chromium chromium
LIST
    while read -r library package; do
        ldconfig -p | grep -q "^[[:space:]]$library " || echo "$package"
    done <<LIST
libssl.so.3 libssl3
libcurl.so.4 libcurl4
LIST
}

packages=$(missing | sort -u | tr '\n' ' ')
if [ -z "$packages" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests with a real Slurm and a real browser need these packages: $packages" >&2
    echo "Only root may install them, by apt-get; for example: sudo make system-packages" >&2
    exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# $packages is a list: word splitting is meant.
# shellcheck disable=SC2086
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends $packages; } \
        >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "These packages could not be installed: $packages" >&2
    exit 1
fi
rest=$(missing | sort -u | tr '\n' ' ')
if [ -n "$rest" ]; then
    echo "apt-get reported success, but these packages are still missing: $rest" >&2
    exit 1
fi
