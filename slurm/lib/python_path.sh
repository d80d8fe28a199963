# shellcheck shell=bash
# What Python looks for modules in; source this, then: python_path [CODE], the code first.
# An empty or relative entry means the working directory, whose files would run in place of modules.
python_path() { # [CODE]
  local - IFS=: entry path=${1:-}
  set -f
  for entry in ${PYTHONPATH:-}; do
    case $entry in /*) path+=${path:+:}$entry ;; esac
  done
  export PYTHONPATH=$path
}
