"""Real ranks that read other data than each other end before one of them writes."""

from __future__ import annotations

from pathlib import Path

from dlfd_dist.compose import compose_job
from dlfd_dist.errors import DlfdError
from dlfd_dist.jobs import run_job
from dlfd_dist.runtime.collectives import Collectives
from dlfd_dist.runtime.preemption import StopFlag
from tests.fakes.command_line import write_faces


def _train_on_its_own_data(group: Collectives, folder: str) -> str:
    """Train where every rank has another folder under the same setting, as on node-local disks."""
    root = Path(folder) / f"node {group.rank}" / "faces"
    config = compose_job(
        "train",
        [f'data.root="{root}"', "data.image_size=32", "model=small", f"run.dir={folder}/run"],
    )
    try:
        run_job(config, group, StopFlag())
    except DlfdError as err:
        return str(err)
    return ""


def test_ranks_that_read_other_data_end_and_nothing_is_written(tmp_path, ranks):
    for rank in (0, 1):
        write_faces(tmp_path / f"node {rank}" / "faces")
    manifest = tmp_path / "node 1" / "faces" / "metadata.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))  # a copy that was cut off
    said = ranks(_train_on_its_own_data, 2, str(tmp_path))
    assert said[0] == said[1]
    assert said[0].startswith("Rank 1 reads other data")
    assert not (tmp_path / "run").exists()
