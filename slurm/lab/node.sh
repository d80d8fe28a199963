#!/bin/bash
# Does something to one node of a running lab:
#   node.sh crash n2          power cut: every process of the node dies at once
#   node.sh boot n2           starts it again
#   node.sh unplug n2 / plug n2     cuts / restores its network (netns mode)
#   node.sh slurmd-kill n2 / slurmd-start n2    only the daemon (netns mode)
#   node.sh resume n2         ends a drain ('Kill task failed' and the like)
#   node.sh exec n2 CMD...    runs a command as on that node (netns mode)
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=/dev/null
. "$DIR/settings"
verb=${1:?verb} name=${2:?node}
shift 2
case $verb in
  crash) node_down "$name" KILL ;;
  boot) node_up "$name" ;;
  unplug) ip link set "$VETH${name#n}" down ;;
  plug) ip link set "$VETH${name#n}" up ;;
  slurmd-kill)
    init=$(node_init_pid "$name") || die "$name is down"
    read -r -a children < "/proc/$init/task/$init/children"
    for p in "${children[@]}"; do
      [ "$(cat "/proc/$p/comm")" = slurmd ] && kill -KILL "$p"
    done ;;
  resume) SLURM_CONF=$DIR/slurm.conf scontrol update "nodename=$name" state=resume ;;
  slurmd-start) kill -HUP "$(node_init_pid "$name")" ;;
  exec) SLURM_CONF=$DIR/slurm.conf exec nsenter -t "$(node_init_pid "$name")" --net --uts --pid --mount "$@" ;;
  *) die "unknown verb $verb" ;;
esac
