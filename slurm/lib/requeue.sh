# shellcheck shell=bash
# How a batch script ends once its ranks have; source this, then: requeue_or_exit "$status".
# 75: they stopped as asked and saved. 140: USR2 (128 + 12) came before they listened, so nothing was
# lost. In both cases the same job comes back and goes on from its last checkpoint.
requeue_or_exit() { # STATUS
  local job=$SLURM_JOB_ID
  # One task of an array may bear the number of the whole array, which must not be requeued.
  if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
  if [ "$1" -eq 75 ] || [ "$1" -eq 140 ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "${DLFD_MAX_RESTARTS:-100}" ]; then
      scontrol requeue "$job"
    else
      echo "dlfd: not started again after ${SLURM_RESTART_COUNT:-0} restarts (DLFD_MAX_RESTARTS)" >&2
    fi
  fi
  exit "$1"
}
