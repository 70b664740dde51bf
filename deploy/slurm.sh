#!/usr/bin/env bash
# A Ray cluster inside a SLURM allocation, and one job on it. From the root of the repository:
#
#   sbatch deploy/slurm.sh jobs/sweep_dict_size.py
#   sbatch --nodes 4 deploy/slurm.sh jobs/compare_baselines.py --dataset emotic --data-root /data/emotic
#
# Sent again after the time was up, it goes on where it stopped. The repository, .venv and runs/ have to lie on a file
# system that all nodes share.
#SBATCH --job-name=ccim_ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
# Two minutes before the time is up, this script is told, and tells the job.
#SBATCH --signal=B:TERM@120
#SBATCH --output=ccim_ray-%j.log
set -euo pipefail

[ $# -gt 0 ] || { echo "error: name a job, such as jobs/sweep_dict_size.py, and its flags" >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:-.}"
[ -x .venv/bin/python ] || { echo "error: $PWD/.venv is missing; run make install there" >&2; exit 2; }
# shellcheck source=/dev/null
source .venv/bin/activate

cpus=${SLURM_CPUS_PER_TASK:-1}
# Since SLURM 22.05 srun does not take over what sbatch was told, and its steps would have one CPU each.
export SRUN_CPUS_PER_TASK=$cpus

hosts=()
while IFS= read -r host; do hosts+=("$host"); done < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
address=$(srun --nodes 1 --ntasks 1 --nodelist "$head" hostname --ip-address)
address=${address%% *}
case ${#hosts[@]}:$address in
    1:*) ;;
    *:127.* | *:::1)
        echo "error: $head gives $address as its own address, where no other node finds it; mend its /etc/hosts" >&2
        exit 2 ;;
esac

# Nodes are shared with others, so nobody joins this cluster without its token. Every allocation has its own.
umask 077
state=$(mktemp -d "$PWD/.ray-$SLURM_JOB_ID-XXXXXX")
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$state/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/token"
# In /tmp/ray, Ray's own choice, clusters of other users would be in the way.
export RAY_TMPDIR="/tmp/ccim_ray-$SLURM_JOB_ID"

# Two jobs of one user may share a node.
port=${RAY_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
gpus=${SLURM_GPUS_ON_NODE:-0}
steps=()
job=

# shellcheck disable=SC2329  # called by the trap
leave() {
    # SLURM ends what a step started with it, so there is no `ray stop`, which would end other clusters too.
    for step in "${steps[@]}"; do kill "$step" 2> /dev/null || true; done
    wait || true
    srun --ntasks-per-node 1 rm -rf "$RAY_TMPDIR" || true
    rm -rf "$state"
}
trap leave EXIT
trap '[ -z "$job" ] || kill -TERM "$job"' TERM

srun --nodes 1 --ntasks 1 --nodelist "$head" \
    ray start --head --block --node-ip-address "$address" --port "$port" --num-cpus "$cpus" --num-gpus "$gpus" \
    --include-dashboard false --disable-usage-stats &
steps+=($!)
for host in "${hosts[@]:1}"; do
    srun --nodes 1 --ntasks 1 --nodelist "$host" \
        ray start --block --address "$address:$port" --num-cpus "$cpus" --num-gpus "$gpus" --disable-usage-stats &
    steps+=($!)
done

export RAY_ADDRESS=$address:$port
# The notice above: for half of it the job waits for the epochs that run.
export RAY_JOB_STOP_WAIT_TIME_S=100
python - "${#hosts[@]}" << 'PYTHON'
import sys
import time

import ray

deadline = time.monotonic() + 300
while True:
    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
        if len([node for node in ray.nodes() if node["Alive"]]) >= int(sys.argv[1]):
            break
        ray.shutdown()
    except ConnectionError:
        pass
    if time.monotonic() > deadline:
        sys.exit(f"error: the {sys.argv[1]} nodes did not form a cluster within five minutes; see the log above")
    time.sleep(2)
PYTHON

python "$@" &
job=$!
status=0
wait "$job" || status=$?
# A signal ends `wait` before the job has saved.
while kill -0 "$job" 2> /dev/null; do
    status=0
    wait "$job" || status=$?
done
exit "$status"
