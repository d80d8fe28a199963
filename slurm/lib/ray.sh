# shellcheck shell=bash
# What Ray needs in a batch script; source this before srun.
# Only who has the token may join Ray or run code on it; it lives as long as the job does.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

# 137: the first node's process was killed. The search is on disk, so it comes back as after 75.
ray_status() { # STATUS: prints what to end with
  if [ "$1" -eq 137 ]; then echo 75; else echo "$1"; fi
}
