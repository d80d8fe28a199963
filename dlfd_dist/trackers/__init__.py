"""Where the figures of a run can be followed: csv, mlflow, tensorboard, wandb, and by plugins."""

from . import csv_files, mlflow, tensorboard, wandb  # noqa: F401  (fill the registry)
from .base import Tracked, Tracker, check_trackers, needs, trackers
from .tracking import Tracking, catch_up

__all__ = ["Tracked", "Tracker", "Tracking", "catch_up", "check_trackers", "needs", "trackers"]
