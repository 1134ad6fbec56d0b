#!/usr/bin/env bash
# What em_blocks does on an NVIDIA GPU, in under five minutes (after the installation):
#   benchmarks/gpu_check.sh                    with the torch of this machine, or what an index has
#   benchmarks/gpu_check.sh --wheels FOLDER    everything from a folder of wheels; no network is used
#   benchmarks/gpu_check.sh --cpu              a rehearsal of all steps without a GPU, on small volumes
# PYTHON names an interpreter that has everything already. Steps: exactness of every shipped network against
# the CPU; ROIs against the whole; voxels/s of every precision and tile, and of the pipeline; a few steps
# of training in bf16; eight workers on one GPU. The last line, JSON, is printed if all of them passed.
set -euo pipefail
cd "$(dirname "$0")/.."

cpu="" wheels=""
while [ $# -gt 0 ]; do
  case "$1" in
    --cpu) cpu=--cpu ;;
    --wheels) wheels=$2; shift ;;
    *) echo "unknown option $1; see the top of $0" >&2; exit 2 ;;
  esac
  shift
done

install() {
  local venv=${GPU_CHECK_VENV:-.venv-gpu} pip
  # With the packages of the machine: a torch with CUDA that is there is not brought again.
  python3 -m venv --system-site-packages "$venv"
  PYTHON=$venv/bin/python
  pip=("$PYTHON" -m pip install -q)
  if [ -n "$wheels" ]; then pip+=(--no-index --find-links "$wheels"); else pip+=(-c constraints.txt); fi
  if "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    # The constraint on torch would replace the machine's.
    [ -n "$wheels" ] || { grep -v '^torch==' constraints.txt >"$venv/constraints.txt"
                          pip=("$PYTHON" -m pip install -q -c "$venv/constraints.txt"); }
  fi
  "${pip[@]}" -e '.[local,train]'
}

if [ -z "${PYTHON:-}" ]; then
  if [ -n "$cpu" ] && [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else install; fi
fi
if [ -n "$cpu" ]; then
  export CUDA_VISIBLE_DEVICES=""
elif ! "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  echo "torch of $PYTHON sees no GPU: nothing to check. A rehearsal: $0 --cpu" >&2
  exit 2
fi

passed=0 began=$SECONDS
step() {  # seconds that it may take, its name, the command
  local limit=$1 name=$2 start=$SECONDS
  shift 2
  echo "== $name"
  timeout --kill-after=10 $((limit * (${#cpu} > 0 ? 20 : 1))) "$@" || { echo "FAILED: $name" >&2; exit 1; }
  echo "   $((SECONDS - start)) s"
  passed=$((passed + 1))
}

part=benchmarks/parts/gpu_steps.py
if [ -n "$cpu" ]; then
  rois=1 sizes=(--blocks 1 --block 64 64 128 --seconds 1 --rounds 1 --workers 1)
else
  rois=3 sizes=(--blocks 24 --block 128 256 256 --seconds 1 --rounds 3 --workers 1)
fi
step 40 "exactness against the CPU" "$PYTHON" $part exactness
step 40 "ROIs are crops of the whole" "$PYTHON" benchmarks/roi_identity.py --rois $rois
step 120 "voxels/s per precision and tile, and of the pipeline" \
  "$PYTHON" benchmarks/predict_efficiency.py "${sizes[@]}"
step 40 "training in bf16" "$PYTHON" $part training
step 60 "eight workers on one device" "$PYTHON" $part workers $cpu
echo "{\"name\": \"gpu check${cpu:+ (rehearsal on a CPU)}\", \"value\": $((SECONDS - began)), \"unit\": \"s\"," \
     "\"against\": 300, \"ratio\": $(awk "BEGIN {printf \"%.2f\", ($SECONDS - $began) / 300}")}"
