"""Command line and YAML -> frozen dataclasses; no other part of the library knows Hydra."""

from .groups import GROUPS, group_options, known_settings, with_sweep
from .job import compose_job, config_text, job_from_dict, load_config, settings_text
from .of_verbs import split_audit, split_cluster, split_compare, split_search
from .overrides import as_text, expand_grid

__all__ = [
    "GROUPS",
    "as_text",
    "compose_job",
    "config_text",
    "expand_grid",
    "group_options",
    "job_from_dict",
    "known_settings",
    "load_config",
    "settings_text",
    "split_audit",
    "split_cluster",
    "split_compare",
    "split_search",
    "with_sweep",
]
