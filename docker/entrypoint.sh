#!/usr/bin/env bash
# Process 1 of the container: starts a recipe with the accelerate config for the GPUs that it sees, and forwards
# SIGTERM to the training processes, which then save a checkpoint.
#
# It does not `exec` the launcher, deliberately. Linux drops a signal for which process 1 has no handler; `accelerate
# launch` of one process forwards no signal; and torchrun, used for several processes, kills them 30 s after it has
# forwarded one, however large the checkpoint. So the signal goes to the launcher's children; the status is then 143.
set -euo pipefail
trap 'exit 143' TERM INT

app=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
recipes=$app/recipes

usage() {
    cat <<'USAGE'
usage: docker run [OPTIONS] IMAGE COMMAND [ARGUMENTS of the recipe; --help lists them]

  train      recipes/grpo.py                  GRPO on votes; with no arguments the embedded default
  ppo        recipes/ppo.py                   PPO with a value head
  sft        recipes/sft.py                   token likelihood of vote shares
  align      recipes/align.py                 distribution alignment with an adversary
  charm      recipes/charm.py                 reward models calibrated by Elo
  evaluate   recipes/evaluate.py              judging methods side by side
  compare    recipes/compare.py               recipes side by side
  audit      recipes/audit_position_bias.py   does a judge care which response is shown first? (the audit image too)
  versions   what is installed

volumes
  /output    results; relative paths runs/… lie here
  /cache     models and compiled kernels; HF_HOME is /cache/huggingface

environment of the first five
  NPROC_PER_NODE       processes on this node; by default one a visible GPU, one where there is none
  NNODES               nodes, 1 by default; where there are several, also
  NODE_RANK            number of this one, from 0
  MASTER_ADDR          host name or address of node 0, and
  MASTER_PORT          its port, 29500 by default
  ACCELERATE_CONFIG    a name in recipes/accelerate/, such as zero3, or the path of a file; by default single for one
                       process, zero2 for several with GPUs, zero2_cpu for several without

SIGTERM (docker stop, a pod's eviction) ends training with a checkpoint and status 143.
USAGE
}

die() {
    echo "error: $*" >&2
    exit 2
}

# number NAME DEFAULT MINIMUM: the environment variable NAME, checked.
number() {
    local value=${!1:-$2}
    if ! [[ $value =~ ^[0-9]{1,6}$ ]] || ((10#$value < $3)); then
        die "$1 must be a whole number from $3, got '$value'"
    fi
    echo "$((10#$value))"
}

# config_file GPUS PROCESSES: the path of the accelerate config.
config_file() {
    local name candidate
    if [[ -n ${ACCELERATE_CONFIG:-} ]]; then
        name=$ACCELERATE_CONFIG
    elif (($2 == 1)); then
        name=single
    elif (($1 > 0)); then
        name=zero2
    else
        name=zero2_cpu
    fi
    for candidate in "$name" "$recipes/accelerate/${name%.yaml}.yaml"; do
        if [[ -f $candidate ]]; then
            echo "$candidate"
            return
        fi
    done
    die "no accelerate config '$name': neither a file nor a name in recipes/accelerate/"
}

# launch RECIPE ARGUMENTS…: on every process of every node.
launch() {
    local recipe=$1 gpus nodes rank port processes total config
    shift
    command -v accelerate >/dev/null \
        || die "this image has no torch; '$command' needs the image built with --target train"
    gpus=$(python -c 'import torch; print(torch.cuda.device_count())')
    if ((gpus == 0)); then
        export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu} # DeepSpeed would search for one, and warn
    fi
    processes=$(number NPROC_PER_NODE "$((gpus > 0 ? gpus : 1))" 1)
    nodes=$(number NNODES 1 1)
    rank=$(number NODE_RANK 0 0)
    port=0 # any free one
    if ((nodes > 1)); then
        [[ -n ${NODE_RANK:-} && -n ${MASTER_ADDR:-} ]] || die "NNODES=$nodes needs NODE_RANK and MASTER_ADDR"
        ((rank < nodes)) || die "NODE_RANK must be below NNODES=$nodes, got $rank"
        port=$(number MASTER_PORT 29500 1)
    fi
    ((gpus == 0 || processes <= gpus)) || die "NPROC_PER_NODE=$processes, but $gpus GPU(s) are visible"
    total=$((nodes * processes))
    if ((total == 1 && gpus > 1)); then # transformers would divide its batches among all of them
        export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
        export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES%%,*}
    fi
    config=$(config_file "$gpus" "$total")
    echo "node $rank of $nodes, $processes process(es) on $gpus GPU(s), ${config#"$app/"}" >&2
    # Every node is started separately. By default, accelerate lets DeepSpeed start the other nodes over ssh and write
    # the environment to a file for them, secrets included.
    run accelerate launch --quiet --deepspeed_multinode_launcher standard --config_file "$config" \
        --num_machines "$nodes" --machine_rank "$rank" --num_processes "$total" \
        --main_process_ip "${MASTER_ADDR:-127.0.0.1}" --main_process_port "$port" "$recipes/$recipe.py" "$@"
}

# run COMMAND ARGUMENTS…: waits for its end and exits with its status.
run() {
    local stopped='' launcher='' status=0
    # USR1 is for this process only: a cluster's scheduler may send it to all (docker/slurm.sbatch).
    (
        trap '' USR1
        exec "$@"
    ) &
    launcher=$!
    trap 'stopped=yes; pass_on "$launcher"' TERM INT USR1
    while kill -0 "$launcher" 2>/dev/null; do
        wait "$launcher" || true # a signal ends a wait early
    done
    wait "$launcher" || status=$?
    if [[ -n $stopped ]] && ((status != 0)); then
        status=143
    fi
    exit "$status"
}

# pass_on LAUNCHER: sends SIGTERM to the launcher's children, or to the launcher while it has none.
pass_on() {
    local children
    children=$(cat "/proc/$1/task/"*/children 2>/dev/null) || true
    # shellcheck disable=SC2086
    kill -TERM ${children:-$1} 2>/dev/null || true
}

versions() {
    python - <<'PYTHON'
import platform
from importlib.metadata import PackageNotFoundError, version

print(f"{'python':<14}{platform.python_version()}")
for package in ("autorater-rl", "torch", "transformers", "trl", "accelerate", "deepspeed", "peft", "vllm", "openai"):
    try:
        print(f"{package:<14}{version(package)}")
    except PackageNotFoundError:
        print(f"{package:<14}not in this image")
PYTHON
}

command=${1:-help}
if (($# > 0)); then
    shift
fi
case $command in
    help | --help | -h) usage ;;
    versions) versions ;;
    train) launch grpo "$@" ;;
    ppo | sft | align | charm) launch "$command" "$@" ;;
    # One process each, whatever GPUs are visible, and with its own status: 2 for a mistake, 3 for a gate that fails.
    evaluate) run python "$recipes/evaluate.py" "$@" ;;
    compare) run python "$recipes/compare.py" "$@" ;;                # starts recipes of its own
    audit) run python "$recipes/audit_position_bias.py" "$@" ;;      # needs no torch
    *) die "unknown command '$command'; docker run IMAGE help lists them" ;;
esac
