"""What the fork server of a test process imports once for all its children.

There is one server a process: whoever starts it first has the say, so that all name the same.
"""

PRELOADED = [
    "launch.cli", "launch.verbs.run", "launch.verbs.compare", "launch.verbs.audit",
    "dlfd_dist.__main__", "dlfd_dist.jobs.run", "dlfd_dist.jobs.plan", "sklearn.linear_model",
    "sklearn.model_selection", "torchvision.models.resnet", "torchvision.transforms.v2", "ot",
    "torch.distributed.run", "tests.fakes.forks",
]  # fmt: skip
"""What most verbs load up to their end, torch too. None of it starts a thread but the allocator of
pyarrow, which sees to forks itself."""
