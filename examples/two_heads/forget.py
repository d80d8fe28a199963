"""Forget person 7: python forget.py last.ckpt runs/without_7."""

import sys
from typing import Any

import torch
from project import FaceModule, Portraits

import dlfd_dist as dlfd


class Logits(FaceModule):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat(list(self.model(images).values()), 1)


def splits() -> dict[str, Any]:
    train, val, test = (Portraits(range(*r)) for r in ((0, 40), (40, 50), (50, 60)))
    return {"train": train, "forget": ["7"], "val": val, "test": test}


def forget(ckpt: str, out: str, **settings: Any) -> dlfd.Run:
    return dlfd.unlearn(Logits(), **splits(), checkpoint=ckpt, out=out, settings=settings)


if __name__ == "__main__":
    print(forget(*sys.argv[1:]).report())
