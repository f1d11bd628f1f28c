#!/usr/bin/env bash
# Builds both images and runs them as a cluster does, without a container engine; requires root, buildah and iproute2.
#
#   BASE_IMAGE=debian:bookworm-slim bash docker/verify.sh
#
# A container here is process 1 of its own process, mount and network namespace: the image's user without any
# capability, a read-only root, /output and /cache mounted, a /tmp of its own, and no network except between two nodes.
#
#   BASE_IMAGE      base of both images
#   BUILD_VOLUMES   settings of apt and pip that the build requires here: "HOST:CONTAINER[:ro] …"
#   SKIP_BUILD=1    uses localhost/autorater:train and :audit
#   KEEP=1          keeps the images and the files of the runs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs

base=${BASE_IMAGE:-debian:bookworm-slim}
work=$(mktemp -d)
printf '%s\n' '127.0.0.1 localhost container' '192.0.2.10 node-0' '192.0.2.11 node-1' >"$work/hosts"
SETTINGS=()
working=() # containers that lend their root file systems

small=(--n_train 400 --n_test 40 --warm_start_steps 20 --per_device_train_batch_size 8 --warmup_steps 2
    --eval_steps 100 --n_eval_pairs 20 --logging_steps 2 --report_to none)

say() { printf '\n== %s\n' "$*"; }

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

clean_up() {
    local pid
    for pid in $(jobs -p); do kill -KILL "$pid" || true; done
    ip netns delete node-0 2>/dev/null || true
    ip netns delete node-1 2>/dev/null || true
    ((${#working[@]} == 0)) || buildah rm "${working[@]}" >/dev/null
    if [[ -z ${KEEP:-} ]]; then
        rm -rf "$work"
        [[ -n ${SKIP_BUILD:-} ]] \
            || buildah rmi --force localhost/autorater:train localhost/autorater:audit >/dev/null 2>&1 || true
    fi
}
trap clean_up EXIT

build() { # TARGET
    local options=(--build-arg "BASE_IMAGE=$base" --build-arg "REVISION=$(git rev-parse HEAD)") volume
    [[ -z ${TORCH_INDEX:-} ]] || options+=(--build-arg "TORCH_INDEX=$TORCH_INDEX")
    for volume in ${BUILD_VOLUMES:-}; do
        options+=(--volume "$volume")
    done
    buildah build --layers "${options[@]}" --target "$1" --tag "localhost/autorater:$1" --file docker/Dockerfile . \
        >"$work/build-$1.log" 2>&1 || {
        tail -n 40 "$work/build-$1.log" >&2
        fail "build of $1"
    }
}

root_of() { # IMAGE: sets $root to the folder of its file system
    local container
    container=$(buildah from "$1")
    working+=("$container")
    root=$(buildah mount "$container")
}

image_config() { buildah inspect --type image --format "$2" "$1"; }

# container ROOT IMAGE VOLUMES ARGUMENTS…: as `docker run`, in the network namespace $NODE or in one in which only
# loopback is up, with the variables in $SETTINGS. VOLUMES is a folder for output/ and cache/.
container() {
    local root=$1 image=$2 volumes=$3 environment user directory entrypoint
    shift 3
    mapfile -t environment < <(image_config "$image" '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | grep .)
    environment+=(OMP_NUM_THREADS=1 "${SETTINGS[@]}")
    user=$(image_config "$image" '{{.OCIv1.Config.User}}')
    directory=$(image_config "$image" '{{.OCIv1.Config.WorkingDir}}')
    entrypoint=$(image_config "$image" '{{index .OCIv1.Config.Entrypoint 0}}')
    local namespaces=(unshare --mount --pid --ipc --uts --fork --kill-child)
    if [[ -n ${NODE:-} ]]; then
        namespaces=(ip netns exec "$NODE" "${namespaces[@]}")
    else
        namespaces+=(--net)
    fi
    mkdir -p "$volumes/output" "$volumes/cache"
    chown "$user" "$volumes/output" "$volumes/cache"
    # shellcheck disable=SC2016 # the inner shell expands it
    ROOT=$root VOLUMES=$volumes HOSTS=$work/hosts exec "${namespaces[@]}" bash -c '
        set -e
        touch "$ROOT/etc/hosts"
        mount --bind "$ROOT" "$ROOT"
        mount --bind "$HOSTS" "$ROOT/etc/hosts"
        mount -o remount,bind,ro "$ROOT"
        mount -t proc proc "$ROOT/proc"
        mount --rbind /dev "$ROOT/dev"
        mount -t tmpfs tmpfs "$ROOT/dev/shm"
        mount -t tmpfs tmpfs "$ROOT/tmp"
        for volume in output cache; do mount --bind "$VOLUMES/$volume" "$ROOT/$volume"; done
        ip link set lo up
        hostname "${NODE:-container}"
        exec chroot "$ROOT" setpriv --reuid "${1%:*}" --regid "${1#*:}" --clear-groups --no-new-privs \
            --bounding-set=-all env --ignore-environment --chdir "$2" "${@:3}"
    ' container "$user" "$directory" "${environment[@]}" "$entrypoint" "$@"
}

# Process 1 of a container that was started in the background, seen from here.
process_one() { # PID of the container() call
    local pid=''
    until [[ -n $pid ]]; do
        sleep 0.1
        pid=$(cat "/proc/$1/task/"*/children)
    done
    echo "$pid"
}

wait_for() { # SECONDS PID WHAT COMMAND…: until COMMAND succeeds; PID must live that long
    local seconds=$1 pid=$2 what=$3
    shift 3
    for ((; seconds > 0; seconds--)); do
        if "$@"; then return; fi
        kill -0 "$pid" 2>/dev/null || fail "it ended before its $what"
        sleep 1
    done
    fail "no $what in time"
}

has_status() { # STATUS PID WHAT
    local status=0
    wait "$2" || status=$?
    ((status == $1)) || fail "$3: status $status, expected $1"
}

metric() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$@"; }

has_files() { # FOLDER NAME…
    local name
    for name in "${@:2}"; do
        [[ -s $1/$name ]] || fail "$1 has no $name"
    done
}

# ---- 0: built, and how large
if [[ -z ${SKIP_BUILD:-} ]]; then
    for target in audit train; do
        say "building $target on $base"
        build "$target"
    done
fi
root_of "$base"
base_size=$(du -sm "$root" | cut -f1)
root_of localhost/autorater:audit
audit_root=$root audit=localhost/autorater:audit
root_of localhost/autorater:train
train_root=$root train=localhost/autorater:train
for target in audit train; do
    declare -n this=${target}_root
    echo "$target: $(($(du -sm "$this" | cut -f1) - base_size)) MB above its base of $base_size MB"
done
(($(du -sm "$audit_root" | cut -f1) - base_size < 560)) || fail "the audit image is larger than 560 MB above its base"
tools=(pip)
[[ -n $(find "$train_root" -maxdepth 7 -type d -path '*site-packages/triton' -print -quit) ]] || tools+=(cc gcc g++) # Triton needs one
for tool in "${tools[@]}"; do
    if chroot "$train_root" sh -c "command -v $tool" >/dev/null; then fail "$tool is in the train image"; fi
done

# ---- 1: usage, versions, the audit of verdicts, the embedded default
for target in audit train; do
    declare -n this=${target}_root image=$target
    say "$target: usage without arguments, versions, an unknown command"
    (container "$this" "$image" "$work/$target") | grep '^usage:'
    (container "$this" "$image" "$work/$target" versions)
    (container "$this" "$image" "$work/$target" trian) && status=0 || status=$?
    ((status == 2)) || fail "unknown command: status $status"
done
(container "$audit_root" "$audit" "$work/audit" train) && status=0 || status=$?
((status == 2)) || fail "train in the audit image: status $status"

say "audit: 60 recorded verdicts, 20 of which follow the slot"
mkdir -p "$work/audit/output"
for ((i = 0; i < 60; i++)); do
    echo "{\"id\": \"$i\", \"verdict_ab\": \"A\", \"verdict_ba\": \"$( ((i % 3)) && echo A || echo B)\"}"
done >"$work/audit/output/verdicts.jsonl"
(container "$audit_root" "$audit" "$work/audit" audit --judge recorded:runs/verdicts.jsonl)
[[ $(metric "$work/audit/output/audit/metrics.json" n_pairs) == 60.0 ]] || fail "n_pairs"
[[ $(metric "$work/audit/output/audit/metrics.json" flip_rate) == 0.333* ]] || fail "flip_rate"

say "train: the embedded default, 12 steps"
(container "$train_root" "$train" "$work/train" train "${small[@]}" --max_steps 12)
has_files "$work/train/output/grpo_simulated" \
    metrics.json predictions.jsonl report.html reliability.png model.safetensors
find "$work/train/output" ! -user 10001 | grep . && fail "files of another user"

# ---- 3: SIGTERM ends the training with a checkpoint, and the same command resumes from it
say "SIGTERM: status 143 and a checkpoint; the same command resumes"
run=$work/stopped/output/grpo_simulated
long=(train "${small[@]}" --max_steps 60 --save_strategy steps --save_steps 10 --resume_from_checkpoint auto)
(container "$train_root" "$train" "$work/stopped" "${long[@]}") &
pid=$!
wait_for 1800 "$pid" "first checkpoint" test -e "$run/checkpoint-10/trainer_state.json"
kill -TERM "$(process_one "$pid")"
has_status 143 "$pid" "stopped training"
newest=$(find "$run" -name trainer_state.json -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
step=$(metric "$newest" global_step)
((step >= 10 && step < 60)) || fail "stopped at step $step"
[[ ! -e $run/report.html ]] || fail "a report of a stopped run"
echo "stopped after step $step of 60"
(container "$train_root" "$train" "$work/stopped" "${long[@]}") 2>&1 | tee "$work/resumed.log"
grep -qi "checkpoint-$step" "$work/resumed.log" || fail "it did not resume from checkpoint-$step"
has_files "$run" metrics.json report.html

# ---- 4: two nodes
say "two containers as two nodes, ZeRO-2 on CPUs"
ip netns add node-0
ip netns add node-1
ip link add name eth0 netns node-0 type veth peer name eth0 netns node-1
for node in 0 1; do
    ip -netns "node-$node" address add "192.0.2.1$node/24" dev eth0
    ip -netns "node-$node" link set eth0 up
done
pids=()
for node in 0 1; do
    SETTINGS=(NNODES=2 "NODE_RANK=$node" MASTER_ADDR=node-0 GLOO_SOCKET_IFNAME=eth0)
    (NODE=node-$node container "$train_root" "$train" "$work/nodes" train "${small[@]}" --max_steps 12) \
        >"$work/node-$node.log" 2>&1 &
    pids+=($!)
done
for node in 0 1; do
    wait "${pids[$node]}" || {
        tail -n 40 "$work/node-$node.log"
        fail "node $node"
    }
done
cat "$work"/node-?.log
grep -q zero2_cpu "$work/node-0.log" || fail "not with ZeRO-2"
grep -q '^2 processes' "$work/node-0.log" || fail "not two processes"
! grep -q '^report:' "$work/node-1.log" || fail "node 1 wrote a report"
has_files "$work/nodes/output/grpo_simulated" metrics.json report.html model.safetensors

say "verified: usage, versions, audit, training, SIGTERM and resume, two nodes"
