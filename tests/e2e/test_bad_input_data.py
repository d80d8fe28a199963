"""Bad data and bad requests: one sentence that names the row or the line, and no traces."""

from __future__ import annotations

import pytest

from tests.fakes.bad_input import Cases, Dlfd, Lab
from tests.fakes.command_line import read_csv, write_csv

CASES = Cases()


@CASES.add
def missing_image(lab: Lab):
    (lab.data / "person-03/face 1.png").unlink()
    return lab.train(), ["row 15 (person-03/face 1.png)", "missing", str(lab.data)]


@CASES.add
def corrupt_image(lab: Lab):
    (lab.data / "person-03/face 1.png").write_bytes(b"not an image")
    return lab.train(), ["row 15 (person-03/face 1.png)", "cannot be decoded"]


@CASES.add
def truncated_image(lab: Lab):
    path = lab.data / "person-03/face 1.png"
    path.write_bytes(path.read_bytes()[:200])
    return lab.train(), ["row 15 (person-03/face 1.png)", "cannot be decoded"]


@CASES.add
def label_in_val_only(lab: Lab):
    lab.edit(35, "label", "7")
    return lab.train(), ["row 35", "'7' is unknown", "0, 1"]


@CASES.add
def multi_label_value(lab: Lab):
    lab.edit(5, "glasses", "2")
    words = lab.train("data.label=[smile,glasses]")
    return words, ["row 5", "glasses='2'", "0, 1 or -1"]


@CASES.add
def identity_in_two_splits(lab: Lab):
    lab.edit(4, "split", "val")
    return lab.train(), ["'Person-00'", "train and val", "give every person one split"]


@CASES.add
def unknown_split(lab: Lab):
    lab.edit(4, "split", "dev")
    return lab.train(), ["row 4", "'dev'", "train, val or test"]


@CASES.add
def no_root(lab: Lab):
    return ["train", *lab.into], ["data.root is missing", "data.root=DIR"]


@CASES.add
def root_missing(lab: Lab):
    return ["train", f"data.root={lab.folder / 'no'}", *lab.into], ["data.root=", "is not a folder"]


@CASES.add
def manifest_missing(lab: Lab):
    (lab.data / "metadata.csv").unlink()
    return lab.train(), ["There is no manifest at", "metadata.csv", "data.manifest"]


@CASES.add
def manifest_without_column(lab: Lab):
    rows = [[cell for cell in row if cell != "identity"] for row in read_csv(lab.manifest)]
    write_csv(lab.manifest, rows)
    return lab.train(), ["lacks the column identity", "image_path"]


@CASES.add
def manifest_empty(lab: Lab):
    lab.manifest.write_bytes(b"")
    return lab.train(), ["metadata.csv", "lacks the column image_path", "it has none"]


@CASES.add
def manifest_header_only(lab: Lab):
    write_csv(lab.manifest, read_csv(lab.manifest)[:1])
    return lab.train(), ["metadata.csv has no rows"]


@CASES.add
def manifest_binary(lab: Lab):
    lab.manifest.write_bytes(bytes(range(256)) * 8)
    return lab.train(), ["metadata.csv is not a CSV text file"]


@CASES.add
def path_escapes_the_root(lab: Lab):
    lab.edit(2, "image_path", "../../etc/passwd")
    return lab.train(), ["row 2", "../../etc/passwd leads out of data.root", "stay inside"]


@CASES.add
def absolute_path(lab: Lab):
    lab.edit(2, "image_path", "/etc/passwd")
    return lab.train(), ["row 2", "/etc/passwd leads out of data.root"]


# --- the request


@CASES.add
def unknown_person(lab: Lab):
    return lab.request("Person-01\nSomeone Else\n"), [
        "'Someone Else' (line 2)",
        "Correct or remove",
    ]


@CASES.add
def everybody(lab: Lab):
    everyone = "\n".join(f"Person-{n:02d}" for n in range(8))
    return lab.request(everyone), ["all 32 training images", "Ask for fewer people"]


@CASES.add
def nobody_of_train(lab: Lab):
    return lab.request("Person-08\nPerson-10\n"), ["matches no training image", "val or test"]


@CASES.add
def empty_request(lab: Lab):
    return lab.request("\n# nobody yet\n"), ["names nobody", "one identity or image path a line"]


@CASES.add
def request_missing(lab: Lab):
    return lab.unlearn(f"forget.request={lab.folder / 'no.txt'}"), ["no.txt is not a file"]


@CASES.add
def request_is_a_folder(lab: Lab):
    return lab.unlearn(f"forget.request={lab.folder}"), ["is not a file"]


@CASES.add
def request_binary(lab: Lab):
    path = lab.file("request.txt", bytes(range(128, 256)))
    return lab.unlearn(f"forget.request={path}"), ["is not a text file"]


@CASES.add
def no_request_for_unlearn(lab: Lab):
    words = [w for w in lab.unlearn() if not w.startswith("forget.")]
    return words, ["Nobody to forget", "forget.request=FILE", "forget.fraction=0.2"]


@CASES.add
def no_request_for_retrained(lab: Lab):
    return lab.train("train.on=retain"), ["Nobody to forget", "forget.request=FILE"]


@CASES.add
def no_request_for_compare(lab: Lab):
    return ["compare", *lab.faces.small, *lab.into], ["Nobody to forget", "forget.request=FILE"]


@CASES.add
def request_and_fraction(lab: Lab):
    words = [*lab.unlearn(), "forget.fraction=0.5"]
    return words, ["forget.request and forget.fraction are both set"]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_leaves_no_trace(name: str, lab: Lab, dlfd: Dlfd):
    lab.check(name, CASES, dlfd)
