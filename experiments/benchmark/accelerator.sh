#!/usr/bin/env bash
# Measures on one accelerator, in less than six minutes, what the README's section on speed asks of one: IQL with 1 and
# 16 seeds, PPO, a U-Net of Stable Diffusion's size, a decoder of Qwen 2.5's size, and what a mesh of one device costs.
#
#   experiments/benchmark/accelerator.sh [FOLDER] [tiny]
#
# Leaves FOLDER/benchmark_<device>.jsonl (FOLDER: docs): a line about the machine, then one a measurement. One that fails
# or takes too long leaves a line that says so, and the others run. `tiny` takes seconds, on a CPU too; its rates say
# nothing. It installs nothing: PYTHON names the interpreter, .venv's if it is not set.

set -u
cd "$(dirname "$0")/../.." || exit 1
folder=${1:-docs} size=${2:-}
python=${PYTHON:-.venv/bin/python}
"$python" -c pass 2>/dev/null || python=python3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

line() {  # a JSON object of the names and texts given
    "$python" -c 'import json, sys; print(json.dumps(dict(zip(sys.argv[1::2], sys.argv[2::2]))))' "$@"
}

missing=$("$python" -c 'from importlib.util import find_spec
needed = ("jax", "jaxlib", "flax", "optax", "orbax", "chex", "numpy", "absl", "ml_collections", "gymnasium", "mujoco")
print(", ".join(name for name in needed if find_spec(name) is None))') || exit 1
[ -z "$missing" ] || echo "missing: $missing (make setup installs them); what needs them is left out" >&2

timeout --kill-after=2 35 "$python" -c 'import json, platform, re, jax, jaxlib
kind = jax.devices()[0].device_kind
print(re.sub("[^a-z0-9]+", "_", kind.lower()).strip("_"))
print(jax.default_backend())
print(json.dumps({"device": kind, "devices": jax.device_count(), "jax": jax.__version__, "jaxlib": jaxlib.__version__,
                  "python": platform.python_version()}))' >"$scratch/machine" 2>"$scratch/err"
{ read -r device && read -r backend && read -r machine; } <"$scratch/machine" || {
    echo "error: jax finds no device: $(tail -n 1 "$scratch/err")" >&2
    exit 1
}
if [ "$backend" = cpu ] && [ "$size" != tiny ]; then
    echo "error: jax sees a CPU alone, for which these sizes are too large: install jax for the accelerator, or append" \
        "'FOLDER tiny'" >&2
    exit 1
fi
mkdir -p "$folder" || exit 1
file=$folder/benchmark_$device.jsonl
echo "$machine" >"$file" || exit 1

measure() {  # the seconds that it may take, then the flags of the benchmark
    local limit=$1 status
    shift
    if [ "$size" = tiny ]; then
        limit=$((4 * limit))  # a CPU may be busy
        set -- "$@" --size=tiny --seconds=0.01
    fi
    echo "$*, at most $limit s" >&2
    timeout --kill-after=2 "$limit" "$python" -m experiments.benchmark --repeats=3 "$@" >"$scratch/out" 2>"$scratch/err"
    status=$?
    if [ $status = 0 ]; then
        tail -n 1 "$scratch/out" >>"$file"
    else
        case $status in
            124 | 137) error="not done after $limit s" ;;
            *) error=$(tail -n 1 "$scratch/err") ;;
        esac
        echo "failed: $error" >&2
        line measurement "$*" error "$error" >>"$file"
    fi
}

# All memory for the largest batch: nothing else runs beside.
export XLA_PYTHON_CLIENT_MEM_FRACTION=0.92
measure 70 --suite=offline_rl --agent=iql --seeds=16 --seconds=1
measure 40 --suite=online --bridge_mdp=freeway_10_fs30 --seeds=16 --seconds=1
measure 35 --suite=sharding --seconds=1
measure 95 --suite=generative --size=sd15 --seconds=1
measure 60 --suite=language --size=0.5b --seconds=1
echo "$file" >&2
