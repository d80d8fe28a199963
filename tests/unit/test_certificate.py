"""Certificates: no name in clear, and no byte or field changed without verify finding it."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from dlfd_dist.digests import file_digest
from dlfd_dist.errors import DataError, DlfdError, RunDirError
from dlfd_dist.evidence import (
    CERTIFICATE,
    SALT,
    Check,
    Given,
    Recorded,
    fingerprint,
    generate,
    issue,
    read_private,
    read_public,
    read_run,
    verify,
)
from dlfd_dist.evidence.canonical import read_json, to_text
from dlfd_dist.evidence.chain import make_chain
from dlfd_dist.evidence.recomputed import compare_figures
from dlfd_dist.evidence.schema import CERTIFICATE_SCHEMA, misfit
from dlfd_dist.evidence.sections import figures_of
from dlfd_dist.run_dir import RunDir, write_json
from launch.cli import main
from launch.verbs.certify import NOT_ALL_CHECKED, UNKNOWN_SIGNER, run_verify
from tests.fakes.certified import NAMES, NOTHING, RECORDED, STARTED, make_run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with an unsigned certificate."""
    made = make_run(tmp_path)
    issue(read_run(made.path), RECORDED, names=False, key=None)
    return made


def found(path: Path, given: Given = NOTHING) -> list[str]:
    """Return what is wrong: the names of failed checks, or that it is no certificate at all."""
    try:
        return [check.name for check in verify(path, given) if not check.ok]
    except DlfdError as err:
        return [str(err)]


def leaves(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield where
    for key, held in items:
        yield from leaves(held, (*where, key))


def changed(document: Any, where: tuple[Any, ...]) -> Any:
    """Return a copy with another value of the same type, where there is one, at a leaf."""
    copied = copy.deepcopy(document)
    holder = copied
    for key in where[:-1]:
        holder = holder[key]
    old = holder[where[-1]]
    if isinstance(old, bool) or old is None:
        new: Any = not old
    elif isinstance(old, str):
        new = old[:-1] + ("0" if old[-1:] != "0" else "1")
    else:
        new = old + 1
    holder[where[-1]] = new
    return copied


def test_an_intact_run_verifies(run: RunDir):
    assert found(run.path) == []
    assert found(run.path / CERTIFICATE) == []


def test_no_name_of_the_request_stands_in_the_certificate(run: RunDir):
    text = (run.path / CERTIFICATE).read_text(encoding="utf-8").casefold()
    assert "80fbd39f" not in text
    assert "cd" * 32 not in text
    # Among the digits of some fifty digests 1987 stands by chance.
    text = re.sub("[0-9a-f]{40,}", "", text)
    plain = "".join(c for c in text if c.isalnum())
    for part in ("wilhelmina", "featherstone", "bartholomew", "quigley", "zenobia", "1987"):
        assert part not in text
        assert part not in plain
    assert (run.path / SALT).stat().st_mode & 0o777 == 0o600
    salt = json.loads((run.path / SALT).read_text(encoding="utf-8"))
    assert sorted(salt["names"].values()) == sorted(NAMES)


def test_plain_digests_of_files_with_names_are_not_given(run: RunDir):
    text = (run.path / CERTIFICATE).read_text(encoding="utf-8")
    for path in (
        run.request,
        run.config,
        run.identity,
        run.result,
        run.samples,
        run.removed,
        run.leaks,
    ):
        assert file_digest(path) not in text
    assert file_digest(run.model) in text


def test_names_are_shown_when_asked_for(tmp_path: Path):
    run = make_run(tmp_path)
    document = issue(read_run(run.path), RECORDED, names=True, key=None)
    assert {line["name"] for line in document["sections"]["request"]["lines"]} == set(NAMES)
    assert found(run.path) == []


def test_500_random_changes_of_a_byte_are_found(run: RunDir):
    rng = np.random.default_rng(0)
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file()]
    files.append(next(run.path.parents[1].glob("*.safetensors")))
    assert {path.name for path in files} >= {"leaks.csv", "environment.json", "removed.csv"}
    assert len(files) == 13
    for number in range(500):
        path = files[number % len(files)]
        content = path.read_bytes()
        flipped = bytearray(content)
        place, change = int(rng.integers(len(flipped))), int(rng.integers(1, 256))
        flipped[place] ^= change
        path.write_bytes(flipped)
        assert found(run.path), f"{path.name}, byte {place} ^ {change}"
        path.write_bytes(content)
    assert found(run.path) == []


def test_every_changed_field_is_found(run: RunDir):
    path = run.path / CERTIFICATE
    document = json.loads(path.read_text(encoding="utf-8"))
    places = list(leaves(document))
    assert len(places) > 200
    for where in places:
        path.write_text(to_text(changed(document, where)), encoding="utf-8")
        assert found(run.path), where


def test_what_files_say_is_found_also_where_the_chain_was_made_anew(run: RunDir):
    path = run.path / CERTIFICATE
    document = json.loads(path.read_text(encoding="utf-8"))
    for where in leaves(document["sections"]):
        if where[0] == "issued" or where[1] in ("certified", "result_written"):
            continue
        forged = copy.deepcopy(document)
        forged["sections"] = changed(document["sections"], where)
        forged["chain"] = make_chain(forged["sections"])
        path.write_text(to_text(forged), encoding="utf-8")
        assert found(run.path), where


def test_code_and_environment_are_those_of_the_run(run: RunDir):
    sections = read_json(run.path / CERTIFICATE, "certificate")[0]["sections"]
    assert sections["code"] == {"as_of": "run", "changed": False, **STARTED["code"]}
    assert sections["environment"]["python"] == "3.12.1"
    assert sections["times"]["started"] == STARTED["started"]


def test_a_run_gone_on_with_by_other_code_says_so_and_an_old_one_that_it_knows_of_none(tmp_path):
    run = make_run(tmp_path)
    run.record_start({**STARTED, "started": "2026-02-01T00:00:00Z"})
    assert len(run.read_starts()) == 1
    run.record_start({**STARTED, "code": RECORDED.code})
    code = issue(read_run(run.path), RECORDED, names=False, key=None)["sections"]["code"]
    assert code == {"as_of": "run", "changed": True, **RECORDED.code}
    for path in (run.path / CERTIFICATE, run.environment):
        path.unlink()
    sections = issue(read_run(run.path), RECORDED, names=False, key=None)["sections"]
    assert sections["code"] == {"as_of": "certification", "changed": None, **RECORDED.code}
    assert sections["environment"]["python"] == "3.11.2"
    assert found(run.path) == []


@pytest.mark.parametrize(
    "place", [(), ("sections",), ("sections", "run"), ("chain", 0), ("sections", "files", 0)]
)
def test_extra_fields_fail(run: RunDir, place: tuple[Any, ...]):
    path = run.path / CERTIFICATE
    document = json.loads(path.read_text(encoding="utf-8"))
    holder = document
    for key in place:
        holder = holder[key]
    holder["also"] = 1
    path.write_text(to_text(document), encoding="utf-8")
    assert found(run.path) == ["form"]


def test_a_path_that_leaves_the_run_fails(run: RunDir):
    path = run.path / CERTIFICATE
    document = json.loads(path.read_text(encoding="utf-8"))
    document["sections"]["files"][0]["path"] = "../../Zenobia Ash.safetensors"
    document["chain"] = make_chain(document["sections"])
    path.write_text(to_text(document), encoding="utf-8")
    assert "file ../../Zenobia Ash.safetensors" in found(run.path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"format": "x", "format": "y"}', "stands twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": 1e999}', "not a certificate"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "\\ud800"}', "not a certificate"),
        ("[]", "does not say format"),
        ('{"format": "dlfd-certificate", "version": 1}', "of version 1, whose code"),
        ('{"format": "dlfd-certificate", "version": 5}', "version 5"),
    ],
)
def test_what_is_no_certificate_gets_one_sentence(tmp_path: Path, text: str, match: str):
    path = tmp_path / CERTIFICATE
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DlfdError, match=match):
        verify(path)


def test_signature(tmp_path: Path):
    run, pem = make_run(tmp_path), tmp_path / "key.pem"
    public = generate(pem)
    assert pem.stat().st_mode & 0o777 == 0o600
    with pytest.raises(DlfdError, match="never written over"):
        generate(pem)
    signed = Recorded(**{**vars(RECORDED), "signed_by": fingerprint(public)})
    document = issue(read_run(run.path), signed, names=False, key=read_private(pem))
    assert found(run.path) == []
    assert found(run.path, Given(read_public(tmp_path / "key.pub.pem"))) == []
    assert found(run.path, Given(generate(tmp_path / "other"))) == ["signature"]
    path = run.path / CERTIFICATE
    for where in leaves(document["signature"]):
        forged = {**document, "signature": changed(document["signature"], where)}
        path.write_text(to_text(forged), encoding="utf-8")
        assert found(run.path), where
    path.write_text(to_text({**document, "signature": None}), encoding="utf-8")
    assert found(run.path) == ["signature"]
    forged = copy.deepcopy(document)
    forged["sections"]["issued"]["version"] = "9"
    forged["chain"] = make_chain(forged["sections"])
    path.write_text(to_text(forged), encoding="utf-8")
    assert found(run.path) == ["signature"]


def test_an_unsigned_certificate_fails_where_a_key_is_given(run: RunDir, tmp_path: Path):
    assert found(run.path, Given(generate(tmp_path / "key"))) == ["signature"]


def test_a_run_that_looked_at_test_to_choose_is_not_certified(tmp_path: Path):
    run = make_run(tmp_path)
    write_json(run.result, {**run.read_result(), "test_read": "before selection"})
    with pytest.raises(RunDirError, match="read the test set 'before selection'.*no evidence"):
        read_run(run.path)
    write_json(run.result, {**run.read_result(), "test_read": "after selection"})
    read_run(run.path)


def test_other_figures_by_other_code_are_told_as_such(run: RunDir):
    sections = read_json(run.path / CERTIFICATE, "certificate")[0]["sections"]
    measured = {name: 0.123 for name in sections["metrics"]["figures"]}
    weights = run.path.parents[1] / "Zenobia Ash.safetensors"

    def recomputed(figures: dict[str, Any], code: dict[str, Any]) -> Check:
        given = Given(checkpoint=weights, measure=lambda _: figures, code=code)
        return next(check for check in verify(run.path, given) if check.name == "recompute")

    same = recomputed(measured, STARTED["code"])
    assert not same.ok
    assert "these figures differ" in same.meaning
    assert "not that of the run" not in same.meaning
    other = recomputed(measured, {**STARTED["code"], "revision": "f" * 40})
    assert f"check out revision {STARTED['code']['revision']}" in other.meaning
    good = recomputed(figures_of(run.read_result()), {"revision": "f" * 40})
    assert good.ok


@pytest.mark.parametrize(
    ("synthetic", "leaks", "said"),
    [
        (True, None, "The faces are drawn"),
        (False, None, "data.leaks=false"),
        (False, {}, ""),
    ],
)
def test_a_certificate_says_why_equal_images_were_not_looked_for(
    tmp_path: Path, synthetic: bool, leaks: Any, said: str
):
    run = make_run(tmp_path)
    run.removed.unlink()
    result = run.read_result()
    leaks = leaks if leaks is None else {**result["leaks"], "forget_retain": 0}
    write_json(run.result, {**result, "synthetic": synthetic, "leaks": leaks})
    document = issue(read_run(run.path), RECORDED, names=False, key=None)
    warning = document["sections"]["leak_audit"]["warning"]
    assert said in warning
    assert bool(warning) == bool(said)
    assert found(run.path) == []


def test_the_published_schema_is_that_of_the_code(run: RunDir):
    published = json.loads((DOCS / "certificate.schema.json").read_text(encoding="utf-8"))
    assert published == CERTIFICATE_SCHEMA
    document = read_json(run.path / CERTIFICATE, "certificate")[0]
    assert misfit(document, published) is None
    jsonschema.validate(document, published)


def test_figures_are_compared_within_the_stated_tolerance():
    figures = {"a": {"b": [0.5, 1e-12]}, "c": "said", "d": None}
    assert compare_figures(figures, copy.deepcopy(figures)) == (
        True, "all figures are equal bit for bit",
    )  # fmt: skip
    assert compare_figures(figures, {**figures, "a": {"b": [0.5 + 1e-8, 0.0]}})[0]
    for other in ({"b": [0.5 + 1e-5, 1e-12]}, {"b": [0.5]}, {}, {"b": [True, 1e-12]}):
        assert not compare_figures(figures, {**figures, "a": other})[0]


def test_every_file_of_a_run_is_certified(run: RunDir):
    document = json.loads((run.path / CERTIFICATE).read_text(encoding="utf-8"))
    certified = {entry["path"] for entry in document["sections"]["files"]}
    outside = {CERTIFICATE, SALT, "Zenobia Ash.safetensors"}
    there = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    assert certified == there - outside
    assert run.samples.name in certified


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o644])
def test_a_private_key_that_others_may_read_or_write_is_refused(mode: int, tmp_path: Path):
    key = tmp_path / "key.pem"
    generate(key)
    assert key.stat().st_mode & 0o777 == 0o600
    read_private(key)
    key.chmod(mode)
    with pytest.raises(DataError, match=rf"may be read by others \(mode {mode:o}\)"):
        read_private(key)


def test_verify_ends_with_1_where_a_check_fails_and_with_3_where_nobody_vouches(
    run: RunDir, capsys
):
    def status() -> int:
        return run_verify([str(run.path)], recompute=False, as_json=True)

    assert status() == UNKNOWN_SIGNER == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["authentic"]) == (True, False)
    run.metrics.write_text("")
    assert status() == 1
    assert f"file {run.metrics.name}" in capsys.readouterr().out


def test_a_certificate_alone_is_checked_for_what_it_says_itself(
    run: RunDir, tmp_path: Path, capsys
):
    folder = tmp_path / "officer"
    folder.mkdir()
    file = folder / CERTIFICATE
    shutil.copy(run.path / CERTIFICATE, file)
    assert main(["verify", str(file)]) == 4
    assert "none was checked" in capsys.readouterr().out
    # With one of its files beside it, all of them have to be there.
    shutil.copy(run.result, folder / run.result.name)
    assert main(["verify", str(file)]) == 1
    (folder / run.result.name).unlink()
    document = json.loads(file.read_text())
    document["sections"]["issued"]["at"] = "2020-01-01T00:00:00Z"
    file.write_text(json.dumps(document))
    assert main(["verify", str(file)]) == 1


REASON = "Left the model as it is: neither its weights nor its answers moved."


def left_as_is(run: RunDir) -> RunDir:
    """Return a run whose result says that it did nothing."""
    result = json.loads(run.result.read_text())
    result["against_original"] = {"left_as_is": True, "reason": REASON}
    run.result.write_text(json.dumps(result))
    return run


def test_certify_and_verify_end_with_what_to_mind(tmp_path: Path, capsys):
    run = left_as_is(make_run(tmp_path))
    assert main(["certify", str(run.path)]) == 0
    assert f"mind         {REASON}" in capsys.readouterr().out
    alone = tmp_path / CERTIFICATE
    shutil.copy(run.path / CERTIFICATE, alone)
    for path in (run.path, alone):
        main(["verify", str(path)])
        last = capsys.readouterr().out.rstrip().splitlines()[-3:]
        assert last[0].startswith("That is no verdict on the forgetting.")
        assert last[1:] == [f"mind         {REASON}", "mind         The interval holds 0.5."]


def test_what_failed_warns_of_nothing(run: RunDir, capsys):
    run.metrics.write_text("")
    assert main(["verify", str(run.path)]) == 1
    assert capsys.readouterr().out.rstrip().endswith("FAILED")


def test_a_copy_says_which_checks_it_could_not_make(run: RunDir, tmp_path: Path, capsys):
    copied = tmp_path / "officer" / "a"
    shutil.copytree(run.path, copied)
    original = tmp_path / "Zenobia Ash.safetensors"
    original.rename(tmp_path / "kept.safetensors")
    assert main(["verify", str(copied)]) == NOT_ALL_CHECKED
    printed = capsys.readouterr().out
    assert "absent  checkpoint: not checked, for it is not here" in printed
    assert "could not: checkpoint. Whoever checks those needs the models" in printed
    assert "Nobody you trust vouches for it" in printed
    assert main(["verify", str(copied), "--checkpoint", str(tmp_path / "kept.safetensors")]) == 3
    # Something that is wrong outweighs what is missing.
    (copied / "metrics.jsonl").write_text("")
    assert main(["verify", str(copied)]) == 1
    assert main(["verify", str(run.path), "--checkpoint", str(run.model)]) == 1


def test_a_path_of_the_run_is_found_from_another_folder(tmp_path: Path, monkeypatch):
    run = make_run(tmp_path)
    named = run.config.read_text().replace(f"{tmp_path}/Zenobia", "Zenobia")
    assert named != run.config.read_text()
    run.config.write_text(named)
    issue(read_run(run.path), RECORDED, names=False, key=None)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["verify", str(run.path)]) == 3
    (elsewhere / "Zenobia Ash.safetensors").write_bytes(b"another file")
    assert main(["verify", str(run.path)]) == 1
