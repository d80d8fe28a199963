"""Forget person 7: python forget.py model.pth runs/without_7."""

import sys
from typing import Any

from project import Portraits, SmileNet

import dlfd_dist as dlfd


def splits() -> dict[str, Any]:
    train, val, test = (Portraits(range(*r)) for r in ((0, 40), (40, 50), (50, 60)))
    return {"train": train, "forget": ["7"], "val": val, "test": test}


def forget(weights: str, out: str, **settings: Any) -> dlfd.Run:
    return dlfd.unlearn(
        SmileNet(), **splits(), checkpoint=weights, method="scrub", out=out, settings=settings
    )


if __name__ == "__main__":
    print(forget(*sys.argv[1:]).report())
