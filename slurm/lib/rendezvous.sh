# shellcheck shell=bash
# Where the ranks of a job meet; source this in the batch script before srun.
# The port comes from job id and restart count, so that two jobs on one node, or a requeued job and
# what is left of its first start, do not meet each other. It stays below 32768, from where Linux
# hands out ports to outgoing connections.

# The first host of node[07-09,12],other, which is node07. scontrol knows it too, but a container may
# lack scontrol, and a hung controller does not answer.
first_host() { # NODELIST
  local rest=$1 host='' group='^([^],[]*)\[([^],-]+)[^]]*\](.*)$'
  while [[ $rest =~ $group ]]; do # several groups in rack[1-2]node[3-4]
    host+=${BASH_REMATCH[1]}${BASH_REMATCH[2]}
    rest=${BASH_REMATCH[3]}
  done
  echo "$host${rest%%,*}"
}

MASTER_ADDR=$(first_host "${SLURM_JOB_NODELIST-}")
if [ -z "$MASTER_ADDR" ]; then
  echo "dlfd: SLURM_JOB_NODELIST is empty: source rendezvous.sh in a batch script of SLURM" >&2
  exit 2
fi
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 31 + ${SLURM_RESTART_COUNT:-0} * 7) % 12000))
export MASTER_ADDR MASTER_PORT
