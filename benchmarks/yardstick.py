"""What our measures see: strength and power of the attack, coverage over people and over seeds.

    python benchmarks/yardstick.py [--share 1.0] [--only attack people seeds] [--write]

Every section is a module of its own, yardstick_<name>.py, whose `section(simulations)` returns
Markdown: the old measure against the new one, on simulated worlds whose truth is known. All of it
takes fifteen minutes of one core, and up to two more for each of fifteen rows of accuracy.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time

from results import write_result

SECTIONS = {"attack": 300, "people": 2000, "seeds": 2000}
"""Name -> simulations in a row, of which slow columns take a stated part."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the simulations")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    parts, start = [], time.process_time()
    for name in given.only:
        module = f"yardstick_{name}"
        if importlib.util.find_spec(module) is None:
            continue
        simulations = max(20, round(given.share * SECTIONS[name]))
        parts.append(importlib.import_module(module).section(simulations))
        print(f"\n{parts[-1]}", flush=True)
    minutes = (time.process_time() - start) / 60
    print(f"{minutes:.1f} minutes of one core")
    if given.write:
        title = "What our measures can see: old against new, on simulated worlds"
        write_result("yardstick", title, "\n\n".join(parts), minutes, named="minutes of one core:")


if __name__ == "__main__":
    main()
