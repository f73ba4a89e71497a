"""Which TensorRT is here, told by what it can do and never by its version.

Two Python packages offer one API: ``tensorrt`` (10.x, 11.x) and ``tensorrt_rtx``.  The latter also builds for compute
capabilities that are named, with no GPU and no driver; whether a library can is asked of the library.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import Any

from onnx_layermerge.errors import DeviceError

__all__ = ["NAMES", "Library", "load"]

# The bindings alone are enough; the packages of the first names only forward to them.
_MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_INSTALL = {
    "tensorrt": "install TensorRT 10 or newer (pip install tensorrt fetches its libraries from NVIDIA's own index)",
    "tensorrt-rtx": "install tensorrt-rtx-cu13-bindings and tensorrt-rtx-cu13-libs with pip",
}
NAMES = tuple(_MODULES)


@dataclasses.dataclass(frozen=True)
class Library:
    """An imported TensorRT; ``name`` is the word of ``--backend``."""

    name: str
    module: Any
    version: str

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def network_flags(self) -> int:
        """Flags of a strongly typed network; 0 where every network is one and the word is gone."""
        flags = getattr(self.module, "NetworkDefinitionCreationFlag", None)
        flag = getattr(flags, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that it builds for without a GPU, such as ``8.6``; none for most libraries."""
        known = getattr(self.module, "ComputeCapability", None)
        names = () if known is None else known.__members__
        found = [(int(match[1]), int(match[2])) for match in (re.fullmatch(r"SM(\d+)(\d)", n) for n in names) if match]
        return tuple(f"{major}.{minor}" for major, minor in sorted(found))

    def capability(self, words: str) -> Any:
        """The library's own value for a compute capability in words.

        Raises:
            DeviceError: it does not build for this one.
        """
        if words not in self.capabilities:
            known = f"it builds for {', '.join(self.capabilities)}" if self.capabilities else "it needs the GPU itself"
            raise DeviceError(f"{self.title} cannot build for compute capability {words!r}; {known}.")
        return getattr(self.module.ComputeCapability, f"SM{words.replace('.', '')}")


def load(name: str) -> Library:
    """Import the library of a backend's name.

    Raises:
        DeviceError: it is not installed, not loadable, or older than 10.
    """
    missing: ImportError | None = None
    for module_name in _MODULES[name]:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            missing = missing or error
            continue
        except (ImportError, OSError) as error:
            # The bindings are there, but not the library of the same major version that they were made for.
            words = " ".join(str(error).split())
            raise DeviceError(f"{name} is installed but cannot be loaded ({words}); {_INSTALL[name]}.") from error
        return library_of(name, module)
    raise DeviceError(f"{name} is not installed; {_INSTALL[name]}.") from missing


def library_of(name: str, module: Any) -> Library:
    """Wrap an imported module.

    Raises:
        DeviceError: it lacks what every supported version has.
    """
    lacking = [word for word in ("OnnxParser", "Builder", "Runtime", "TensorFormat") if not hasattr(module, word)]
    version = str(getattr(module, "__version__", "of unknown version"))
    if lacking or not hasattr(getattr(module, "IExecutionContext", None), "execute_async_v3"):
        what = lacking[0] if lacking else "execute_async_v3"
        raise DeviceError(f"{name} {version} has no {what}; {_INSTALL[name]}.")
    return Library(name, module, version)
