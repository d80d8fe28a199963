"""An event file for TensorBoard, with scalars, hyperparameters and the pictures of the page.

TensorBoard's own writer puts the name of the machine into that of the file; this one does not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .base import Tracked, Tracker, trackers


@trackers.register("tensorboard")
class TensorBoardTracker(Tracker):
    """Writes its event file anew at every start, so that no step is there twice."""

    packages = {"tensorboard": "tensorboard"}
    _file: IO[bytes]

    def start(self, run: Tracked) -> Mapping[str, int]:
        # Messages of protobuf are made when their module is imported; pyrefly cannot know them.
        from tensorboard.compat.proto.event_pb2 import (
            Event,  # pyrefly: ignore[missing-module-attribute]
        )
        from tensorboard.compat.proto.summary_pb2 import (
            Summary,  # pyrefly: ignore[missing-module-attribute]
        )
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._hparams = Event, Summary, summary_v2
        run.folder.mkdir(parents=True, exist_ok=True)
        for old in run.folder.glob("events.out.tfevents.*"):
            old.unlink()
        name = f"events.out.tfevents.{int(time.time())}.{run.id}"
        self._file = (run.folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._add(0, self._hparams.hparams_pb(dict(run.settings), trial_id=run.id))
        return {}

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=n, simple_value=v) for n, v in scalars.items()]
        self._add(step, self._summary(value=values))

    def end(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        self.log(step, figures)
        for path in files:
            if path.suffix == ".png":
                picture = self._summary.Image(encoded_image_string=path.read_bytes())
                value = self._summary.Value(tag=f"page/{path.stem}", image=picture)
                self._add(step, self._summary(value=[value]))

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, summary: Any) -> None:
        event = self._event(wall_time=time.time(), step=step)
        event.summary.ParseFromString(summary.SerializeToString())
        self._write(event)

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()
