#!/bin/bash
# Brings the lab up, runs a command in its environment and takes the lab down again, whatever became
# of the command; the exit status is the command's. A lab that was up before is left up.
#   with.sh [--labs N] COMMAND [ARGUMENT...]
# --labs N: N labs side by side, with the numbers 0 to N-1. The command joins the first, and another
# by SLURM_LAB_NUMBER.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
labs=$NUMBER
if [ "${1:-}" = --labs ]; then
  [[ "${2:-}" =~ ^[1-9]$ ]] || die "--labs ${2:-}: give a number from 1 to 9"
  unset SLURM_LAB_DIR
  labs=$(seq -s ' ' 0 $(($2 - 1)))
  shift 2
fi

folder=${SLURM_LAB_DIR:-} # env.sh, below, names that of the first lab

ask() { # NUMBER COMMAND: runs it with the settings of that lab
  SLURM_LAB_NUMBER=$1 bash -c ". '$here/lib.sh'; $2"
}
started=()
take_down() {
  local number
  for number in "${started[@]}"; do
    SLURM_LAB_DIR=$folder SLURM_LAB_NUMBER=$number bash "$here/down.sh" &
  done
  wait
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ups=()
for number in $labs; do
  if ! ask "$number" 'pid_of slurmctld' >/dev/null; then
    started+=("$number")
    # The packages are installed by the first, and the others wait for it.
    SLURM_LAB_NUMBER=$number bash "$here/up.sh" >/dev/null &
    ups+=($!)
  fi
done
for pid in "${ups[@]}"; do wait "$pid" || exit; done
# shellcheck source=/dev/null
. "$(ask "${labs%% *}" "echo \$DIR")/env.sh"
"$@"
