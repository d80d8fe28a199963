#!/bin/bash
# Brings the lab up, runs a command in its environment and takes the lab down again, whatever became
# of the command; the exit status is the command's. A lab that was up before is left up.
#   with.sh COMMAND [ARGUMENT...]
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
pid_of slurmctld >/dev/null || trap 'bash "$here/down.sh"' EXIT
bash "$here/up.sh" >/dev/null || exit
# shellcheck source=/dev/null
. "$DIR/env.sh"
"$@"
