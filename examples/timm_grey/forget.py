"""Forget person 7: python forget.py model.pth runs/without_7."""

import sys
from typing import Any

from project import GreyPhotos, network

import dlfd_dist as dlfd


def splits() -> dict[str, Any]:
    train, val, test = (GreyPhotos(range(*r)) for r in ((0, 40), (40, 50), (50, 60)))
    return {"train": train, "forget": ["7"], "val": val, "test": test}


def forget(weights: str, out: str, **settings: Any) -> dlfd.Run:
    settings = {"data.mean": [0.5], "data.std": [0.5], "method.k": 3, **settings}
    return dlfd.unlearn(
        network(), **splits(), checkpoint=weights, method="cf_k", out=out, settings=settings
    )


if __name__ == "__main__":
    print(forget(*sys.argv[1:]).report())
