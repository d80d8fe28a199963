#!/bin/bash
# Stops what up.sh started, by its pid files, and nothing else. --purge also
# removes the lab's directory.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -d "$RUN" ] || { say "nothing in $DIR"; exit 0; }
exec 9>"$DIR/lock"
flock -w 120 9 || die 'another up.sh or down.sh is running'
# shellcheck source=/dev/null
[ -f "$DIR/settings" ] && . "$DIR/settings"
for n in $(node_names); do node_down "$n" KILL & done
wait
stop slurmctld
stop slurmdbd
stop mariadbd TERM 20
stop munged
if [ -f "$RUN/bridge" ]; then ip link del "$BRIDGE" 2>/dev/null; rm -f "$RUN/bridge"; fi
if [ -f "$RUN/etc-hosts" ]; then
  kept=$(grep -v ' # slurm-lab$' /etc/hosts)
  printf '%s\n' "$kept" > /etc/hosts # in place: it may be a mount
  rm -f "$RUN/etc-hosts"
fi
if [ "${1:-}" = --purge ]; then
  [ -f "$DIR/settings" ] && rm -rf "$DIR"
fi
say 'down'
