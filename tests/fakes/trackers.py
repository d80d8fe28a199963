"""What the libraries of trackers read back of a run, and a tracker that fails."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfd_dist.trackers import Tracked, Tracker

Scalars = dict[str, list[tuple[int, float]]]
"""By name, (step, value) in the order in which they are held."""


def add(found: Scalars, name: str, step: int, value: float) -> None:
    found.setdefault(name, []).append((int(step), float(value)))


def of_csv(run: Path) -> Scalars:
    import csv

    found: Scalars = {}
    with (run / "trackers" / "csv" / "scalars.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            add(found, row["name"], int(row["step"]), float(row["value"]))
    return found


def of_tensorboard(run: Path) -> Scalars:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: Scalars = {}
    (file,) = (run / "trackers" / "tensorboard").iterdir()
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            # The loader turns a simple value into a tensor.
            if value.metadata.plugin_data.plugin_name == "scalars":
                add(found, value.tag, event.step, value.tensor.float_val[0])
    return found


def tensorboard_tags(run: Path) -> dict[str, Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(run / "trackers" / "tensorboard"), {"scalars": 0})
    held.Reload()
    return held.Tags()


def of_mlflow(run: Path) -> Scalars:
    found: Scalars = {}
    client, held = mlflow_run(run)
    for name in held.data.metrics:
        for metric in client.get_metric_history(held.info.run_id, name):
            add(found, name, metric.step, metric.value)
    return found


def mlflow_run(run: Path) -> tuple[Any, Any]:
    """Return a client and the one run of the store beside a run directory."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.parent / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    (held,) = client.search_runs(experiments)
    return client, held


def wandb_file(run: Path) -> Path:
    (file,) = (run / "trackers" / "wandb" / "wandb").glob("offline-run-*/*.wandb")
    return file


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield what wandb's own protocol reads of each record of an offline file.

    Its file is framed as LevelDB's log is, in blocks of 32 KiB behind a header of 7 bytes; wandb
    0.31 reads that in Go alone.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _crc, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def of_wandb(run: Path) -> Scalars:
    found: Scalars = {}
    for record in wandb_records(wandb_file(run)):
        if record.WhichOneof("record_type") != "history":
            continue
        items = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        step = items.get("_step", record.history.step.num)
        for name, value in items.items():
            if not name.startswith("_") and isinstance(value, int | float):
                add(found, name, step, value)
    return found


READERS = {"csv": of_csv, "tensorboard": of_tensorboard, "mlflow": of_mlflow, "wandb": of_wandb}


class Failing(Tracker):
    """A tracker whose disk is full from some call on."""

    at = "start"
    calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.at:
            raise OSError(28, "No space left on device")

    def start(self, run: Tracked) -> Mapping[str, int]:
        self._call("start")
        return {}

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._call("log")

    def end(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        self._call("end")

    def close(self) -> None:
        self._call("close")
