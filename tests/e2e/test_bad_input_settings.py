"""Settings that do not fit the data or the model, wrong words, and reports on nothing.

The ranges of single settings are rows of tests/unit/test_settings_ranges.py.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest
import torch

from dlfd_dist.run_dir import RunDir
from tests.fakes.bad_input import Cases, Dlfd, Lab
from tests.fakes.command_line import command, environment

CASES = Cases()


@CASES.add
def more_ranks_than_images(lab: Lab):
    words = lab.train("runtime.world_size=40", "train.global_batch_size=64")
    return words, ["runtime.world_size=40", "there are 32 images", "Use fewer ranks"]


@CASES.add
def official_with_a_batch_above_the_forget_set(lab: Lab):
    words = lab.unlearn("method=dlfd_official", "method.global_batch_size=16")
    return words, ["method.global_batch_size=16", "8 or less"]


@CASES.add
def compare_with_a_batch_above_the_forget_set(lab: Lab):
    words = ["compare", *lab.faces.forget, *lab.into, "method=dlfd_official"]
    return [*words, "method.global_batch_size=16"], ["method.global_batch_size=16", "8 or less"]


@CASES.add
def too_few_images_for_the_published_attack(lab: Lab):
    path = lab.file("request.txt", "person-01/face 1.png\n")
    words = lab.unlearn("method.probe_attack=mia_paper", f"forget.request={path}")
    return words, ["method.probe_attack=mia_paper", "not 1 and 8", "use method.probe_attack=mia."]


@CASES.add
def more_blocks_than_the_model(lab: Lab):
    words = lab.unlearn("method=cf_k", "method.k=99")
    return words, ["method.k=99 is larger than the model", "5 blocks", "Set method.k=5 or less"]


@CASES.add
def more_blocks_than_the_model_in_a_dry_run_of_a_comparison(lab: Lab):
    words = ["compare", *lab.faces.forget, *lab.into, "method=eu_k", "method.k=99", "--dry-run"]
    return words, ["method.k=99 is larger than the model", "Set method.k=5 or less"]


@CASES.add
def comparison_of_a_checkpoint(lab: Lab):
    words = ["compare", *lab.faces.forget, *lab.into, f"checkpoint={lab.original}"]
    return words, ["trains Original and Retrained itself", "leave checkpoint out", "dlfd unlearn"]


@CASES.add
def more_new_blocks_than_the_model(lab: Lab):
    words = lab.unlearn("method=eu_k", "method.k=6")
    return words, ["method.k=6 is larger than the model", "Set method.k=5 or less"]


@CASES.add
def misspelt_setting(lab: Lab):
    words = lab.train("train.epoch=2")
    return words, ["'train.epoch' is not known", "Did you mean 'train.epochs'?"]


@CASES.add
def setting_without_value(lab: Lab):
    return lab.train("train.epochs"), ["'train.epochs' is not understood", "key=value"]


@CASES.add
def negative_seed(lab: Lab):
    return lab.train("seed=-1"), ["seed=-1 is not allowed", ">= 0"]


@CASES.add
def list_for_one_run(lab: Lab):
    return lab.train("seed=0,1"), ["seed=0,1 lists several values", "dlfd compare"]


@CASES.add
def no_cuda(lab: Lab):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    return lab.train("runtime.device=cuda"), ["runtime.device=cuda", "no CUDA device"]


# --- verbs, flags and reports


@CASES.add
def unknown_verb(_lab: Lab):
    return ["unlern"], ["'unlern' is not a verb", "Did you mean 'unlearn'?"]


@CASES.add
def misspelt_flag(lab: Lab):
    return [*lab.train(), "--dryrun"], ["--dryrun is not known", "Did you mean '--dry-run'?"]


@CASES.add
def flag_without_verb(_lab: Lab):
    return ["--json"], ["no verb", "train"]


@CASES.add
def out_without_path(lab: Lab):
    return ["report", str(lab.original), "--out"], ["--out needs a path"]


@CASES.add
def out_for_a_run(lab: Lab):
    return [*lab.train(), "--out", "page.html"], ["--out", "dlfd report"]


@CASES.add
def words_for_doctor(_lab: Lab):
    return ["doctor", "data=orl"], ["doctor", "data=orl"]


@CASES.add
def report_on_nothing(_lab: Lab):
    return ["report"], ["give one or more run directories"]


@CASES.add
def report_on_another_folder(lab: Lab):
    return ["report", str(lab.data)], ["is not a run directory", "config.yaml"]


@CASES.add
def report_on_a_missing_folder(lab: Lab):
    return ["report", str(lab.folder / "no")], ["is not a run directory", "no such directory"]


@CASES.add
def report_on_an_unfinished_run(lab: Lab):
    shutil.copytree(lab.original, lab.target)
    RunDir(lab.target).result.unlink()
    return ["report", str(lab.target)], ["is not a finished run", "resume it"]


@CASES.add
def report_under_a_file(lab: Lab):
    lab.file("file", "precious")
    words = ["report", str(lab.original), "--out", str(lab.folder / "file" / "page.html")]
    return words, ["page.html", "cannot be written", "give another --out"]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_leaves_no_trace(name: str, lab: Lab, dlfd: Dlfd):
    lab.check(name, CASES, dlfd)


def test_a_process_ends_with_status_2_and_one_sentence_on_standard_error(lab: Lab):
    done = subprocess.run(
        command(*lab.train("seed=-1")), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "dlfd: seed=-1 is not allowed: it must be >= 0.\n"
    assert not lab.target.exists()
