# shellcheck shell=bash
# Where the ranks of a job meet; source this in the batch script before srun.
# The port comes from job id and restart count, so that two jobs on one node, or a requeued job and
# what is left of its first start, do not meet each other. It stays below 32768, from where Linux
# hands out ports to outgoing connections.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 31 + ${SLURM_RESTART_COUNT:-0} * 7) % 12000))
export MASTER_ADDR MASTER_PORT
