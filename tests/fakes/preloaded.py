"""What the fork server of a test process imports once for all its children.

There is one server a process: whoever starts it first has the say, so that all name the same.
"""

PRELOADED = [
    "launch.cli", "launch.verbs.run", "dlfd_dist.__main__", "dlfd_dist.jobs.run",
    "dlfd_dist.jobs.plan", "sklearn.linear_model", "sklearn.model_selection",
    "torchvision.models.resnet", "torch.distributed.run", "tests.fakes.forks",
]  # fmt: skip
"""What `dlfd train` and `unlearn` load up to their end, torch too; none of it starts a thread."""
