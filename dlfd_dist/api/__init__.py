"""What `import dlfd_dist as dlfd` gives: runs on the model and the data of the program itself."""

from .runs import Run, evaluate, unlearn

__all__ = ["Run", "evaluate", "unlearn"]
