# Settings and helpers shared by up.sh, down.sh and node.sh (bash).
# shellcheck shell=bash
# shellcheck disable=SC2034 # settings that only the scripts that source this read

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
NUMBER=${SLURM_LAB_NUMBER:-0}          # several labs at once: each has a number, 0 to 9
DIR=${SLURM_LAB_DIR:-/tmp/slurm-lab}
# The number keeps folders, networks, ports and job ids apart.
[ "$NUMBER" = 0 ] || DIR=${SLURM_LAB_DIR:-/tmp/slurm-lab-$NUMBER}
RUN=$DIR/run
LOG=$DIR/log

NODES=${SLURM_LAB_NODES:-4}            # n1..nN
CPUS=${SLURM_LAB_CPUS:-4}              # per node, as SLURM counts them
MEM=${SLURM_LAB_MEM_MB:-5000}          # per node, as SLURM counts it
GPUS=${SLURM_LAB_GPUS:-2}              # fake, per node
NET=${SLURM_LAB_NET:-auto}             # netns | loopback | auto
DB=${SLURM_LAB_DB:-1}                  # 1: slurmdbd + MariaDB, so sacct works
SUBNET=${SLURM_LAB_SUBNET:-10.77.$NUMBER} # netns mode only; never leaves the machine
PORT=${SLURM_LAB_PORT_BASE:-$((16817 + 100 * NUMBER))} # slurmctld, slurmdbd, loopback slurmds
FIRST_JOB=$((1 + 100000 * NUMBER))     # id of the first job
SHM=${SLURM_LAB_SHM:-4g}               # each node's own /dev/shm
PRIVATE=${SLURM_LAB_PRIVATE:-/tmp/ray /tmp/dlfd-ray-$(id -u)} # each node has its own
SLURMD_TIMEOUT=${SLURM_LAB_SLURMD_TIMEOUT:-10}
REQUEUE_DELAY=${SLURM_LAB_REQUEUE_DELAY:-5}
KILL_WAIT=${SLURM_LAB_KILL_WAIT:-5}
GRACE=${SLURM_LAB_GRACE:-20}
BRIDGE=${SLURM_LAB_BRIDGE:-slurmlab$NUMBER}
VETH=${SLURM_LAB_VETH:-slv${NUMBER}n}        # how the nodes' network devices begin

say() { echo "slurm-lab: $*" >&2; }
die() { say "$*"; exit 1; }
node_names() { seq -f 'n%g' 1 "$NODES"; }
node_ip() { echo "$SUBNET.$((10 + ${1#n}))"; }

# A pid file holds the pid and its start time, so that a reused pid is not ours.
# A zombie is dead: whoever reaps orphans here may take seconds over it.
started_at() { sed -n 's/.*) //; /^[^ZX]/p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
pid_of() { # NAME: prints the pid if that daemon is alive
  local pid at
  [ -f "$RUN/$1.pid" ] && read -r pid at < "$RUN/$1.pid" &&
    [ -n "$at" ] && [ "$(started_at "$pid")" = "$at" ] && echo "$pid"
}
launch() { # NAME COMMAND...: starts it detached, unless alive
  local name=$1 pid
  shift
  pid_of "$name" >/dev/null && return 0
  setsid "$@" </dev/null >>"$LOG/$name.out" 2>&1 9>&- &
  pid=$!
  echo "$pid $(started_at "$pid")" > "$RUN/$name.pid"
}
stop() { # NAME [SIGNAL [SECONDS]]: signal, wait, then KILL
  local pid i
  if pid=$(pid_of "$1"); then
    kill -"${2:-TERM}" "$pid" 2>/dev/null
    for ((i = 0; i < ${3:-10} * 20; i++)); do
      pid_of "$1" >/dev/null || break
      sleep 0.05
    done
    pid_of "$1" >/dev/null && kill -KILL "$pid" 2>/dev/null
  fi
  rm -f "$RUN/$1.pid"
}
wait_for() { # SECONDS WHAT COMMAND...
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "timed out after ${limit}s waiting for $what (logs in $LOG)"
    sleep 0.05
  done
}

can_netns() {
  [ "$(id -u)" = 0 ] && unshare --net --uts --pid --mount --fork true 2>/dev/null &&
    ip link add "slurmtest$NUMBER" type bridge 2>/dev/null && ip link del "slurmtest$NUMBER"
}

# --- nodes -----------------------------------------------------------------
# netns mode: a node is a process tree in its own network, host name, pid and
# mount namespaces, whose pid 1 is node-init.sh. loopback mode: just a slurmd.
node_init_pid() { # NAME: the node's pid 1, as seen from here
  local pid
  pid=$(pid_of "node-$1") || return 1
  [ "$NET" = netns ] || { echo "$pid"; return; }
  tr -d ' ' < "/proc/$pid/task/$pid/children" | grep .
}
node_up() {
  local name=$1 pid init i=${1#n}
  pid_of "node-$name" >/dev/null && return 0
  mkdir -p "$DIR/spool/$name" "$DIR/node/$name"
  if [ "$NET" = loopback ]; then
    SLURM_CONF=$DIR/slurm.conf launch "node-$name" slurmd -D -N "$name" -f "$DIR/slurm.conf"
    return
  fi
  ip link del "$VETH$i" 2>/dev/null
  SLURM_CONF=$DIR/slurm.conf LAB_DIR=$DIR LAB_PRIVATE=$PRIVATE LAB_SHM=$SHM \
    LAB_ADDR=$(node_ip "$name")/24 launch "node-$name" \
    unshare --net --uts --pid --mount --fork --kill-child=KILL --mount-proc \
    bash "$here/node-init.sh" "$name"
  wait_for 10 "$name's namespaces" node_init_pid "$name"
  init=$(node_init_pid "$name")
  ip link add "$VETH$i" type veth peer name eth0 netns "$init" || die "no veth for $name"
  ip link set "$VETH$i" master "$BRIDGE" up
}
node_down() { # NAME [KILL]: KILL is a power cut
  stop "node-$1" "${2:-TERM}" 5
  [ "$NET" = netns ] && ip link del "$VETH${1#n}" 2>/dev/null
  return 0
}
