"""Serves runs of pytest from one process that has loaded torch and the like: python -c TEXT FOLDER

TEXT is this file, so that processes which tests spawn have no main module to load again. FOLDER is
the tree whose tests are run. A line of standard input is JSON, [words of pytest, seconds]; the
answer is [exit status or null, node of the first failure, whether it could be collected]. Each run
is a fork, which starts in a tenth of a second instead of five and leaves nothing behind.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time

LOADED = (
    "numpy", "scipy.stats", "scipy.optimize", "torch", "torch.distributed", "torchvision",
    "torch.distributed.launcher.api", "sklearn.linear_model", "sklearn.model_selection", "ot",
    "hydra", "omegaconf", "hypothesis", "pytest", "PIL.Image", "yaml", "jinja2", "tqdm",
    "matplotlib.figure", "safetensors.torch", "cryptography.hazmat.primitives.serialization",
)  # fmt: skip
"""Packages that no fault is planted in."""


running = []
"""The process that runs tests now, which leads a group of its own."""


class FirstFailure:
    """Hears of the tests as they end, and keeps the first that fails."""

    node, collected = "", True

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.node:
            self.node = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and not self.node:
            self.node, self.collected = report.nodeid, False


def run(folder, words, answer):
    """Run pytest in this process and end it."""
    status, seen = 3, FirstFailure()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        os.setsid()
        os.chdir(folder)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        sys.path.insert(0, folder)
        sys.argv = ["pytest"]
        status = int(sys.modules["pytest"].main(words, plugins=[seen]))
    finally:
        os.write(answer, json.dumps([status, seen.node, seen.collected]).encode())
        os._exit(0)


def ended(child, seconds):
    """Return whether a run ended in time; end it, and whatever it started, in any case."""
    end = time.monotonic() + seconds
    in_time = False
    running.append(child)
    while not in_time and time.monotonic() < end:
        in_time = os.waitpid(child, os.WNOHANG)[0] == child
        time.sleep(0.05)
    running.clear()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not in_time:
        os.waitpid(child, 0)
    return in_time


def stopped(*_):
    """End at once: what the libraries would tidy up takes seconds."""
    if running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pop(), signal.SIGKILL)
    os._exit(75)


def serve(folder):
    for name in LOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGTERM, stopped)
    for line in sys.stdin:
        words, seconds = json.loads(line)
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            run(folder, words, send)
        os.close(send)
        in_time = ended(child, seconds)
        text = os.read(receive, 65536) if in_time else b""
        os.close(receive)
        print(text.decode() or json.dumps([None, "", True]), flush=True)


serve(sys.argv[1])
