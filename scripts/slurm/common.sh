#!/usr/bin/env bash
# Functions of the SLURM scripts in this folder, which source this file; srun runs it on each node: common.sh COMMAND
#   CELLBUNDLE_ROOT       the repository; by default the folder in which sbatch was called, because SLURM runs a copy of
#                         the script from a folder of its own
#   CELLBUNDLE_PROCESSES  processes per node; by default "gpu", one per GPU, which fails on a node without GPUs
# shellcheck disable=SC2034  # variables of the scripts that source it
set -euo pipefail

root="${CELLBUNDLE_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}"
processes="${CELLBUNDLE_PROCESSES:-gpu}"
signals=0
process=""

fail() {
    echo "$*" >&2
    exit 2
}

# Activate the environment, change to the folder of a bundle and set `workflow`, the arguments that start its workflow.
enter_bundle() {
    local name="${1:-}" file class
    file="$root/bundles/$name/scripts/workflow.py"
    if [ -z "$name" ] || [ ! -f "$file" ]; then
        fail "the first argument is '$name'; give the name of a bundle, a folder in $root/bundles"
    fi
    if [ -z "${VIRTUAL_ENV:-}" ] && [ -f "$root/.venv/bin/activate" ]; then
        # shellcheck disable=SC1091
        source "$root/.venv/bin/activate"
    fi
    cd "$root/bundles/$name"
    class="$(sed -n 's/^class \([A-Za-z0-9_]*\)(.*Workflow):.*/\1/p' "$file")"
    workflow=(-m monai.bundle run_workflow "scripts.workflow.$class" --config_file configs/hyper_parameters.yaml)
}

# Print the run folder, the value of --ckpt_path (the last one if there are several).
run_folder() {
    local folder=""
    while [ $# -gt 0 ]; do
        case "$1" in
            --ckpt_path) folder="${2:-}" ;;
            --ckpt_path=*) folder="${1#*=}" ;;
        esac
        shift
    done
    case "$folder" in
        /*) printf '%s\n' "$folder" ;;
        *) fail "--ckpt_path is '$folder'; give the absolute path of a folder that all nodes share" ;;
    esac
}

# Run a command at the first signal, and count the signals. For use in a trap.
on_signal() {
    signals=$((signals + 1))
    if [ "$signals" = 1 ] && [ -n "$process" ]; then
        "$@" || true
    fi
}

# Wait for `process` to end, even if signals interrupt the wait, and return its exit status.
wait_for_process() {
    local before status
    while true; do
        before="$signals"
        status=0
        wait "$process" || status=$?
        if [ "$before" = "$signals" ]; then
            return "$status"
        fi
    done
}

# Run torchrun on one node. SIGUSR1 and SIGTERM reach its children, the training processes, as one SIGUSR1. torchrun
# gets neither: SIGUSR1 would end it, and after a SIGTERM it kills the training processes within 30 seconds.
# SIGUSR1 is ignored until the training handles it.
run_on_node() {
    trap 'on_signal pkill -USR1 -P "$process"' USR1 TERM
    (
        trap '' USR1
        exec "$@"
    ) &
    process=$!
    wait_for_process
}

# Requeue the job if SLURM has not ended or requeued it itself: a job that is cancelled stays cancelled.
# A task of an array has the name JOB_TASK. Its plain number may denote the whole array.
requeue() {
    local job="$SLURM_JOB_ID"
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
        job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    fi
    if [[ "$(scontrol show job "$job")" != *JobState=RUNNING* ]]; then
        echo "preempted; job $job is not running any more (cancelled, or requeued by SLURM), so it is not requeued" >&2
    elif scontrol requeue "$job"; then
        echo "preempted; job $job is requeued" >&2
    else
        echo "preempted; job $job cannot be requeued. Submit it again with the same arguments to resume" >&2
    fi
}

# Train: train FOLDER NODES COMMAND ...   Run torchrun on each node, and requeue the job if the training was preempted.
# srun, because SLURM sends the SIGTERM of a preemption to job steps only, not to the batch shell.
# When the first node is done, the others have five minutes to save their files.
train() {
    local folder="$1" nodes="$2" status=0
    shift 2
    rm -f "$folder/PREEMPTED" # of an earlier start; it would requeue a job that fails
    trap 'on_signal kill -USR1 "$process"' USR1 TERM
    srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 \
        ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} --kill-on-bad-exit=0 --wait=300 \
        bash "$root/scripts/slurm/common.sh" "$@" &
    process=$!
    wait_for_process || status=$?
    if [ "$status" != 0 ] && [ -e "$folder/PREEMPTED" ]; then
        requeue
        status=75
    fi
    exit "$status"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    run_on_node "$@"
fi
