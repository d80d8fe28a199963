"""submitit's executor for SLURM, as our jobs need it. Only functions import this module.

submitit writes the script, the pickles and the results. What differs here, and why:

- An array is submitted by this class; submitit always takes its own for arrays.
- sbatch reads the script from its input, has a minute to answer, does not see the variables of a
  job that we may run in ourselves, and its answer must hold exactly one job id.
- What lies in the folder is for this user alone to write: a job unpickles it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submitit import Job, SlurmExecutor, SlurmJob
from submitit.core.utils import DelayedSubmission

from dlfd_dist.access import for_others_to_read_only, refuse_foreign
from dlfd_dist.run_dir import write_text

from .slurm import call, one_job_id


class Executor(SlurmExecutor):
    """Submits callables to SLURM, and gives the text of a job without SLURM."""

    @classmethod
    def affinity(cls) -> int:
        """Return that this executor can be made: the text of a job needs no srun."""
        return 2

    def text(self, command: str | None = None) -> str:
        """Return the batch script.

        Parameters
        ----------
        command : what srun starts, in the shell's words; None: submitit, on the pickled callable
        """
        return self._make_submission_file_text(command or self._submitit_command_str, "")

    def submit_command(self, command: str) -> str:
        """Queue a job that runs a command in place of a callable; return the id of the job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._submit_command(command).job_id

    def lay_down(self, job_id: str, tasks: Sequence[Callable[[], Any]]) -> None:
        """Write the callables of a job whose command died between sbatch and their names."""
        with for_others_to_read_only():
            pickles = [self._dump(DelayedSubmission(task)) for task in tasks]
            self._name(job_id, pickles)

    def _internal_process_submissions(
        self, delayed_submissions: Sequence[DelayedSubmission]
    ) -> list[Job[Any]]:
        """Queue one job, or one array."""
        number = len(delayed_submissions)
        with for_others_to_read_only():
            # sbatch hands the umask on to the job.
            make_job_folder(self.folder)
            pickles = [self._dump(delayed) for delayed in delayed_submissions]
            try:
                if number > 1:
                    self.parameters["map_count"] = number
                first = self._submit_command(self._submitit_command_str)
            except BaseException:
                for pickle in pickles:
                    pickle.unlink()
                raise
            return self._name(first.job_id, pickles)

    def _submit_command(self, command: str) -> Job[Any]:
        text = self.text(command)
        job_id = one_job_id(call(["sbatch", "--parsable"], text))
        job: Job[Any] = self.job_class(self.folder, job_id, list(range(self._num_tasks())))
        write_text(job.paths.submission_file, text)
        return job

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        lines = super()._make_submission_file_text(command, uid).splitlines()
        # SLURM reads a backslash as an escape inside of single quotes too.
        lines = [ln.replace("\\", "\\\\") if ln.startswith("#SBATCH ") else ln for ln in lines]
        return "\n".join(lines) + "\n"

    def _dump(self, delayed: DelayedSubmission) -> Path:
        delayed.set_timeout(self.parameters.get("time", 5), self.max_num_timeout)
        file = self.folder / f".{uuid.uuid4().hex}.pkl"
        delayed.dump(file)
        return file

    def _name(self, job_id: str, pickles: Sequence[Path]) -> list[Job[Any]]:
        """Give each pickle the name that its job looks for; a job waits for it for a minute."""
        # A controller that lost its state gives ids again.
        for result in self.folder.glob(f"{job_id}_*result.pkl"):
            result.unlink()
        number, tasks = len(pickles), list(range(self._num_tasks()))
        ids = [f"{job_id}_{index}" for index in range(number)] if number > 1 else [job_id]
        jobs = [SlurmJob(folder=self.folder, job_id=task_id, tasks=tasks) for task_id in ids]
        for job, pickle in zip(jobs, pickles, strict=True):
            job.paths.move_temporary_file(pickle, "submitted_pickle")
        return list(jobs)


def make_job_folder(folder: Path) -> Path:
    """Make a folder of submitit's if need be; RunDirError where others may write into it."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    refuse_foreign(folder, "unpickles what is in it (submitit's jobs)", files=("*.pkl",))
    return folder
