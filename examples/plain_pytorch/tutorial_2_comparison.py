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
# # Compare methods, and read the page
#
# A comparison trains Original and Retrained, and lets each method forget the same people. Start
# this notebook in the folder that holds `project.py` and `forget.py`.

# %%
import json
import os

import dlfd_dist as dlfd

# %% [markdown]
# ## Model and data by their names
#
# The runs of a comparison are processes of their own, so model and sets are named by import
# path. `PYTHONPATH` lets those processes find the modules of this folder. `forget:splits` asks
# for one person of 40 to be forgotten.

# %%
os.environ["PYTHONPATH"] = os.getcwd()
settings = {
    "train.epochs": 2,
    "method.epochs": 1,
    "metrics.num_bootstrap": 50,
    "metrics.resurface_steps": 0,
    "compare.workers": 1,
}

# %% [markdown]
# These settings keep the tutorial short. A comparison that counts has more epochs, more seeds
# and more people: [Compare methods](../../docs/howto/comparison.md).

# %%
out = dlfd.compare(
    "project:SmileNet",
    "forget:splits",
    method=["scrub", "finetune"],
    out="comparison",
    settings=settings,
)
print(sorted(path.name for path in out.iterdir() if path.is_file()))

# %% [markdown]
# ## The first sentence
#
# The page, `report.html`, begins with the gate: the attack on Original minus the attack on
# Retrained. Where that is not above zero, the attack cannot tell a model that saw the people
# from a model that did not, and no method can be ranked.
# [What a table may say](../../docs/tables.md#the-gate) has the rule.

# %%
summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
print(summary["gate"]["sentence"])

# %% [markdown]
# Here one person was forgotten, and the attack needs 16 people on each side. So the sentence is
# right to refuse a ranking, whatever the rows below it look like.

# %% [markdown]
# ## The rows
#
# Read the row of a method against those of Original and of Retrained. A method has forgotten
# where its row is that of Retrained, within the intervals.

# %%
for row in summary["rows"]:
    print(f"{row['method']:10} forget {row['forget_accuracy']:.2f} test {row['test_accuracy']:.2f}")

# %% [markdown]
# ## The same from the command line
#
#     dlfd compare model.factory=project:SmileNet data.factory=forget:splits \
#         method=scrub,finetune run.dir=comparison
#
# With `dlfd submit compare ... cluster=slurm_generic` a SLURM cluster does the runs:
# [A campaign](../../docs/howto/campaign.md).
