"""dlfd completion: the script that completes the command in bash, zsh or fish.

Verbs and options are those of the parser, settings and choices those that help lists, so that a
script made anew knows what this installation knows. Completing starts no Python.
"""

from __future__ import annotations

import dataclasses
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlfd_dist.compose import GROUPS, group_options, known_settings
from dlfd_dist.config import METHOD_CONFIGS, JobConfig, read_by, to_dict
from dlfd_dist.config.checks import METHOD_SCHEDULERS
from dlfd_dist.config.paths import PATH_SETTINGS
from dlfd_dist.errors import ConfigError
from dlfd_dist.libraries import INSTALL
from dlfd_dist.registry import near_match

from .cli import NEEDS, VERBS
from .verbs.export import FORMS
from .verbs.settings import JOB_VERB, OWN, choices
from .verbs.submit import VERBS as SUBMITTED

RUNS = ("report", "certify", "verify", "export", "status", "logs", "cancel", "retry", "inspect")
"""Verbs whose words are run directories or files."""
KINDS = {"audit": ("ulira", "klom", "leaks"), "completion": ("bash", "zsh", "fish"),
         "models": tuple(INSTALL), "doctor": ("slurm",), "submit": SUBMITTED}  # fmt: skip
"""By verb, the words that it takes."""
SHARED = {"lr_scheduler": METHOD_SCHEDULERS, "optimizer": ("sgd", "adam")}
"""Words of settings that several sections have; which of them a section takes, its check says."""


def run_completion(words: Sequence[str]) -> int:
    """Print the script of a shell."""
    if len(words) != 1 or words[0] not in SCRIPTS:
        given = " ".join(words) or "nothing"
        raise ConfigError(
            f"'dlfd completion' was given {given}: give one of {', '.join(SCRIPTS)}, as in "
            "'eval \"$(dlfd completion bash)\"'." + near_match(given, SCRIPTS)
        )
    print(SCRIPTS[words[0]](), end="")
    return 0


def verb_words() -> dict[str, list[str]]:
    """Return by verb the words that may follow it: other words, options, settings with `=`."""
    return {
        name: [*KINDS.get(name, ()), *verb.common, *verb.options, "--help", *_settings(name)]
        for name, verb in VERBS.items()
    }


def _settings(verb: str) -> Iterator[str]:
    if not VERBS[verb].has_settings:
        return
    yield from (f"{group}=" for group in GROUPS)
    read = {*read_by(JOB_VERB.get(verb, "unlearn"), to_dict(JobConfig())), "run", "runtime"}
    named = {name for method in METHOD_CONFIGS.values() for name in known_settings(method)}
    yield from (f"{n}=" for n in sorted(named - {"verb"}) if n.partition(".")[0] in read)
    if verb in OWN:
        section, split = OWN[verb]
        yield from (f"{section}.{name}=" for name in to_dict(split([])[0]))
    if verb == "submit":
        yield "cluster="


def setting_choices() -> dict[str, list[str]]:
    """Return by setting the words that it may be; of those that take any word there are none."""
    words_of: dict[str, list[str]] = {group: group_options(group) for group in GROUPS}
    words_of["cluster"] = group_options("cluster")
    _add_choices(words_of, JobConfig(), "")
    for method in METHOD_CONFIGS.values():
        _add_choices(words_of, method(), "method.")
    for section, split in OWN.values():
        own, _ = split([])
        _add_choices(words_of, own, f"{section}.")
    return {name: words for name, words in sorted(words_of.items()) if words}


def _add_choices(words_of: dict[str, list[str]], config: Any, prefix: str) -> None:
    for name, words in choices(type(config)).items():
        # Methods may differ in what one setting may be.
        _add(words_of, name, words)
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        inner = getattr(config, field.name)
        if dataclasses.is_dataclass(inner):
            _add_choices(words_of, inner, f"{prefix}{field.name}.")
        elif hints[field.name] is bool:
            _add(words_of, f"{prefix}{field.name}", ("true", "false"))
        elif field.name in SHARED:
            words = [w for w in SHARED[field.name] if _is_allowed(config, field.name, w)]
            _add(words_of, f"{prefix}{field.name}", words)


def _add(words_of: dict[str, list[str]], name: str, words: Sequence[str]) -> None:
    known = words_of.setdefault(name, [])
    known += [word for word in words if word not in known]


def _is_allowed(config: Any, name: str, word: str) -> bool:
    try:
        dataclasses.replace(config, **{name: word})
    except ConfigError:
        return False
    return True


def _cases(table: Mapping[str, Sequence[str]]) -> str:
    """Return the branches of a `case`; names of equal words share one."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, words in table.items():
        shared.setdefault(tuple(words), []).append(name)
    return "\n".join(
        f"    {'|'.join(names)}) printf '%s\\n' {shlex.join(words)} ;;"
        for words, names in shared.items()
    )


def _filled(template: str) -> str:
    paths = [option for option, (kind, _) in NEEDS.items() if kind == "a path"]
    return (
        template.replace("@VERBS@", " ".join(VERBS))
        .replace("@VERB_WORDS@", _cases(verb_words()))
        .replace("@VALUES@", _cases({**setting_choices(), "--to": list(FORMS)}))
        .replace("@PATHS@", "|".join(sorted({*PATH_SETTINGS, "run.dir", "run.root"})))
        .replace("@RUN_VERBS@", "|".join(RUNS))
        .replace("@PATH_OPTIONS@", "|".join(paths))
    )


def _fish() -> str:
    """Return the script of fish, which leaves the search for candidates to bash."""
    script = _filled(TABLES) + '_dlfd_candidates "$@"'
    return FISH.replace("@SCRIPT@", script.replace("\\", "\\\\").replace("'", "\\'"))


TABLES = """\
_dlfd_verbs() { printf '%s\\n' @VERBS@; }
_dlfd_words() {
  case "$1" in
@VERB_WORDS@
  esac
}
_dlfd_values() {
  case "$1" in
@VALUES@
  esac
}
# A directory with a run.json is a run; others lead to more, and end with a slash.
_dlfd_paths() {
  local place
  for place in "$1"*; do
    if [ -f "$place/run.json" ]; then printf '%s\\n' "$place"
    elif [ -d "$place" ]; then printf '%s\\n' "$place/"
    elif [ -f "$place" ]; then printf '%s\\n' "$place"
    fi
  done
}
# Print the whole words that may stand at the place of the last of these; the first is dlfd.
_dlfd_candidates() {
  local verb="" word="" before="" value="" prefix=""
  shift
  while [ $# -gt 1 ]; do
    before="$1"
    case "$1" in -*) ;; *) [ -n "$verb" ] || verb="$1" ;; esac
    shift
  done
  word="${1-}"
  case "$before" in
    --to) _dlfd_values --to; return ;;
    @PATH_OPTIONS@) _dlfd_paths "$word"; return ;;
  esac
  if [ -z "$verb" ]; then _dlfd_verbs; return; fi
  case "$word" in
    *=*)
      value="${word#*=}"
      case "${word%%=*}" in
        @PATHS@) _dlfd_paths "$value" | while read -r place; do
          printf '%s\\n' "${word%%=*}=$place"; done; return ;;
      esac
      # Of a grid, as in method=dlfd,scrub, the last value is completed.
      case "$value" in *,*) prefix="${value%,*}," ;; esac
      _dlfd_values "${word%%=*}" | while read -r value; do
        printf '%s\\n' "${word%%=*}=$prefix$value"; done ;;
    *)
      case "$verb" in @RUN_VERBS@) case "$word" in -*) ;; *) _dlfd_paths "$word" ;; esac ;; esac
      _dlfd_words "$verb" ;;
  esac
}
"""

BASH = (
    '# Completion of dlfd in bash: eval "$(dlfd completion bash)"\n'
    + TABLES
    + """\
_dlfd() {
  local line="${COMP_LINE:0:COMP_POINT}" word cut candidate
  local -a words
  read -ra words <<< "$line"
  case "$line" in *[[:space:]]) words+=("") ;; esac
  word="${words[${#words[@]}-1]}"
  # readline replaces what follows the last character of COMP_WORDBREAKS alone.
  cut=""
  case "$COMP_WORDBREAKS" in *=*) case "$word" in *=*) cut="${word%%=*}=" ;; esac ;; esac
  COMPREPLY=()
  while read -r candidate; do
    case "$candidate" in "$word"*) COMPREPLY+=("${candidate#"$cut"}") ;; esac
  done < <(_dlfd_candidates "${words[@]}")
  if [ ${#COMPREPLY[@]} -eq 1 ]; then
    case "${COMPREPLY[0]}" in *=|*/) compopt -o nospace 2>/dev/null ;; esac
  fi
}
complete -F _dlfd dlfd
"""
)
ZSH = (
    '#compdef dlfd\n# Completion of dlfd in zsh: eval "$(dlfd completion zsh)", after compinit.\n'
    + TABLES
    + """\
_dlfd() {
  setopt local_options null_glob
  local candidate
  _dlfd_candidates "${(@)words[1,CURRENT]}" | while read -r candidate; do
    case "$candidate" in
      *=|*/) compadd -Q -S '' -- "$candidate" ;;
      *) compadd -Q -- "$candidate" ;;
    esac
  done
}
if (( $+functions[compdef] )); then compdef _dlfd dlfd; fi
"""
)
FISH = """\
# Completion of dlfd in fish, by bash: dlfd completion fish | source
function __dlfd_candidates
    set -l word (commandline -ct)
    bash -c '@SCRIPT@' bash (commandline -opc) "$word"
end
complete -c dlfd -f -a '(__dlfd_candidates)'
"""
SCRIPTS = {"bash": lambda: _filled(BASH), "zsh": lambda: _filled(ZSH), "fish": _fish}
"""By shell, what makes its script."""
