#!/bin/bash
# Brings up a real multi-node SLURM cluster on this machine, as root, and waits
# until every node is idle. Safe to run again: starts only what is missing.
# Writes DIR/env.sh, to be sourced, and prints it; everything else goes to stderr.
# Settings: the SLURM_LAB_* variables at the top of lib.sh. --fresh: forget the
# old jobs and accounting first. --missing: print the packages that up.sh would
# install, and do nothing.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=(slurmctld slurmd slurm-client munge iproute2)
[ "$DB" = 1 ] && packages+=(slurmdbd mariadb-server-core mariadb-client-core)
missing() {
  local p
  for p in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
  done
}
install() {
  local p
  exec 8>/tmp/slurm-lab-apt.lock
  flock 8 # another lab's up.sh may be at it
  mapfile -t p < <(missing)
  [ ${#p[@]} -gt 0 ] || return 0
  say "installing ${p[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -y -q --no-install-recommends "${p[@]}"; } \
    >/tmp/slurm-lab-apt.$$ 2>&1 8>&- || { tail -20 /tmp/slurm-lab-apt.$$ >&2; die 'apt-get failed'; }
  rm -f /tmp/slurm-lab-apt.$$
}
if [ "${1:-}" = --missing ]; then
  missing
  exit
fi
[ "$(id -u)" = 0 ] || die 'must run as root'
if [ -n "$(missing)" ]; then install; fi
exec 8>&-

mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd -P)
RUN=$DIR/run
LOG=$DIR/log
# Unix socket paths end at 107 characters.
[ ${#DIR} -le 70 ] || die "SLURM_LAB_DIR is too long (${#DIR} > 70): $DIR"
chmod 755 "$DIR"
exec 9>"$DIR/lock"
flock -w 120 9 || die 'another up.sh or down.sh is running'
mkdir -p "$RUN" "$LOG"

if pid_of slurmctld >/dev/null; then
  # shellcheck source=/dev/null
  . "$DIR/settings" # a running lab keeps the settings it was started with
else
  [ "${1:-}" = --fresh ] && rm -rf "$DIR"/{state,spool,node,db}
  if [ "$NET" = auto ]; then can_netns && NET=netns || NET=loopback; fi
  for v in NUMBER NODES CPUS MEM GPUS NET DB SUBNET PORT SHM PRIVATE BRIDGE VETH; do
    printf '%s=%q\n' "$v" "${!v}"
  done > "$DIR/settings"
fi
mkdir -p "$DIR"/{state,spool,node,db,dev}
export SLURM_CONF=$DIR/slurm.conf
unset SLURM_JOB_ID SLURM_JOBID

ctl_host=$(hostname -s)
if [ "$NET" = netns ]; then ctl_addr=$SUBNET.1; else ctl_addr=127.0.0.1; fi

render() { # TEMPLATE
  sed -e "s#@DIR@#$DIR#g; s#@CLUSTER@#lab#g; s#@CTL_HOST@#$ctl_host#g; s#@CTL_ADDR@#$ctl_addr#g" \
    -e "s#@CTLD_PORT@#$PORT#g; s#@DBD_PORT@#$((PORT + 2))#g; s#@GRACE@#$GRACE#g" \
    -e "s#@FIRST_JOB@#$FIRST_JOB#g" \
    -e "s#@SLURMD_TIMEOUT@#$SLURMD_TIMEOUT#g; s#@REQUEUE_DELAY@#$REQUEUE_DELAY#g" \
    -e "s#@KILL_WAIT@#$KILL_WAIT#g; s#@DEF_MEM@#$((MEM / CPUS))#g" \
    -e "/@ACCOUNTING@/{r $DIR/accounting.part" -e 'd}' \
    -e "/@NODES@/{r $DIR/nodes.part" -e 'd}' "$here/conf/$1.in"
}

if ! pid_of slurmctld >/dev/null; then
  if [ "$DB" = 1 ]; then
    # With munge, AccountingStoragePass is the socket; AuthInfo is not used for it.
    printf '%s\n' AccountingStorageType=accounting_storage/slurmdbd \
      AccountingStorageHost=127.0.0.1 "AccountingStoragePort=$((PORT + 2))" \
      "AccountingStoragePass=$DIR/run/munge.socket" AccountingStorageTRES=gres/gpu
  else
    echo AccountingStorageType=accounting_storage/none
  fi > "$DIR/accounting.part"
  gres=; : > "$DIR/gres.conf"
  if [ "$GPUS" -gt 0 ]; then
    # File= must be a character device, or CUDA_VISIBLE_DEVICES is not set.
    for ((g = 0; g < GPUS; g++)); do
      [ -c "$DIR/dev/gpu$g" ] || mknod "$DIR/dev/gpu$g" c 1 3 || die 'mknod failed'
    done
    files=$DIR/dev/gpu0
    [ "$GPUS" -gt 1 ] && files="$DIR/dev/gpu[0-$((GPUS - 1))]"
    echo "NodeName=n[1-$NODES] Name=gpu File=$files" > "$DIR/gres.conf"
    gres=Gres=gpu:$GPUS
  fi
  printf '127.0.0.1 localhost\n%s %s\n' "$ctl_addr" "$ctl_host" > "$DIR/hosts"
  : > "$DIR/resolv.conf"
  for n in $(node_names); do
    if [ "$NET" = netns ]; then
      where="NodeAddr=$(node_ip "$n") Port=6818"
      echo "$(node_ip "$n") $n" >> "$DIR/hosts"
    else
      where="NodeHostname=$ctl_host NodeAddr=127.0.0.1 Port=$((PORT + 10 + ${n#n}))"
    fi
    echo "NodeName=$n $where CPUS=$CPUS RealMemory=$MEM $gres State=UNKNOWN"
  done > "$DIR/nodes.part"
  render slurm.conf > "$DIR/slurm.conf"
  render slurmdbd.conf > "$DIR/slurmdbd.conf"
  render my.cnf > "$DIR/my.cnf"
  chmod 600 "$DIR/slurmdbd.conf"
fi

# --- munge: its own key and socket, so the machine's munge is left alone -----
[ -s "$DIR/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom > "$DIR/munge.key")
chmod 600 "$DIR/munge.key"
launch munged munged --foreground --force --num-threads=8 --socket="$RUN/munge.socket" \
  --key-file="$DIR/munge.key" --pid-file="$RUN/munged.own.pid" \
  --seed-file="$RUN/munged.seed" --log-file="$LOG/munged.log"
munge_ok() { munge -n -S "$RUN/munge.socket" | unmunge -S "$RUN/munge.socket"; }
wait_for 20 munged munge_ok

# --- accounting --------------------------------------------------------------
if [ "$DB" = 1 ]; then
  if [ ! -d "$DIR/db/data/mysql" ]; then
    # In turn: of three labs that did this at once, one failed.
    flock /tmp/slurm-lab-db.lock mariadb-install-db --no-defaults --user=root --datadir="$DIR/db/data" \
      --innodb-log-file-size=16M \
      --auth-root-authentication-method=socket --auth-root-socket-user=root \
      --skip-test-db --skip-name-resolve >"$LOG/mariadb-install.out" 2>&1 ||
      { tail -20 "$LOG/mariadb-install.out" >&2; die 'mariadb-install-db failed'; }
  fi
  launch mariadbd mariadbd --defaults-file="$DIR/my.cnf"
  wait_for 60 MariaDB mariadb --no-defaults --socket="$RUN/mysql.sock" -e 'select 1'
  # slurmdbd.conf has no socket setting; the client library reads this variable.
  export MYSQL_UNIX_PORT=$RUN/mysql.sock
  (cd "$DIR" && launch slurmdbd slurmdbd -D)
  unset MYSQL_UNIX_PORT
  wait_for 60 slurmdbd sacctmgr -n list cluster
  # Known beforehand, the cluster registers at once.
  sacctmgr -n list cluster lab format=cluster%20 | grep -q lab ||
    sacctmgr -i add cluster lab >/dev/null || die 'sacctmgr failed'
fi

# --- controller and nodes ----------------------------------------------------
if [ "$NET" = netns ] && ! ip link show "$BRIDGE" >/dev/null 2>&1; then
  { ip link add "$BRIDGE" type bridge && ip addr add "$SUBNET.1/24" dev "$BRIDGE" &&
    ip link set "$BRIDGE" up; } || die "no bridge $BRIDGE"
  touch "$RUN/bridge"
fi
if [ "$NET" = loopback ] && ! grep -q ' # slurm-lab$' /etc/hosts; then
  # Jobs resolve the node names (MASTER_ADDR); down.sh takes this out again.
  for n in $(node_names); do echo "127.0.0.1 $n # slurm-lab"; done >> /etc/hosts
  touch "$RUN/etc-hosts"
fi
launch slurmctld slurmctld -D -f "$DIR/slurm.conf"
wait_for 60 slurmctld scontrol ping
for n in $(node_names); do node_up "$n"; done
# A node left drained or down by an earlier test is put back to work.
for n in $(sinfo -h -N -p batch -t drain,down,fail -o %n); do
  scontrol update "nodename=$n" state=resume 2>/dev/null
done
nodes_ready() {
  [ "$(sinfo -h -N -p batch -o %t | grep -cE '^(idle|mix|alloc|comp)$')" = "$NODES" ]
}
wait_for 60 'the nodes' nodes_ready

printf 'export SLURM_CONF=%q\nexport SLURM_LAB_DIR=%q\nexport SLURM_LAB_NUMBER=%q\n' \
  "$SLURM_CONF" "$DIR" "$NUMBER" | tee "$DIR/env.sh"
say "$NODES nodes ready ($NET, $CPUS cpus, $MEM MB and $GPUS fake gpus each; sacct: $DB)"
