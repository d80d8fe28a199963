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
# # Audit a method over many models
#
# One model and one attack say little. An audit trains several models with and without the same
# people, and asks whether models that were made to forget a person can be told from models that
# never saw the person. Start this notebook in the folder that holds `project.py` and
# `forget.py`.

# %%
import json
import os
from pathlib import Path

import dlfd_dist as dlfd

# %% [markdown]
# ## Three shadow models
#
# Each shadow model is four runs: Original, the method, Retrained, and a second Retrained as
# control. All of them forget the eight people of `request.txt`. An image can be judged from
# three models on that forgot it. `ulira` shows U-LiRA first, and `klom` shows KLoM first, of
# the same runs.

# %%
os.environ["PYTHONPATH"] = os.getcwd()
Path("request.txt").write_text("\n".join(map(str, range(8))), encoding="utf-8")
settings = {
    "forget.request": "request.txt",
    "train.epochs": 1,
    "method.epochs": 1,
    "metrics.num_bootstrap": 50,
    "metrics.resurface_steps": 0,
    "audit.models": 3,
    "audit.num_bootstrap": 50,
    "audit.workers": 1,
}
out = dlfd.audit(
    "ulira", "project:SmileNet", "forget:splits", method="finetune", out="audit", settings=settings
)

# %% [markdown]
# ## How to read it
#
# The rows are pairs of worlds against Retrained. **Original** should be told from Retrained: if
# it is not, the attack is too weak to say anything. The **control** must come out at chance: it
# tests the audit itself. Between the two stands the method.
#
# With seven models a method can be told from Retrained, and with nine the audit can pass its own
# test. With three, as here, it says that it cannot tell, and nothing else.

# %%
audit = json.loads((out / "audit.json").read_text(encoding="utf-8"))
for name, world in audit["worlds"].items():
    auc = world["ulira"]["auc"]
    low, high = auc["interval"]
    print(f"{name:9} {world['num_models']} models, AUC {auc['value']:.2f} [{low:.2f}, {high:.2f}]")

# %% [markdown]
# ## Go on with more models
#
# The same call with a larger `audit.models` keeps the runs that are there and adds to them.
# `audit.csv` has a row for each person, by pseudonym. `audit.salt.json` says whose the
# pseudonyms are, and stays with the data. [Ensemble audits](../../docs/audit.md) has the
# figures, their sources, and what an audit does not say.

# %%
print(sorted(path.name for path in out.iterdir() if path.is_file()))
