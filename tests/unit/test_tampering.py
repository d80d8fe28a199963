"""Ways to alter a certified run: `dlfd verify` finds each, or docs/certificate.md names it."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlfd_dist.errors import DlfdError
from dlfd_dist.evidence import (
    CERTIFICATE,
    SALT,
    Given,
    fingerprint,
    generate,
    issue,
    read_private,
    read_public,
    read_run,
    verify,
)
from dlfd_dist.evidence.canonical import to_text
from dlfd_dist.evidence.chain import make_chain, signed_bytes
from dlfd_dist.evidence.keys import sign
from dlfd_dist.evidence.pseudonyms import read_salt, salt_text
from dlfd_dist.run_dir import RunDir
from launch.verbs.certify import UNKNOWN_SIGNER, run_verify
from tests.fakes.certified import RECORDED, make_run

DOCS = Path(__file__).parents[2] / "docs" / "certificate.md"
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519: a signature stays valid in careless readers when it is added to the second half."""
SECOND = "2,Bartholomew-Quigley,identity,matched,4\n"
ORIGINAL_WEIGHTS = "Zenobia Ash.safetensors"


@dataclass(frozen=True)
class Certified:
    """A copy of the one certified run, and what a forger has."""

    run: RunDir
    home: Path
    """Has the signer's key.pem, a stranger's other.pem, and the run `again`, certified as well."""

    def document(self) -> dict[str, Any]:
        return json.loads((self.run.path / CERTIFICATE).read_text(encoding="utf-8"))

    def write(self, document: dict[str, Any]) -> None:
        self.text(to_text(document))

    def text(self, text: str) -> None:
        (self.run.path / CERTIFICATE).write_text(text, encoding="utf-8")

    def failures(self, *, key: bool = True) -> list[str]:
        public = read_public(self.home / "key.pub.pem") if key else None
        try:
            return [c.name for c in verify(self.run.path, Given(public)) if not c.ok]
        except DlfdError as err:
            return [str(err)]


def _certify(home: Path, run: RunDir) -> None:
    private = read_private(home / "key.pem")
    recorded = copy.copy(RECORDED)
    object.__setattr__(recorded, "signed_by", fingerprint(private.public_key()))
    issue(read_run(run.path), recorded, names=False, key=private)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    for name in ("key.pem", "other.pem"):
        generate(folder / name)
    for name in ("run", "again"):
        _certify(folder, make_run(folder / name))
    return folder


@pytest.fixture
def certified(home: Path, tmp_path: Path) -> Certified:
    shutil.copytree(home / "run" / "runs" / "a", tmp_path / "a")
    return Certified(RunDir(tmp_path / "a"), home)


Tamper = Callable[[Certified], object]

FILES = (
    "config.yaml", "run.json", "environment.json", "request.csv", "removed.csv", "leaks.csv",
    "metrics.jsonl", "samples.safetensors", "result.json", "checkpoints/final/model.safetensors",
)  # fmt: skip


def byte(name: str) -> Tamper:
    def tamper(it: Certified) -> None:
        path = it.run.path / name
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)

    return tamper


def gone(name: str) -> Tamper:
    return lambda it: (it.run.path / name).unlink()


def text(name: str, old: str, new: str) -> Tamper:
    def tamper(it: Certified) -> None:
        path = it.run.path / name
        content = path.read_text(encoding="utf-8")
        assert old in content
        path.write_text(content.replace(old, new, 1), encoding="utf-8")

    return tamper


def field(*where: Any, to: Any) -> Tamper:
    """Change a field of the certificate and make the chain anew; the signature stays."""

    def tamper(it: Certified) -> None:
        document = it.document()
        place = document["sections"]
        for key in where[:-1]:
            place = place[key]
        assert place[where[-1]] != to
        place[where[-1]] = to
        document["chain"] = make_chain(document["sections"])
        it.write(document)

    return tamper


def signature(**values: Any) -> Tamper:
    def tamper(it: Certified) -> None:
        document = it.document()
        assert document["signature"] != {**document["signature"], **values}
        document["signature"] |= values
        it.write(document)

    return tamper


def unsign(it: Certified) -> None:
    it.write({**it.document(), "signature": None})


def unsign_and_chain(it: Certified) -> None:
    document = it.document()
    document["sections"]["issued"]["signed_by"] = None
    it.write({**document, "signature": None, "chain": make_chain(document["sections"])})


def sign_as_stranger(it: Certified, name: str = "other.pem") -> None:
    """Sign all anew with another key, as whoever has the run directory can."""
    document, key = it.document(), read_private(it.home / name)
    document["sections"]["issued"]["signed_by"] = fingerprint(key.public_key())
    document["chain"] = make_chain(document["sections"])
    it.write({**document, "signature": sign(key, signed_bytes(document["sections"]))})


def certify_as_stranger(it: Certified) -> None:
    """Change a figure and certify the whole run anew."""
    text("result.json", '"nomus": 0.86', '"nomus": 0.99')(it)
    (it.run.path / CERTIFICATE).unlink()
    issue(read_run(it.run.path), RECORDED, names=False, key=None)
    sign_as_stranger(it)


def of_again(part: str) -> Tamper:
    """Take a part of the certificate of another run that the same key signed."""

    def tamper(it: Certified) -> None:
        other = json.loads((it.home / "again" / "runs" / "a" / CERTIFICATE).read_text("utf-8"))
        it.write({**it.document(), part: other[part]})

    return tamper


def whole_of_again(it: Certified) -> None:
    for name in (CERTIFICATE, SALT):
        shutil.copy(it.home / "again" / "runs" / "a" / name, it.run.path / name)
    byte("result.json")(it)


def malleable(it: Certified) -> None:
    signed = bytes.fromhex(it.document()["signature"]["signature"])
    second = int.from_bytes(signed[32:], "little") + GROUP_ORDER
    signature(signature=(signed[:32] + second.to_bytes(32, "little")).hex())(it)


def small_order(point: bytes) -> Tamper:
    """Give a public key under which a signature of zeros fits many messages."""

    def tamper(it: Certified) -> None:
        document = it.document()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        mark = fingerprint(Ed25519PublicKey.from_public_bytes(point))
        document["sections"]["issued"]["signed_by"] = mark
        document["chain"] = make_chain(document["sections"])
        zeros = (point + bytes(32)).hex()
        document["signature"] |= {
            "public_key": point.hex(), "fingerprint": mark, "signature": zeros,
        }  # fmt: skip
        it.write(document)

    return tamper


def in_certificate(old: str, new: str) -> Tamper:
    return text(CERTIFICATE, old, new)


def reorder(name: str) -> Tamper:
    def tamper(it: Certified) -> None:
        document = it.document()
        place = document if name == "chain" else document["sections"]
        list_of = place[name] if name != "lines" else document["sections"]["request"]["lines"]
        list_of.reverse()
        if name != "chain":
            document["chain"] = make_chain(document["sections"])
        it.write(document)

    return tamper


def drop_file(it: Certified) -> None:
    document = it.document()
    document["sections"]["files"].pop()
    document["chain"] = make_chain(document["sections"])
    it.write(document)


def swap_weights(it: Certified) -> None:
    shutil.copy(it.home / "run" / ORIGINAL_WEIGHTS, it.run.model)


def swap_names(it: Certified) -> None:
    path = it.run.path / SALT
    held = json.loads(path.read_text(encoding="utf-8"))
    one, other, *_ = held["names"]
    held["names"][one], held["names"][other] = held["names"][other], held["names"][one]
    path.write_text(to_text(held), encoding="utf-8")


def named_in_salt(change: Callable[[list[str]], list[str]]) -> Tamper:
    """Write the salt file anew, as dlfd would, with other people in it."""

    def tamper(it: Certified) -> None:
        salt, names = read_salt(it.run.path / SALT)
        changed = change(sorted(names))
        assert sorted(changed) != sorted(names)
        (it.run.path / SALT).write_text(salt_text(salt, changed), encoding="utf-8")

    return tamper


IN_THE_SALT: dict[str, Tamper] = {
    "a name more in the salt": named_in_salt(lambda names: [*names, "Nobody Who Asked"]),
    "a name less in the salt": named_in_salt(lambda names: names[1:]),
    "a name for another in the salt": named_in_salt(lambda names: ["Nobody", *names[1:]]),
    "no name in the salt": named_in_salt(lambda _: []),
}
"""The salt itself is the true one, so that every other check holds."""


def other_salt(it: Certified) -> None:
    shutil.copy(it.home / "again" / "runs" / "a" / SALT, it.run.path / SALT)


def swap_files(it: Certified) -> None:
    one, other = it.run.removed, it.run.leaks
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


TAMPERINGS: dict[str, Tamper] = {
    **{f"a bit of {name}": byte(name) for name in FILES},
    **{f"{name} removed": gone(name) for name in FILES},
    # what files say
    "a better figure": text("result.json", '"nomus": 0.86', '"nomus": 0.96'),
    "a guard taken off": text("result.json", '"floor": true', '"floor": false'),
    "a doubled key in the result": text("result.json", "{", '{"nomus": 1.0,'),
    "a line of the request less": text("request.csv", SECOND, ""),
    "a person for another": text("request.csv", "Bartholomew", "Bartholomea"),
    "a look-alike letter in a name": text("request.csv", "Wilhelmina", "Wilh\u0435lmina"),
    "the same name in another form": text("request.csv", "Zenobia", "Zenob\u0131a"),
    "a status of the request": text("request.csv", "matched", "outside_train"),
    "another seed": text("config.yaml", "seed: 0", "seed: 1"),
    "another method": text("config.yaml", "name: dlfd", "name: ssd"),
    "other code": text("environment.json", "ab" * 20, "cd" * 20),
    "the clock set back": text("environment.json", "2026-01-31T23", "2025-01-31T23"),
    "a leak taken out": text("leaks.csv", "forget", "retain"),
    "a digest of the inputs": text("run.json", "ab" * 32, "ba" * 32),
    "the weights that went in for those that came out": swap_weights,
    "two files swapped": swap_files,
    # what the certificate says, with a chain made anew
    "a better certified figure": field("metrics", "figures", "nomus", to=0.99),
    "a certified guard": field("metrics", "guards", "attack_floor", "flag", to=False),
    "more people": field("request", "people", to=9),
    "another band of images": field("split", "parts", "forget", "images", to="5 to 8"),
    "other rows": field("split", "parts", "forget", "rows", to="hmac-sha256:" + "0" * 64),
    "fewer single images": field("request", "single_images", to="5 to 8"),
    "another digest of the pseudonyms": field(
        "request", "pseudonyms", to="hmac-sha256:" + "0" * 64
    ),
    "fewer pairs": field("leak_audit", "found", "pairs", to="0"),
    "a leak warning": field("leak_audit", "warning", to=""),
    "another revision": field("code", "revision", to="e" * 40),
    "another environment": field("environment", "python", to="3.10.0"),
    "certified earlier": field("times", "certified", to="2020-01-01T00:00:00Z"),
    "started earlier": field("times", "started", to="2020-01-01T00:00:00Z"),
    "another seed of the run": field("seeds", "run", to=7),
    "another setting": field("config", "seed", to=7),
    "other weights out": field("checkpoints", "out", to="sha256:" + "0" * 64),
    "a limit struck out": field("statement", "does_not_prove", to=[]),
    "names said to be shown": field("issued", "names", to=True),
    "signed by nobody": field("issued", "signed_by", to=None),
    "a file that leaves the run": field("files", 0, "path", to="../../key.pem"),
    "a file less": drop_file,
    # signatures and keys
    "the signature taken off": unsign,
    "the signature and its mention taken off": unsign_and_chain,
    "a stranger's signature": sign_as_stranger,
    "all certified anew by a stranger": certify_as_stranger,
    "another run's signature": of_again("signature"),
    "another run's sections": of_again("sections"),
    "another run's chain": of_again("chain"),
    "another run's certificate and salt": whole_of_again,
    "a public key of zeros": signature(public_key="00" * 32),
    "another fingerprint": signature(fingerprint="sha256:" + "0" * 64),
    "a signature of zeros": signature(signature="00" * 64),
    "another algorithm": signature(algorithm="none"),
    "a signature plus the order of the group": malleable,
    "the neutral element as a key": small_order(bytes([1]) + bytes(31)),
    "a point of order two as a key": small_order(bytes([0xEC]) + b"\xff" * 30 + b"\x7f"),
    "a point of order four as a key": small_order(bytes(32)),
    # the writing
    "a doubled key": in_certificate('"format":', '"version": 4,\n  "format":'),
    "a doubled key, written otherwise": in_certificate("{", '{"form\\u0061t": "x",'),
    "a field more": in_certificate('"format":', '"extra": 1,\n  "format":'),
    "a look-alike format": in_certificate("dlfd-certificate", "dlfd-c\u0435rtificate"),
    "a look-alike field": in_certificate('"nomus"', '"n\u043emus"'),
    "NaN": in_certificate("0.75", "NaN"),
    "a number written otherwise": in_certificate("0.75", "0.750"),
    "a true for a one": in_certificate('"world_size": 1', '"world_size": true'),
    "a byte order mark": lambda it: it.text("\ufeff" + to_text(it.document())),
    "ends of lines": lambda it: it.text(to_text(it.document()).replace("\n", "\r\n")),
    "a blank at the end": lambda it: it.text(to_text(it.document()) + " "),
    "an earlier version": in_certificate('"version": 4', '"version": 3'),
    "the order of the files": reorder("files"),
    "the order of the chain": reorder("chain"),
    "the order of the request": reorder("lines"),
    # the salt
    "no salt": gone(SALT),
    "another run's salt": other_salt,
    "names swapped in the salt": swap_names,
    **IN_THE_SALT,
}  # fmt: skip


def test_the_run_that_is_tampered_with_is_good(certified: Certified):
    assert certified.failures() == []


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_tampering_is_found(tamper: Tamper, certified: Certified):
    tamper(certified)
    assert certified.failures()


@pytest.mark.parametrize("tamper", IN_THE_SALT.values(), ids=IN_THE_SALT)
def test_people_who_did_not_ask_are_found_by_the_pseudonyms_alone(
    tamper: Tamper, certified: Certified
):
    """The list of people is not in any other file that the certificate holds."""
    tamper(certified)
    assert certified.failures()[0] == "salt"


@pytest.mark.parametrize("name", ["removed.csv", "leaks.csv"])
def test_a_file_that_came_after_the_certificate_is_found(name: str, home: Path, tmp_path: Path):
    run = make_run(tmp_path)
    content = (run.path / name).read_bytes()
    (run.path / name).unlink()
    _certify(home, run)
    assert Certified(run, home).failures() == []
    (run.path / name).write_bytes(content)
    assert f"file {name}" in Certified(run, home).failures()


def test_sixty_ways_are_tried():
    assert len(TAMPERINGS) >= 60


@pytest.mark.parametrize("tamper", [certify_as_stranger, sign_as_stranger, unsign_and_chain])
def test_what_is_made_anew_is_not_passed_for_good_where_no_key_is_given(
    tamper: Tamper, certified: Certified, capsys: pytest.CaptureFixture[str]
):
    tamper(certified)
    words = [str(certified.run.path)]
    assert run_verify(words, recompute=False, as_json=False) == UNKNOWN_SIGNER
    assert "nobody you trust vouches for it" in capsys.readouterr().out
    key = str(certified.home / "key.pub.pem")
    assert run_verify(words, public_key=key, recompute=False, as_json=False) == 1


OUTSIDE: dict[str, tuple[Tamper, str]] = {
    "the page": (
        lambda it: (it.run.path / "report.html").write_text("forged"), "the page and its figures"
    ),
    "a log": (lambda it: (it.run.path / "logs").mkdir(), "logs"),
    "a kept image": (lambda it: (it.run.path / "synthesis").mkdir(), "`synthesis/`"),
    "the time of a file": (lambda it: os.utime(it.run.model, (0, 0)), "times of files"),
    "a certificate of an earlier day": (
        lambda it: None, "an older certificate of the same files"
    ),
}  # fmt: skip
"""What verify does not find, and the words of docs/certificate.md that say so."""


@pytest.mark.parametrize(("tamper", "words"), OUTSIDE.values(), ids=OUTSIDE)
def test_what_is_outside_the_promise_is_named(tamper: Tamper, words: str, certified: Certified):
    tamper(certified)
    assert certified.failures() == []
    limits = DOCS.read_text(encoding="utf-8").partition("## What it does not prove")[2]
    assert words in " ".join(limits.partition("\n## ")[0].split())
