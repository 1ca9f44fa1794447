"""Reads weight files of other projects: PyTorch state dicts (tensors only), safetensors and Keras HDF5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossmodal.errors import BundleError, DependencyError, OutputError
from crossmodal.files import atomic_path

_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
FACENET_URLS = {
    "vggface2": f"{_RELEASE}/20180402-114759-vggface2.pt",
    "casia-webface": f"{_RELEASE}/20180408-102900-casia-webface.pt",
}
"""Where facenet-pytorch publishes its weights."""
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
"""Under what checkpoints keep the state dict, beside optimiser and history."""
_AGAIN = "get the file again, or check that it is the right one"


def download(url: str, folder: Path, *, remedy: str, timeout: float = 30.0) -> Path:
    """Fetch ``url`` into ``folder``, whole or not at all.

    Args:
        url: its last part names the file.
        folder: exists.
        remedy: the command that takes the file instead.
        timeout: seconds without an answer.

    Raises:
        BundleError: there is no network, or the transfer broke off.
    """
    import shutil
    import urllib.request
    from http.client import HTTPException

    target = folder / url.rsplit("/", 1)[1]
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, atomic_path(target) as temporary:
            with open(temporary, "wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
            expected, size = answer.headers.get("Content-Length"), temporary.stat().st_size
            if expected is not None and size != int(expected):
                raise HTTPException(f"{size} of {expected} bytes came")
    except (OSError, HTTPException, OutputError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:120]
        raise BundleError(
            f"cannot be downloaded ({reason})", source=url, remedy=f"get it where there is a network, then: {remedy}"
        ) from error
    return target


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or a PyTorch state dict (``weights_only=True``), by name.

    Raises:
        BundleError: the file is missing, damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError("does not exist", source=path, remedy="check the path")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        with torch.serialization.safe_globals(_scalars()):
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader raises classes of its own on foreign data
        reason = " ".join(str(error).split())[:120]
        if reason.startswith("Weights only load failed"):  # torch goes on about its own versions
            reason = "it is no PyTorch file, or holds more than tensors"
        raise BundleError(
            f"is no weight file that can be read safely ({reason})", source=path, remedy=_AGAIN
        ) from error
    if isinstance(state, dict):
        state = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BundleError("holds no state dict", source=path, remedy=_AGAIN)
    return {str(name): value for name, value in state.items()}


def _scalars() -> list[Any]:
    """What a logged NumPy number in a checkpoint needs; holds no code."""
    import numpy._core.multiarray as multiarray  # `numpy.core` in files written by NumPy 1

    types: list[Any] = [np.dtype, *(type(np.dtype(name)) for name in ("float64", "float32", "int64"))]
    scalar: Any = multiarray.scalar  # type: ignore[attr-defined]
    return [*types, scalar, (scalar, "numpy.core.multiarray.scalar")]


def fit_state(module: nn.Module, state: dict[str, Tensor], path: str | Path, *, ignore: tuple[str, ...] = ()) -> None:
    """Load ``state`` into ``module``; names starting with one of ``ignore`` are dropped.

    Raises:
        BundleError: a name is missing, unknown or of another shape; it says which.
    """
    expected = module.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(ignore)} if ignore else dict(state)
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):  # older files lack this counter
            state.setdefault(name, value)
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape]
    for names, problem in (
        (missing, "lacks"),
        (unknown, "holds the unknown"),
        (sorted(shapes), "holds another size of"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise BundleError(f"{problem} '{names[0]}'{more}", source=path, remedy="it is the file of another network")
    module.load_state_dict(state)


def read_keras_layers(path: str | Path) -> list[tuple[Tensor, Tensor]]:
    """Kernel and bias of each layer with weights of a Keras HDF5 weight file, in the order of the model.

    Kernels keep Keras' layout: (height, width, in, out) of a convolution, (in, out) of a dense layer.

    Raises:
        DependencyError: h5py is not installed.
        BundleError: the file is missing, damaged or laid out otherwise.
    """
    try:
        import h5py
    except ImportError as error:
        remedy = "pip install h5py, or convert the file to safetensors"
        raise DependencyError("Keras weight files need h5py", source=path, remedy=remedy) from error
    if not Path(path).is_file():
        raise BundleError("does not exist", source=path, remedy="check the path")
    layers = []
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            names = [_text(name) for name in root.attrs.get("layer_names", sorted(root, key=_natural))]
            for name in names:
                group = root[name]
                weights = [_text(weight) for weight in group.attrs.get("weight_names", _datasets(group))]
                if not weights:
                    continue  # pooling, padding, dropout
                if len(weights) != 2:
                    raise BundleError(
                        f"layer '{name}' holds {len(weights)} arrays, not a kernel and a bias", source=path
                    )
                arrays = [np.asarray(group[weight], dtype=np.float32) for weight in weights]
                kernel, bias = sorted(arrays, key=lambda array: -array.ndim)
                if kernel.ndim not in (2, 4) or bias.shape != kernel.shape[-1:]:
                    problem = f"layer '{name}' has shapes {kernel.shape} and {bias.shape}"
                    raise BundleError(problem, source=path, remedy=_AGAIN)
                layers.append((torch.from_numpy(kernel), torch.from_numpy(bias)))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"is no Keras weight file ({reason})", source=path, remedy=_AGAIN) from error
    return layers


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts conv2d_2 before conv2d_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _datasets(group: Any) -> list[str]:
    """Paths of all arrays below a group, where the file does not list them."""
    found: list[str] = []
    group.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return found
