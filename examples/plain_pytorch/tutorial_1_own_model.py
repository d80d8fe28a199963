# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]

# %% [markdown]
# # Your own model forgets, in Python
#
# `project.py` is a PyTorch project that knows nothing of dlfd: a network, a Dataset and a
# training loop. Eight of its 40 people ask to be forgotten. Start this notebook in the folder
# that holds `project.py`.

# %%
import torch
from project import Portraits, SmileNet, train

import dlfd_dist as dlfd

# %% [markdown]
# ## The model that is in use
#
# `train` is the project's own loop. Original learns all 40 people. Retrained learns 32 of them
# and never sees the other eight: forgetting should lead there. An owner need not have a
# Retrained. With it, the page says how far the model is from the goal.

# %%
train("original.pth", people=40)
train("retrained.pth", people=32)


def load(weights: str) -> SmileNet:
    net = SmileNet()
    net.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    return net


# %% [markdown]
# ## Four sets
#
# A set is any Dataset of (image, label, identity). `retain` and `forget` are the two parts of
# the training set. Choices are made on `val`, and figures are taken on `test`. A person stands
# in one set alone.

# %%
sets = {
    "retain": Portraits(range(32)),
    "forget": Portraits(range(32, 40)),
    "val": Portraits(range(40, 50)),
    "test": Portraits(range(50, 60)),
}

# %% [markdown]
# ## Forget
#
# `evaluate` measures the model as it is. `unlearn` lets a copy of it forget, and measures the
# copy. The same call again returns the finished run, and a call that was stopped goes on.
# `method.lr` is the setting that matters most: with the default of 0.0005 this small network
# does not move, and the page says so.

# %%
original, retrained = load("original.pth"), load("retrained.pth")
settings = {"metrics.num_bootstrap": 50, "metrics.resurface_steps": 0}  # quicker, for a tutorial
before = dlfd.evaluate(original, **sets, reference=retrained, out="before", settings=settings)
goal = dlfd.evaluate(retrained, **sets, out="goal", settings=settings)
after = dlfd.unlearn(
    original,
    **sets,
    reference=retrained,
    method="scrub",
    out="after",
    settings={**settings, "method.lr": 0.02, "method.epochs": 3},
)

# %% [markdown]
# ## What the figures say
#
# `mia` is an attack: it tells the forgotten people from people that the model never saw. An
# AUC of 0.5 is chance. The test accuracy says what the forgetting has cost.
# [What each figure says](../../docs/metrics.md) has the rest of `result`.

# %%
for run in (before, after, goal):
    auc, accuracy = run.result["mia"]["auc"], run.result["test_accuracy"]
    print(f"{run.path.name}: AUC of the attack {auc:.3f}, test accuracy {accuracy:.3f}")

# %% [markdown]
# The attack is on its way from Original to Retrained, and some accuracy is lost. One seed and
# eight people are no finding: the page gives the intervals.

# %% [markdown]
# ## The new model and its page
#
# `after.model` is a `SmileNet` with the new weights. The page can be read without a network.

# %%
torch.save({"state_dict": after.model.state_dict()}, "unlearned.pth")
print(type(after.model).__name__, after.report().name)
