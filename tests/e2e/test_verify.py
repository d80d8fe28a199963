"""A real run is certified, signed, verified and measured again; what was changed is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


def unlearn(dlfd, faces, original: Path, run: Path) -> None:
    """Unlearn on one rank; the command says of every guard that fired why."""
    words = [f"checkpoint={original}", f'run.dir="{run}"', "run.name=Person-01"]
    ended = dlfd("unlearn", "method=finetune", *words, *faces.forget)
    assert ended.status == 0
    guards = guards_of(run)
    fired = [guard["reason"] for guard in guards.values() if guard["flag"]]
    assert guards["one_seed"]["reason"] in fired
    assert all(reason in ended.out for reason in fired)


def guards_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text(encoding="utf-8"))["guards"]


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize("ranks", [1, 2])
def test_certify_sign_verify_recompute(
    ranks: int, dlfd, faces, original: Path, two_ranks: Path, tmp_path: Path
):
    run, key = tmp_path / "run of Person-01", tmp_path / "key.pem"
    if ranks == 1:
        unlearn(dlfd, faces, original, run)
    else:
        shutil.copytree(two_ranks, run)
    guards = guards_of(run)
    assert dlfd("keygen", key).status == 0
    assert "never written over" in dlfd("keygen", key).sentence
    assert dlfd("certify", run, "--key", key).status == 0
    text = (run / "certificate.json").read_text(encoding="utf-8").casefold()
    assert "person-" not in text
    assert "people who left" not in text
    sections = json.loads(text)["sections"]
    assert sections["run"]["world_size"] == ranks
    assert {n: g["flag"] for n, g in sections["metrics"]["guards"].items()} == {
        n: g["flag"] for n, g in guards.items()
    }
    assert sections["code"]["as_of"] == sections["environment"]["as_of"] == "run"
    assert sections["environment"]["packages"]["torch"]
    public = tmp_path / "key.pub.pem"
    ended = dlfd("verify", run, "--public-key", public, "--recompute")
    assert ended.status == 0, ended.out
    assert ranks > 1 or "equal bit for bit" in ended.out
    assert "not a privacy guarantee" in ended.out
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    (run / "result.json").write_text(json.dumps({**result, "nomus": 1.0}), encoding="utf-8")
    ended = dlfd("verify", run / "certificate.json", "--json")
    assert ended.status == 1
    failed = [check["name"] for check in ended.json["checks"] if not check["ok"]]
    assert failed[0] == "file result.json"
    assert "is there already" in dlfd("certify", run).sentence


def test_bad_input_is_one_sentence(dlfd, original: Path, tmp_path: Path):
    (tmp_path / "key.pem").write_text("nothing", encoding="utf-8")
    for words, said in (
        (["certify"], "give the directory of a finished run"),
        (["certify", tmp_path], "not a finished run"),
        (["certify", original], "forgets nobody"),
        (["verify", tmp_path], "cannot be read"),
        (["verify", original, "--key", "x"], "option of 'dlfd certify'"),
        (["verify", original, "--public-key", tmp_path / "key.pem"], "not a public key"),
        (["verify", original, "--public-key"], "needs a path"),
        (["keygen", tmp_path / "no folder" / "key"], "cannot be written"),
    ):
        ended = dlfd(*words)
        assert ended.status == 2, words
        assert said in ended.sentence
