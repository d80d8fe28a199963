# shellcheck shell=bash
# How a batch script ends once its ranks have; source this, then: requeue_or_exit "$status".
# 75: they stopped as asked and saved. 140, 143: USR2 or TERM came before they listened, so nothing was
# lost. 76: ranks lost each other and none knows why, as when a node dies. In each case the same job
# comes back and goes on from its last checkpoint.
requeue_or_exit() { # STATUS
  if [ "$1" -ne 0 ] && [ "$1" -ne 75 ] && [ "$1" -ne 76 ] && srun_missed_a_node; then set -- 76; fi
  local job=$SLURM_JOB_ID
  # One task of an array may bear the number of the whole array, which must not be requeued.
  if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
  if [ "$1" -eq 76 ]; then let_slurm_notice; fi
  if [ "$1" -eq 75 ] || [ "$1" -eq 76 ] || [ "$1" -eq 140 ] || [ "$1" -eq 143 ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "${DLFD_MAX_RESTARTS:-100}" ]; then
      requeue_job "$job"
    else
      echo "dlfd: not started again after ${SLURM_RESTART_COUNT:-0} restarts (DLFD_MAX_RESTARTS)" >&2
    fi
  fi
  exit "$1"
}

# Where srun writes to a node whose slurmstepd is gone it ends the step at once: the ranks are killed
# before they can say that they lost each other, and nothing but srun's own words tells of it.
srun_missed_a_node() {
  local log
  log=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *StdOut=//p')
  [ -f "$log" ] && tail -n 20 "$log" | grep -q 'srun: error: Aborting, io error and missing step on node'
}

# SLURM misses a dead node after SlurmdTimeout, and then starts the job again without it. Requeued before,
# the job could get the dead node again.
let_slurm_notice() {
  local timeout
  timeout=$(scontrol show config | sed -n 's/^SlurmdTimeout *= *\([0-9]*\).*/\1/p')
  timeout=$((${timeout:-300} + 15))
  echo "dlfd: ranks lost each other; the job comes back in $timeout s, or when SLURM misses a node" >&2
  sleep "$timeout"
}

# A controller that is away (restarted, failing over) must not cost the run: scontrol gives up after
# MessageTimeout, 10 s. One that answers and refuses three times means it.
requeue_job() { # JOB
  local end=$((SECONDS + 900)) refused=0
  until scontrol requeue "$1"; do
    if scontrol ping >/dev/null 2>&1; then refused=$((refused + 1)); fi
    if [ $refused -ge 3 ] || [ $SECONDS -ge $end ]; then
      echo "dlfd: SLURM did not requeue $1: submit again, or 'dlfd retry'" >&2
      return
    fi
    sleep 5
  done
}
