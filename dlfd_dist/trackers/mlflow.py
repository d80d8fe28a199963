"""A run in MLflow: in a local SQLite store, or where MLFLOW_TRACKING_URI says.

Its client adds no name of a user, a machine or a script, as `mlflow.start_run` would.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..locks import locked
from .base import Tracked, Tracker, trackers

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
"""Unless the environment says otherwise: nothing is reported to MLflow's makers, and a server that
is away is not waited for."""
EVERY_S = 5.0
"""Seconds between two writings of what was logged."""
MOST = 200
"""Scalars that wait at most; the client takes a thousand at once."""
LOCK_S = 60.0
TAG = "dlfd.run"


@trackers.register("mlflow")
class MLflowTracker(Tracker):
    """Goes on with the run that has the tag of this one."""

    packages = {"mlflow": "mlflow-skinny", "sqlalchemy": "sqlalchemy", "alembic": "alembic"}

    def start(self, run: Tracked) -> Mapping[str, int]:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric: Any = Metric
        self._waiting: list[Any] = []
        self._written = time.monotonic()
        given = os.environ.get("MLFLOW_TRACKING_URI")
        shared = run.shared.absolute()
        # SQLite alone does not part its writers on every network file system.
        self._lock = None if given else shared / ".mlflow.lock"
        artifacts = None if given else (shared / "mlflow-artifacts").as_uri()
        with self._alone():
            self._client = MlflowClient(tracking_uri=given or f"sqlite:///{shared / 'mlflow.db'}")
            experiment = self._experiment(run, artifacts)
            query = f"tags.`{TAG}` = '{run.id}'"
            earlier = self._client.search_runs([experiment], query, max_results=1)
            if earlier:
                self._id = earlier[0].info.run_id
                self._client.update_run(self._id, status="RUNNING")
                return self._last_steps(earlier[0].data.metrics)
            tags = {TAG: run.id, **({} if run.group is None else {"dlfd.group": run.group})}
            made = self._client.create_run(experiment, tags=tags, run_name=run.name)
            self._id = made.info.run_id
            params = [Param(name, str(value)) for name, value in run.settings.items()]
            self._client.log_batch(self._id, params=params)
        return {}

    def _experiment(self, run: Tracked, artifacts: str | None) -> str:
        """Return the experiment: that of the environment, of the group, or dlfd."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.group or "dlfd"
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        return self._client.create_experiment(name, artifact_location=artifacts)

    def _last_steps(self, names: Mapping[str, float]) -> dict[str, int]:
        """Return the last step that the store holds of each scalar."""
        histories = {name: self._client.get_metric_history(self._id, name) for name in names}
        return {name: max(point.step for point in values) for name, values in histories.items()}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self._lock is not None:
                stack.enter_context(locked(self._lock, wait_s=LOCK_S))
            yield

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        self._waiting += [self._metric(name, v, now, step) for name, v in scalars.items()]
        if len(self._waiting) >= MOST or time.monotonic() - self._written > EVERY_S:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        with self._alone():
            self._client.log_batch(self._id, metrics=self._waiting)
        self._waiting, self._written = [], time.monotonic()

    def end(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        self.log(step, figures)
        self._write()
        with self._alone():
            for path in files:
                self._client.log_artifact(self._id, str(path))
            self._client.set_terminated(self._id, "FINISHED")

    def close(self) -> None:
        self._write()
        with self._alone():
            if self._client.get_run(self._id).info.status == "RUNNING":
                self._client.update_run(self._id, status="KILLED")
