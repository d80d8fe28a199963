"""Bad input: exit status 2, one sentence that names what was found and what to do, no traces."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlfd_dist.run_dir import RunDir
from tests.fakes.command_line import Ended, Faces, read_csv, tree, write_csv

Dlfd = Callable[..., Ended]


@dataclass(frozen=True)
class Lab:
    """A place to spoil things in: a copy of the data, and the run directory to be spared."""

    folder: Path
    faces: Faces
    original: Path

    @property
    def data(self) -> Path:
        """The copy of the data set, made when it is first asked for."""
        copy = self.folder / "data"
        if not copy.exists():
            shutil.copytree(self.faces.root, copy)
        return copy

    @property
    def target(self) -> Path:
        return self.folder / "run"

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def edit(self, line: int, column: str, value: str) -> None:
        """Change one cell of the copy's manifest; the header is line 1."""
        rows = read_csv(self.data / "metadata.csv")
        rows[line - 1][rows[0].index(column)] = value
        write_csv(self.data / "metadata.csv", rows)

    def train(self, *more: str) -> list[str]:
        """Return the words of a training run on the copy of the data."""
        return ["train", *self.faces.small, f"data.root={self.data}", *self.into, *more]

    def unlearn(self, *more: str) -> list[str]:
        """Return the words of an unlearning run on the good data."""
        words = ["unlearn", *self.faces.small, f"checkpoint={self.original}", *self.into, *more]
        asks = any(word.startswith(("forget.request=", "forget.fraction=")) for word in more)
        return words if asks else [*words, *self.faces.forget[-1:]]

    def request(self, text: str) -> list[str]:
        return self.unlearn(f"forget.request={self.file('request.txt', text)}")

    @property
    def into(self) -> list[str]:
        return [f"run.dir={self.target}"]


@pytest.fixture
def lab(tmp_path: Path, faces: Faces, original: Path) -> Lab:
    return Lab(tmp_path, faces, original)


Case = Callable[[Lab], tuple[list[str], list[str]]]
"""Spoils something; returns the command and what its sentence must say."""

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_leaves_no_trace(name: str, lab: Lab, dlfd: Dlfd):
    words, phrases = CASES[name](lab)
    before = tree(lab.folder, lab.original)
    ended = dlfd(*words)
    assert ended.status == 2, ended
    for phrase in phrases:
        assert phrase in ended.sentence
    assert not ended.out
    assert tree(lab.folder, lab.original) == before


# --- the data


@case
def missing_image(lab: Lab):
    (lab.data / "person-03/face 1.png").unlink()
    return lab.train(), ["row 15 (person-03/face 1.png)", "missing", str(lab.data)]


@case
def corrupt_image(lab: Lab):
    (lab.data / "person-03/face 1.png").write_bytes(b"not an image")
    return lab.train(), ["row 15 (person-03/face 1.png)", "cannot be decoded"]


@case
def truncated_image(lab: Lab):
    path = lab.data / "person-03/face 1.png"
    path.write_bytes(path.read_bytes()[:200])
    return lab.train(), ["row 15 (person-03/face 1.png)", "cannot be decoded"]


@case
def label_in_val_only(lab: Lab):
    lab.edit(35, "label", "7")
    return lab.train(), ["row 35", "'7' is unknown", "0, 1"]


@case
def multi_label_value(lab: Lab):
    lab.edit(5, "glasses", "2")
    words = lab.train("data.label=[smile,glasses]")
    return words, ["row 5", "glasses='2'", "0, 1 or -1"]


@case
def identity_in_two_splits(lab: Lab):
    lab.edit(4, "split", "val")
    return lab.train(), ["'Person-00'", "train and val", "give every person one split"]


@case
def unknown_split(lab: Lab):
    lab.edit(4, "split", "dev")
    return lab.train(), ["row 4", "'dev'", "train, val or test"]


@case
def no_root(lab: Lab):
    return ["train", *lab.into], ["data.root is missing", "data.root=DIR"]


@case
def root_missing(lab: Lab):
    return ["train", f"data.root={lab.folder / 'no'}", *lab.into], ["data.root=", "is not a folder"]


@case
def manifest_missing(lab: Lab):
    (lab.data / "metadata.csv").unlink()
    return lab.train(), ["There is no manifest at", "metadata.csv", "data.manifest"]


@case
def manifest_without_column(lab: Lab):
    rows = [[cell for cell in row if cell != "identity"] for row in read_csv(_manifest(lab))]
    write_csv(_manifest(lab), rows)
    return lab.train(), ["lacks the column identity", "image_path"]


@case
def manifest_empty(lab: Lab):
    _manifest(lab).write_bytes(b"")
    return lab.train(), ["metadata.csv", "lacks the column image_path", "it has none"]


@case
def manifest_header_only(lab: Lab):
    write_csv(_manifest(lab), read_csv(_manifest(lab))[:1])
    return lab.train(), ["metadata.csv has no rows"]


@case
def manifest_binary(lab: Lab):
    _manifest(lab).write_bytes(bytes(range(256)) * 8)
    return lab.train(), ["metadata.csv is not a CSV text file"]


@case
def path_escapes_the_root(lab: Lab):
    lab.edit(2, "image_path", "../../etc/passwd")
    return lab.train(), ["row 2", "../../etc/passwd leads out of data.root", "stay inside"]


@case
def absolute_path(lab: Lab):
    lab.edit(2, "image_path", "/etc/passwd")
    return lab.train(), ["row 2", "/etc/passwd leads out of data.root"]


def _manifest(lab: Lab) -> Path:
    return lab.data / "metadata.csv"


# --- the request


@case
def unknown_person(lab: Lab):
    return lab.request("Person-01\nSomeone Else\n"), [
        "'Someone Else' (line 2)",
        "Correct or remove",
    ]


@case
def everybody(lab: Lab):
    everyone = "\n".join(f"Person-{n:02d}" for n in range(8))
    return lab.request(everyone), ["all 32 training images", "Ask for fewer people"]


@case
def nobody_of_train(lab: Lab):
    return lab.request("Person-08\nPerson-10\n"), ["matches no training image", "val or test"]


@case
def empty_request(lab: Lab):
    return lab.request("\n# nobody yet\n"), ["names nobody", "one identity or image path a line"]


@case
def request_missing(lab: Lab):
    return lab.unlearn(f"forget.request={lab.folder / 'no.txt'}"), ["no.txt is not a file"]


@case
def request_is_a_folder(lab: Lab):
    return lab.unlearn(f"forget.request={lab.folder}"), ["is not a file"]


@case
def request_binary(lab: Lab):
    path = lab.file("request.txt", bytes(range(128, 256)))
    return lab.unlearn(f"forget.request={path}"), ["is not a text file"]


@case
def no_request_for_unlearn(lab: Lab):
    words = [w for w in lab.unlearn() if not w.startswith("forget.")]
    return words, ["Nobody to forget", "forget.request=FILE", "forget.fraction=0.2"]


@case
def no_request_for_retrained(lab: Lab):
    return lab.train("train.on=retain"), ["Nobody to forget", "forget.request=FILE"]


@case
def no_request_for_compare(lab: Lab):
    return ["compare", *lab.faces.small, *lab.into], ["Nobody to forget", "forget.request=FILE"]


@case
def request_and_fraction(lab: Lab):
    words = [*lab.unlearn(), "forget.fraction=0.5"]
    return words, ["forget.request and forget.fraction are both set"]


# --- the checkpoint


@case
def no_checkpoint_for_unlearn(lab: Lab):
    words = [w for w in lab.unlearn() if not w.startswith("checkpoint=")]
    return words, ["checkpoint is missing", "checkpoint=PATH"]


@case
def no_checkpoint_for_evaluate(lab: Lab):
    return ["evaluate", *lab.faces.small, *lab.into], ["checkpoint is missing", "checkpoint=PATH"]


@case
def checkpoint_missing(lab: Lab):
    return lab.unlearn("checkpoint=no.safetensors"), ["There is no checkpoint at no.safetensors"]


@case
def checkpoint_of_an_unfinished_run(lab: Lab):
    (lab.folder / "empty").mkdir()
    return lab.unlearn(f"checkpoint={lab.folder / 'empty'}"), ["holds no finished model"]


@case
def checkpoint_of_another_head(lab: Lab):
    return lab.unlearn("model.head=mlp"), ["is of another architecture", "Set model, model.head"]


@case
def checkpoint_of_another_backbone(lab: Lab):
    return lab.unlearn("model=efficientnet_b0"), ["is of another architecture", "Set model"]


@case
def checkpoint_with_other_classes(lab: Lab):
    lab.edit(3, "label", "2")
    words = lab.unlearn(f"data.root={lab.data}", "data.label=label")
    rows = [[*row[:3], "", *row[4:]] for row in read_csv(_manifest(lab))]
    write_csv(_manifest(lab), [read_csv(_manifest(lab))[0], *rows[1:]])
    return words, ["it has 2 outputs and the data 3 classes", "Check data.label"]


@case
def checkpoint_of_other_classes(lab: Lab):
    """As many classes as the data, but others."""
    return lab.unlearn("data.label=glasses"), [
        "was trained to tell neutral, smile", "the labels of the data are 0, 1",
        "another checkpoint",
    ]  # fmt: skip


@case
def checkpoint_malicious(lab: Lab):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(lab.folder / "pwned"),)

    path = lab.file("evil.pth", pickle.dumps({"weight": Touch()}))
    return lab.unlearn(f"checkpoint={path}"), [
        "evil.pth",
        "foreign code is never run",
        "state_dict()",
    ]


@case
def checkpoint_malicious_in_torch_format(lab: Lab):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(lab.folder / "pwned"),)

    torch.save({"weight": Touch()}, lab.folder / "evil.pth")
    words = lab.unlearn(f"checkpoint={lab.folder / 'evil.pth'}")
    return words, ["evil.pth", "foreign code is never run", "state_dict()"]


@case
def checkpoint_is_noise(lab: Lab):
    path = lab.file("noise.safetensors", bytes(range(256)))
    return lab.unlearn(f"checkpoint={path}"), ["noise.safetensors is not a readable checkpoint"]


@case
def reference_missing(lab: Lab):
    return lab.unlearn("reference=no.safetensors"), ["There is no checkpoint at no.safetensors"]


# --- the run directory


@case
def run_dir_is_a_file(lab: Lab):
    lab.file("run", "precious")
    return lab.train(), ["run.dir=", "choose another"]


@case
def run_dir_under_a_file(lab: Lab):
    lab.file("file", "precious")
    return lab.train(f"run.dir={lab.folder / 'file' / 'run'}"), ["run.dir=", "choose another"]


@case
def run_dir_with_foreign_files(lab: Lab):
    lab.target.mkdir()
    (lab.target / "thesis.tex").write_text("precious")
    return lab.train(), ["run.dir=", "is not a run directory", "choose another"]


@case
def run_dir_of_another_finished_run(lab: Lab):
    return lab.train(f"run.dir={lab.original}"), ["holds another run", "choose another directory"]


@case
def run_dir_of_another_unfinished_run(lab: Lab):
    shutil.copytree(lab.original, lab.target)
    RunDir(lab.target).result.unlink()
    return lab.unlearn(), ["holds another run", "choose another directory"]


@case
def run_dir_damaged(lab: Lab):
    lab.target.mkdir()
    RunDir(lab.target).identity.write_text('{"signature":')
    return lab.train(), ["run.json is damaged", "choose another"]


@case
def run_dir_name_too_long(lab: Lab):
    return lab.train(f"run.dir={lab.folder / ('x' * 300)}"), ["run.dir=", "File name too long"]


@case
def compare_into_a_file(lab: Lab):
    lab.file("run", "precious")
    return ["compare", *lab.faces.forget, *lab.into], ["run.dir=", "choose another"]


@case
def compare_into_foreign_files(lab: Lab):
    lab.target.mkdir()
    (lab.target / "thesis.tex").write_text("precious")
    words = ["compare", *lab.faces.forget, *lab.into]
    return words, ["run.dir=", "is not a comparison", "choose another"]


# --- ranks and settings


@case
def more_ranks_than_images(lab: Lab):
    words = lab.train("runtime.world_size=40", "train.global_batch_size=64")
    return words, ["runtime.world_size=40", "there are 32 images", "Use fewer ranks"]


@case
def more_ranks_than_the_batch(lab: Lab):
    words = lab.train("runtime.world_size=4", "train.global_batch_size=3")
    return words, ["runtime.world_size=4", "train.global_batch_size=3", "Use fewer ranks"]


@case
def official_on_two_ranks(lab: Lab):
    words = lab.unlearn("method=dlfd_official", "runtime.world_size=2")
    return words, ["dlfd_official runs on one rank only, not 2", "runtime.world_size=1"]


@case
def official_with_other_settings(lab: Lab):
    words = lab.unlearn("method=dlfd_official", "synthesis.layer=features")
    return words, ["synthesis.layer=features", "set synthesis.layer=logits"]


@case
def official_with_a_batch_above_the_forget_set(lab: Lab):
    words = lab.unlearn("method=dlfd_official", "method.global_batch_size=16")
    return words, ["method.global_batch_size=16", "8 or less"]


@case
def compare_with_a_batch_above_the_forget_set(lab: Lab):
    words = ["compare", *lab.faces.forget, *lab.into, "method=dlfd_official"]
    return [*words, "method.global_batch_size=16"], ["method.global_batch_size=16", "8 or less"]


@case
def too_few_images_for_the_published_attack(lab: Lab):
    path = lab.file("request.txt", "person-01/face 1.png\n")
    words = lab.unlearn("method.probe_attack=mia_paper", f"forget.request={path}")
    return words, ["method.probe_attack=mia_paper", "not 1 and 8", "use method.probe_attack=mia."]


@case
def nothing_to_synthesise(lab: Lab):
    words = lab.unlearn("method=dlfd", "method.distancing=false", "method.classification=false")
    return words, ["leave nothing to synthesise", "method=finetune"]


@case
def unknown_method(lab: Lab):
    return lab.unlearn("method=dlfdd"), ["method=dlfdd is not known", "finetune", "mean 'dlfd'?"]


@case
def unknown_method_of_two_words(lab: Lab):
    words = lab.unlearn("method=bad_techer")
    return words, ["method=bad_techer is not known", "scrub", "mean 'bad_teacher'?"]


@case
def setting_of_another_method(lab: Lab):
    words = lab.unlearn("method=scrub", "method.alpha=0.5")
    return words, [
        "method=scrub has no setting 'method.alpha'",
        "which belongs to method=neggrad_plus:",
    ]


@case
def more_blocks_than_the_model(lab: Lab):
    words = lab.unlearn("method=cf_k", "method.k=99")
    return words, ["method.k=99 is larger than the model", "10 blocks", "Set method.k=10 or less"]


@case
def more_blocks_than_the_model_in_a_dry_run_of_a_comparison(lab: Lab):
    words = ["compare", *lab.faces.forget, *lab.into, "method=eu_k", "method.k=99", "--dry-run"]
    return words, ["method.k=99 is larger than the model", "Set method.k=10 or less"]


@case
def infinite_temperature(lab: Lab):
    words = lab.unlearn("method=scrub", "method.temperature=inf")
    return words, ["method.temperature=inf is not allowed", "a finite number"]


@case
def infinite_number_in_scientific_form(lab: Lab):
    words = lab.unlearn("method=unsir", "method.noise_penalty=1e400")
    return words, ["method.noise_penalty=inf is not allowed", "a finite number"]


@case
def comparison_of_a_checkpoint(lab: Lab):
    words = ["compare", *lab.faces.forget, *lab.into, f"checkpoint={lab.original}"]
    return words, ["trains Original and Retrained itself", "leave checkpoint out", "dlfd unlearn"]


@case
def more_new_blocks_than_the_model(lab: Lab):
    words = lab.unlearn("method=eu_k", "method.k=11")
    return words, ["method.k=11 is larger than the model", "Set method.k=10 or less"]


@case
def no_blocks(lab: Lab):
    return lab.unlearn("method=eu_k", "method.k=0"), ["method.k=0 is not allowed", ">= 1"]


@case
def temperature_of_zero(lab: Lab):
    words = lab.unlearn("method=bad_teacher", "method.temperature=0")
    return words, ["method.temperature=0.0 is not allowed", "above 0"]


@case
def temperature_below_zero(lab: Lab):
    words = lab.unlearn("method=scrub", "method.temperature=-1")
    return words, ["method.temperature=-1.0 is not allowed", "above 0"]


@case
def teacher_with_other_classes(lab: Lab):
    words, phrases = checkpoint_with_other_classes(lab)
    return [*words, "method=bad_teacher"], phrases


@case
def teacher_with_other_labels(lab: Lab):
    words = lab.unlearn("method=scrub", "data.label=[smile,glasses,label]")
    return words, ["it has 2 outputs and the data 3", "Check data.label"]


@case
def no_share_of_retain(lab: Lab):
    words = lab.unlearn("method=neggrad_plus", "method.alpha=0")
    return words, ["method.alpha=0.0 is not allowed", "above 0 and at most 1"]


@case
def all_weights_stay(lab: Lab):
    words = lab.unlearn("method=salun", "method.sparsity=1")
    return words, ["method.sparsity=1.0 is not allowed", "at least 0 and below 1"]


@case
def unknown_optimizer(lab: Lab):
    words = lab.unlearn("method=neggrad", "method.optimizer=sgdd")
    return words, ["method.optimizer=sgdd is not allowed", "sgd, adam", "Did you mean 'sgd'?"]


@case
def nothing_of_retain_to_repair_with(lab: Lab):
    words = lab.unlearn("method=unsir", "method.retain_fraction=0")
    return words, ["method.retain_fraction=0.0 is not allowed", "above 0 and at most 1"]


@case
def nothing_of_retain_to_mix_with(lab: Lab):
    words = lab.unlearn("method=bad_teacher", "method.retain_fraction=0")
    return words, ["method.retain_fraction=0.0 is not allowed", "above 0 and at most 1"]


@case
def schedule_of_two_rates(lab: Lab):
    words = lab.unlearn("method=unsir", "method.lr_scheduler=cosine")
    return words, ["method.lr_scheduler=cosine is not allowed", "constant"]


@case
def nothing_selected(lab: Lab):
    words = lab.unlearn("method=ssd", "method.selection=0")
    return words, ["method.selection=0.0 is not allowed", "above 0"]


@case
def negative_penalty(lab: Lab):
    words = lab.unlearn("method=l1_sparse", "method.l1_weight=-1")
    return words, ["method.l1_weight=-1.0 is not allowed", ">= 0"]


@case
def unknown_model(lab: Lab):
    return lab.train("model=resnet81"), ["model=resnet81 is not known", "Did you mean 'resnet18'?"]


@case
def unknown_data(lab: Lab):
    return lab.train("data=orll"), ["data=orll is not known", "Did you mean 'orl'?"]


@case
def misspelt_setting(lab: Lab):
    words = lab.train("train.epoch=2")
    return words, ["'train.epoch' is not known", "Did you mean 'train.epochs'?"]


@case
def setting_without_value(lab: Lab):
    return lab.train("train.epochs"), ["'train.epochs' is not understood", "key=value"]


@case
def wrong_type(lab: Lab):
    return lab.train("train.epochs=many"), ["train.epochs", "many"]


@case
def negative_seed(lab: Lab):
    return lab.train("seed=-1"), ["seed=-1 is not allowed", ">= 0"]


@case
def list_for_one_run(lab: Lab):
    return lab.train("seed=0,1"), ["seed=0,1 lists several values", "dlfd compare"]


@case
def no_cuda(lab: Lab):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    return lab.train("runtime.device=cuda"), ["runtime.device=cuda", "no CUDA device"]


@case
def unknown_verb(_lab: Lab):
    return ["unlern"], ["'unlern' is not a verb", "Did you mean 'unlearn'?"]


@case
def misspelt_flag(lab: Lab):
    return [*lab.train(), "--dryrun"], ["--dryrun is not known", "Did you mean '--dry-run'?"]


@case
def flag_without_verb(_lab: Lab):
    return ["--json"], ["no verb", "train"]


@case
def out_without_path(lab: Lab):
    return ["report", str(lab.original), "--out"], ["--out needs a path"]


@case
def out_for_a_run(lab: Lab):
    return [*lab.train(), "--out", "page.html"], ["--out", "dlfd report"]


@case
def words_for_doctor(_lab: Lab):
    return ["doctor", "data=orl"], ["doctor", "data=orl"]


@case
def report_on_nothing(_lab: Lab):
    return ["report"], ["give one or more run directories"]


@case
def report_on_another_folder(lab: Lab):
    return ["report", str(lab.data)], ["is not a run directory", "config.yaml"]


@case
def report_on_a_missing_folder(lab: Lab):
    return ["report", str(lab.folder / "no")], ["is not a run directory", "no such directory"]


@case
def report_on_an_unfinished_run(lab: Lab):
    shutil.copytree(lab.original, lab.target)
    RunDir(lab.target).result.unlink()
    return ["report", str(lab.target)], ["is not a finished run", "resume it"]


@case
def report_under_a_file(lab: Lab):
    lab.file("file", "precious")
    words = ["report", str(lab.original), "--out", str(lab.folder / "file" / "page.html")]
    return words, ["page.html", "cannot be written", "give another --out"]


# --- losses that are no numbers: the run has started, but delivers nothing


def _nan_model(lab: Lab) -> Path:
    state = load_file(RunDir(lab.original).model)
    state["head.0.weight"] = torch.full_like(state["head.0.weight"], float("nan"))
    save_file(state, lab.folder / "nan.safetensors")
    return lab.folder / "nan.safetensors"


@pytest.mark.parametrize("method", ["dlfd", "finetune", "dlfd_official"])
def test_weights_that_are_nan_stop_unlearning(method: str, lab: Lab, dlfd: Dlfd):
    ended = dlfd(*lab.unlearn(f"method={method}", f"checkpoint={_nan_model(lab)}"))
    _delivered_nothing(lab, ended)


def test_weights_that_are_nan_stop_an_evaluation(lab: Lab, dlfd: Dlfd):
    words = ["evaluate", *lab.faces.forget, f"checkpoint={_nan_model(lab)}", *lab.into]
    _delivered_nothing(lab, dlfd(*words))


@pytest.mark.parametrize("max_steps", ["null", "1"])
def test_a_learning_rate_that_overflows_stops_training(max_steps: str, lab: Lab, dlfd: Dlfd):
    ended = dlfd(*lab.train("train.lr=1e30", f"train.max_steps={max_steps}"))
    _delivered_nothing(lab, ended)
    assert not (RunDir(lab.target).checkpoints / "latest").exists()


def _delivered_nothing(lab: Lab, ended: Ended) -> None:
    assert ended.status == 2, ended
    assert "became" in ended.sentence
    assert "checkpoint for NaN" in ended.sentence
    assert not RunDir(lab.target).finished()
    assert not RunDir(lab.target).model.exists()


# --- disks


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_refused_at_the_start(lab: Lab, dlfd: Dlfd):
    with _mounted(lab.folder / "disk", "size=8m") as disk:
        ended = dlfd(*lab.train(f"run.dir={disk / 'run'}"))
        assert ended.status == 2
        assert "has 8 MB free" in ended.sentence
        assert "choose another disk" in ended.sentence
        assert not list(disk.iterdir())


def test_a_disk_without_any_room_is_refused_at_the_start(lab: Lab, dlfd: Dlfd):
    with _mounted(lab.folder / "disk", "size=1m") as disk:
        with contextlib.suppress(OSError):
            (disk / "ballast").write_bytes(b"x" * (1 << 21))
        ended = dlfd(*lab.train(f"run.dir={disk / 'run'}"))
        assert ended.status == 2
        assert "free some space" in ended.sentence
        assert [p.name for p in disk.iterdir()] == ["ballast"]


def test_a_disk_that_fills_up_stops_the_run_and_the_same_command_goes_on(
    lab: Lab, dlfd: Dlfd, monkeypatch: pytest.MonkeyPatch
):
    """Another user's file takes the room when the first checkpoint is there."""
    from dlfd_dist.jobs import session

    save = session.save_checkpoint

    def save_and_fill(folder: Path, *args, **more):
        save(folder, *args, **more)
        with contextlib.suppress(OSError):
            (disk / "ballast").write_bytes(b"x" * (512 << 20))

    words = lab.unlearn("method=finetune", "run.checkpoint_every=1")
    whole = dlfd(*words, "--json")
    with _mounted(lab.folder / "disk", "size=512m") as disk:
        words += [f"run.dir={disk / 'run'}", "--json"]
        monkeypatch.setattr(session, "save_checkpoint", save_and_fill)
        ended = dlfd(*words)
        assert ended.status == 2
        assert "No space left on device" in ended.sentence
        held = RunDir(disk / "run")
        assert not held.finished()
        assert not [p for p in held.path.rglob("*") if p.name.endswith(".tmp")]
        monkeypatch.setattr(session, "save_checkpoint", save)
        (disk / "ballast").unlink()
        again = dlfd(*words)
        assert again.status == 0, again
        assert again.json["model_sha256"] == whole.json["model_sha256"]


def test_a_disk_that_is_read_only_is_refused(lab: Lab, dlfd: Dlfd):
    with _mounted(lab.folder / "disk", "size=2g,ro") as disk:
        ended = dlfd(*lab.train(f"run.dir={disk / 'run'}"))
        assert ended.status == 2
        assert "Read-only file system" in ended.sentence
        assert "choose another directory" in ended.sentence
        ended = dlfd("compare", *lab.faces.forget, f"run.dir={disk / 'compare'}")
        assert ended.status == 2
        assert "Read-only file system" in ended.sentence


def test_a_finished_run_is_returned_from_a_disk_that_is_read_only(
    lab: Lab, faces: Faces, dlfd: Dlfd
):
    with _mounted(lab.folder / "disk", "size=2g") as disk:
        shutil.copytree(lab.original, disk / "run")
        remount = ["mount", "-o", "remount,ro", str(disk)]
        subprocess.run(remount, check=True)
        ended = dlfd("train", *faces.forget, f"run.dir={disk / 'run'}", "--json")
        assert ended.status == 0, ended
        assert ended.json["run_dir"] == str(disk / "run")
