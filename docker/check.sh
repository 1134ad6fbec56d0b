#!/usr/bin/env bash
# Lints the Dockerfile, builds the image for CPUs without a Docker engine, and lets it run a small job.
#
#   make docker-check                          or, with hadolint on PATH:   docker/check.sh
#   make docker-check TORCH_INDEX=URL          where pip is not set up for torch's CPU build
#
# For root on Debian or Ubuntu. Installs buildah and debootstrap if they are missing; everything
# else goes to a folder below $TMPDIR (15 GB) and is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "docker/check.sh must run as root: it makes a base image by chroot." >&2; exit 2; }

if ! { command -v buildah && command -v debootstrap; } >/dev/null; then
  echo "== installing buildah and debootstrap"
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null
fi

umask 022
scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/em_blocks-docker.XXXXXX")
export TMPDIR=$scratch
store=(buildah --root "$scratch/store" --runroot "$scratch/run")

clean_up() {
  "${store[@]}" rm --all >/dev/null || true
  ! mountpoint -q "$scratch/store/overlay" || umount "$scratch/store/overlay"
  rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT

# Where this machine's pip finds packages, as "key = value"; the environment comes before files.
pip_settings() {
  python3 -m pip config list |
    sed -nE "s/^(:env:|global|install)\.((extra-)?index-url|find-links|trusted-host|cert|proxy)=['\"](.*)['\"]$/\2 = \4/p" |
    sed 's/\\n/ /g' | awk '!seen[$1]++'
}

# The same as files for the build: settings and certificate are secrets of it, local folders mounts.
share_pip() {
  local key value word
  (umask 077; echo "[global]" >"$scratch/pip.conf"; : >"$scratch/ca.crt")
  while IFS=' =' read -r key value; do
    if [ "$key" = cert ]; then
      cp "$value" "$scratch/ca.crt"
      value=/run/secrets/pip_ca
    fi
    echo "$key = $value" >>"$scratch/pip.conf"
    for word in $value; do
      case "$word" in
        # Pages of an index link to files beside its folder.
        file:///*) word=$(dirname "${word#file://}"); options+=(--volume "$word:$word:ro") ;;
        /run/secrets/*) ;;
        /*) options+=(--volume "$word:$word:ro") ;;
      esac
    done
  done < <(pip_settings)
  options+=(--secret "id=pip_conf,src=$scratch/pip.conf" --secret "id=pip_ca,src=$scratch/ca.crt")
}

make_base() {
  local container
  debootstrap --variant=minbase bookworm "$scratch/rootfs" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} \
    >"$scratch/debootstrap.log" || { tail -n 20 "$scratch/debootstrap.log" >&2; exit 1; }
  container=$("${store[@]}" from scratch)
  "${store[@]}" add --quiet "$container" "$scratch/rootfs" / >/dev/null
  "${store[@]}" commit --quiet --rm "$container" em_blocks_base >/dev/null
  rm -rf --one-file-system "$scratch/rootfs"
}

# Run a command in the image as some user, with an empty folder of that user at /data.
within() {
  local user=$1
  shift
  "${store[@]}" run --isolation chroot --user "$user" --volume "$scratch/data:/data" "$container" -- "$@"
}

echo "== lint"
hadolint docker/Dockerfile

echo "== base image"
make_base

echo "== build"
options=(--build-arg BASE=localhost/em_blocks_base --build-arg "TORCH_INDEX=${TORCH_INDEX:-}")
share_pip
SECONDS=0
"${store[@]}" bud --isolation chroot --network host --pull-never --layers "${options[@]}" \
  --tag em_blocks --file docker/Dockerfile .
build_s=$SECONDS

echo "== run"
read -ra entrypoint <<<"$("${store[@]}" inspect --type image \
  --format '{{range .OCIv1.Config.Entrypoint}}{{.}} {{end}}' em_blocks)"
container=$("${store[@]}" from --pull-never em_blocks)
# As the user of the image, and as one that the image does not know (docker run --user).
mkdir "$scratch/data"
within 1000 "${entrypoint[@]}" em-blocks --version
chown 4711:4711 "$scratch/data"
SECONDS=0
within 4711:4711 "${entrypoint[@]}" em-blocks generate /data/volume.zarr --shape 16,128,128 --seed 1
# The demo is a job of five steps with a mongod of its own; smaller here.
within 4711:4711 "${entrypoint[@]}" python3 -c '
from em_blocks.cli.demo import main as demo
demo.SHAPE = (16, 128, 256)
demo.main(["/data/demo"])'
within 4711:4711 "${entrypoint[@]}" em-blocks status /data/demo/segment.json
[ -z "$(find "$scratch/data" ! -user 4711)" ]

size=$("${store[@]}" images --format '{{.Size}}' em_blocks)
echo "docker-check: built in $build_s s, image of $size, job in it $SECONDS s"
