"""Errors a user can cause or meet; each is printed as one sentence, without a traceback."""

FAILED, BAD_INPUT = 1, 2
UNKNOWN_SIGNER = 3
"""Exit status of `dlfd verify` for what is intact, and may be anybody's."""
NOT_ALL_CHECKED = 4
"""Exit status of `dlfd verify` where files are not there, and what could be checked holds."""
STOPPED, LOST = 75, 76
"""Exit statuses of a run that was stopped as asked, and of one that lost a node; both go on."""
INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended."""


class DlfdError(Exception):
    """A problem that is explained by its message alone; `exit_status` is what `dlfd` ends with."""

    exit_status = BAD_INPUT
    on_all_ranks = False
    """Every rank meets it alike, so one message is enough."""


class Stopped(DlfdError):
    """What runs was asked to stop; the same command goes on from there."""

    exit_status = STOPPED


class ConfigError(DlfdError):
    """A setting is unknown, missing or contradicts another one."""

    on_all_ranks = True


class DataError(DlfdError):
    """A manifest, an image or a forget request is not usable."""


class CheckpointError(DlfdError):
    """A checkpoint cannot be read or belongs to another architecture."""


class ModelError(DlfdError):
    """A model is not one that can be unlearned or measured as it is."""

    on_all_ranks = True


class MetricError(DlfdError):
    """A metric of another package fails, or returns what is no figure."""


class ExportError(DlfdError):
    """A file that does not answer as the model that was written into it."""

    exit_status = FAILED


class CaptureError(DlfdError):
    """The capture of a CUDA graph broke off; no run of this process can capture after it."""


class NonFiniteLossError(DlfdError):
    """The loss became NaN or infinite; the optimizer has not moved."""

    on_all_ranks = True


class RunDirError(DlfdError):
    """A run directory cannot be written or holds something else."""


class CollectiveError(DlfdError):
    """Ranks lost each other."""

    exit_status = FAILED


class RanksLostError(CollectiveError):
    """Ranks lost each other, and none of them failed by itself."""

    exit_status = LOST
