"""Which device a run uses, decided without importing torch."""

from pathlib import Path
from typing import Literal

#: Files that exist where an NVIDIA driver is loaded.
_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl")


def device_is_cuda(device: Literal["auto", "cuda", "cpu"]) -> bool:
    """Return whether models run on a GPU; `auto` means "where a driver is loaded"."""
    if device == "auto":
        return any(Path(file).exists() for file in _DRIVER_FILES)
    return device == "cuda"
