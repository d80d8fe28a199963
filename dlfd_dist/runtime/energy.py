"""What the device of a rank has used, as NVML counts it.

NVML counts the energy of a whole device since its driver was loaded, whoever uses it. It is asked
through pynvml (the package nvidia-ml-py), which need not be there.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from .collectives import Collectives


class EnergyMeter:
    """Counts the energy of one device from the moment the meter is made."""

    def __init__(self, device: torch.device):
        self._on_cuda = device.type == "cuda"
        self._handle = nvml_handle(device) if self._on_cuda else None
        self._begin = self._total()

    def joules(self) -> float | None:
        """Return what the device has used since; None where nobody measures."""
        end = self._total()
        return None if self._begin is None or end is None else end - self._begin

    def of_all_ranks(self, collectives: Collectives) -> float | None:
        """Return the sum over the devices of all ranks; None where one of them is not measured.

        Every rank calls it.
        """
        if not self._on_cuda:
            return None
        used = self.joules()
        own = [used or 0.0, float(used is None)]
        total = collectives.all_reduce_sum(
            torch.tensor(own, dtype=torch.float64, device=collectives.device)
        )
        return None if total[1].item() else float(total[0])

    def _total(self) -> float | None:
        if self._handle is None:
            return None
        pynvml = _pynvml()
        try:
            # In millijoules. A device older than Volta, and a slice of one, has no such counter.
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000
        except pynvml.NVMLError:
            return None


def nvml_handle(device: torch.device) -> Any:
    """Return NVML's handle of a CUDA device; None where pynvml is not there or knows it not.

    The device is named by its UUID: CUDA_VISIBLE_DEVICES does not change the numbers of NVML.
    """
    try:
        pynvml = _pynvml()
    except ImportError:
        return None
    uuid = torch.cuda.get_device_properties(device).uuid
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None


def _pynvml() -> Any:
    return importlib.import_module("pynvml")


def added(before: float | None, now: float | None) -> float | None:
    """Return the energy of two starts of a run; None where one of them was not measured."""
    return None if before is None or now is None else before + now
