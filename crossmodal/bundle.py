"""A bundle: one folder that makes both journeys work.

::

    bundle.yaml                 what is in it: name, versions, modules with their spaces, SHA-256 of every file
    README.md                   model card: data, licences, measured figures, limits
    <role>.yaml                 config of one network
    <role>.safetensors          its weights
    examples/, calibration.yaml optional extras, listed with their checksums too

A module may instead be *external*: a weight file that an installed package carries (Resemblyzer's speaker encoder, the
face-recognition network), named with its checksum so that it cannot change unnoticed. Nothing is ever unpickled without
``weights_only=True``.
"""

from __future__ import annotations

import importlib.resources
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossmodal import __version__
from crossmodal.config import from_dict, load_yaml, save_yaml, to_dict
from crossmodal.errors import BundleError, ConfigError, OutputError, SpaceMismatchError
from crossmodal.files import package_folder, sha256

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMAT = 1
ROLES: dict[str, str] = {
    "speaker-encoder": "speech → speaker embedding",
    "feature-head": "speaker embedding → face feature",
    "voice-encoder": "spectrogram → face feature",
    "face-features": "photo → face feature",
    "face-decoder": "face feature → face image",
    "face-encoder": "face → speaker embedding",
    "acoustic": "text + speaker embedding → log-mel",
    "vocoder": "log-mel → waveform",
    "tts": "text + speaker embedding → waveform (in place of acoustic and vocoder)",
}
# (role, its output or input) must name the same space as (role, its input or output)
_EDGES: tuple[tuple[str, str, str, str], ...] = (
    ("speaker-encoder", "output_space", "feature-head", "input_space"),
    ("speaker-encoder", "output_space", "face-encoder", "output_space"),
    ("speaker-encoder", "output_space", "acoustic", "input_space"),
    ("speaker-encoder", "output_space", "tts", "input_space"),
    ("face-encoder", "output_space", "tts", "input_space"),
    ("face-encoder", "output_space", "acoustic", "input_space"),
    ("feature-head", "output_space", "face-decoder", "input_space"),
    ("voice-encoder", "output_space", "face-decoder", "input_space"),
    ("face-features", "output_space", "face-decoder", "input_space"),
    ("face-features", "output_space", "face-encoder", "input_space"),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class ModuleEntry:
    """One network of a bundle, as ``bundle.yaml`` lists it."""

    kind: str
    """Name in :data:`crossmodal.models.TABLE`."""
    config: str = ""
    """File with its config; empty for an external module with the default config."""
    weights: str = ""
    """Safetensors file; empty for an external module."""
    package: str = ""
    """External: the installed package that carries the weights."""
    path: str = ""
    """External: the weight file inside the package."""
    sha256: str = ""
    """External: its checksum."""
    input_space: str = ""
    output_space: str = ""
    parameters: int = 0


@dataclass(frozen=True)
class FileEntry:
    """Checksum and size in bytes of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class BundleInfo:
    """The content of ``bundle.yaml``."""

    format: int
    name: str
    version: str = "0"
    crossmodal: str = ""
    """Version of the library that wrote it."""
    licence: str = ""
    modules: dict[str, ModuleEntry] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)


class Bundle:
    """An opened bundle. Opening checks the list, the sizes and the spaces; loading a module checks its SHA-256."""

    def __init__(self, folder: Path, info: BundleInfo) -> None:
        self.folder, self.info = folder, info

    @classmethod
    def open(cls, source: str | Path | None = None, *, local_files_only: bool = False) -> Bundle:
        """Open the starter (``None`` or ``"starter"``), a folder, or a Hugging Face Hub id (``user/repo[@revision]``).

        Raises:
            BundleError: there is no such bundle, or a file is missing, truncated, or listed under an unsafe name.
            SpaceMismatchError: two modules that meet name different spaces.
        """
        if source is None or str(source) == "starter":
            folder = starter_folder()
        elif Path(source).is_dir():
            folder = Path(source)
        elif isinstance(source, str) and _HUB_ID.fullmatch(source) and not Path(source).exists():
            folder = _from_hub(source, local_files_only=local_files_only)
        else:
            raise BundleError(
                "no such bundle",
                source=source,
                remedy="give a folder with a bundle.yaml, 'starter', or a hub id user/repo",
            )
        listing = folder / "bundle.yaml"
        if not listing.is_file():
            raise BundleError("has no bundle.yaml", source=folder, remedy="is this the folder of a bundle?")
        try:
            content = load_yaml(listing)
            if content.get("format") != FORMAT:
                raise BundleError(
                    f"is of format {content.get('format')!r}, this version reads {FORMAT}",
                    source=listing,
                    remedy="update crossmodal",
                )
            info = from_dict(BundleInfo, content, source=listing)
        except ConfigError as error:
            raise BundleError(f"is damaged ({error})", source=listing, remedy="get the bundle again") from error
        bundle = cls(folder, info)
        bundle._check_listing()
        return bundle

    def __contains__(self, role: str) -> bool:
        return role in self.info.modules

    def _check_listing(self) -> None:
        """Everything that can be told without reading the weights."""
        for name, entry in self.info.files.items():
            path = self._inside(name)
            if not path.is_file():
                raise BundleError("is missing", source=path, remedy="get the bundle again")
            if (size := path.stat().st_size) != entry.bytes:
                raise BundleError(
                    f"has {size} bytes, {entry.bytes} expected: truncated or changed",
                    source=path,
                    remedy="get it again",
                )
        for role, module in self.info.modules.items():
            if role not in ROLES:
                raise BundleError(f"unknown role '{role}'", source=self.folder, remedy=f"known: {', '.join(ROLES)}")
            for name in filter(None, (module.config, module.weights)):
                if name not in self.info.files:
                    raise BundleError(f"{role} names {name}, which has no checksum", source=self.folder / "bundle.yaml")
            if not module.weights and not module.package:
                raise BundleError(f"{role} has neither weights nor a package", source=self.folder / "bundle.yaml")
        check_spaces(self.info.modules, source=self.folder / "bundle.yaml")

    def _inside(self, name: str) -> Path:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise BundleError(f"unsafe file name '{name}'", source=self.folder / "bundle.yaml")
        return self.folder / path

    def file(self, name: str) -> Path:
        """Path of a listed file, its checksum verified.

        Raises:
            BundleError: the file is not listed, missing, or not what was listed.
        """
        if name not in self.info.files:
            raise BundleError(f"has no file '{name}'", source=self.folder)
        path = self._inside(name)
        if not path.is_file():
            raise BundleError("is missing", source=path, remedy="get the bundle again")
        if sha256(path) != self.info.files[name].sha256:
            raise BundleError("does not match its checksum: changed or damaged", source=path, remedy="get it again")
        return path

    def verify(self) -> list[str]:
        """Check every file and every external weight; return what was checked.

        Raises:
            BundleError: the first thing that is wrong, naming the file.
        """
        self._check_listing()
        checked = [str(self.file(name)) for name in self.info.files]
        for module in self.info.modules.values():
            if module.package:
                checked.append(str(_external_file(module)))
        return checked

    def load(self, role: str, device: str | torch.device = "cpu") -> nn.Module:
        """The network of ``role``, in eval mode on ``device``, its files verified.

        Raises:
            BundleError: the bundle has no such module, or its files are damaged or do not fit its config.
        """
        from crossmodal.models import classes
        from crossmodal.models.unfilled import Unfilled

        if role not in self.info.modules:
            raise BundleError(
                f"bundle '{self.info.name}' has no {role} ({ROLES.get(role, 'unknown role')})",
                source=self.folder,
                remedy="use a bundle that has one (crossmodal models compose puts one together)",
            )
        entry = self.info.modules[role]
        try:
            network, config_class = classes(entry.kind)
            values = load_yaml(self.file(entry.config)) if entry.config else {}
            config: Any = from_dict(config_class, values, source=self._inside(entry.config) if entry.config else role)
        except ConfigError as error:
            raise BundleError(f"{role} cannot be built ({error})", source=self.folder) from error
        module: nn.Module
        if entry.package:
            _external_file(entry)
            module = network.from_package()  # type: ignore[attr-defined]
        else:
            # with its own form of weights, a network may hold parameters that the form leaves out
            with nullcontext() if hasattr(network, "load_export") else Unfilled():
                module = network(config)
            _load_weights(module, self.file(entry.weights))
        for attribute in ("input_space", "output_space"):
            stated, real = getattr(entry, attribute), space_of(module, attribute)
            if stated and real and stated != real:
                raise SpaceMismatchError(
                    f"{role} is listed with {attribute} {stated}, its config says {real}", source=self.folder
                )
        return module.to(device).eval()

    def calibration(self) -> dict[str, Any]:
        """What cosines mean in this bundle's embedding (see :mod:`crossmodal.evaluation.calibration`); may be empty."""
        return load_yaml(self.file("calibration.yaml")) if "calibration.yaml" in self.info.files else {}

    def protocol(self) -> dict[str, Any]:
        """Whom it was trained on (:func:`crossmodal.data.splits.protocol_record`); empty if it does not say."""
        return load_yaml(self.file("protocol.yaml")) if "protocol.yaml" in self.info.files else {}

    def export(self, folder: str | Path) -> Path:
        """Copy the bundle to ``folder`` (which must not exist), verified on the way."""
        target = Path(folder)
        if target.exists():
            raise OutputError("exists already", source=target, remedy="name a new folder")
        self.verify()
        with _writing(target), _scratch_beside(target) as scratch:
            for name in ["bundle.yaml", *self.info.files]:
                copy = scratch / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, copy)
            scratch.rename(target)
        return target


class BundleWriter:
    """Collect modules and files, then :meth:`close` to put the finished bundle in ``folder``, in place of an older one.

    Nothing appears in ``folder`` before :meth:`close`; an error on the way leaves the old content untouched.

    Raises:
        OutputError: ``folder`` is a file, holds anything but a bundle, or cannot be written.
    """

    def __init__(self, folder: str | Path, *, name: str, version: str = "0.1.0", licence: str = "") -> None:
        self.folder = Path(folder)
        _check_replaceable(self.folder)
        with _writing(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix=".bundle-", dir=self.folder.parent))
        self._name, self._version, self._licence = name, version, licence
        self._modules: dict[str, ModuleEntry] = {}

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def add(self, role: str, kind: str, module: nn.Module, *, dtype: Literal["float16", "float32"] = "float16") -> None:
        """Write config and weights of ``module``.

        A network that defines ``export_state`` decides the stored form itself; otherwise large float tensors
        (1,024 values and more) are stored as ``dtype``.
        """
        import torch
        from safetensors.torch import save_file

        if role not in ROLES:
            raise BundleError(f"unknown role '{role}'", source=self.folder, remedy=f"known: {', '.join(ROLES)}")
        if hasattr(module, "export_state"):
            tensors: dict[str, torch.Tensor] = module.export_state()  # type: ignore[operator]
        else:
            small = getattr(torch, dtype)
            tensors = {
                name: value.to(small) if value.dtype == torch.float32 and value.numel() >= 1024 else value
                for name, value in module.state_dict().items()
            }
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        with _writing(self.folder):
            # One entry of metadata: of several, the order in the file is left to chance, and the checksum with it.
            save_file(tensors, self._scratch / f"{role}.safetensors", metadata={"kind": kind})
            save_yaml(to_dict(module.config), self._scratch / f"{role}.yaml")
        self._modules[role] = ModuleEntry(
            kind=kind,
            config=f"{role}.yaml",
            weights=f"{role}.safetensors",
            input_space=space_of(module, "input_space"),
            output_space=space_of(module, "output_space"),
            parameters=sum(p.numel() for p in module.parameters()),
        )

    def add_external(self, role: str, kind: str, package: str, path: str) -> None:
        """List weights that the installed ``package`` carries (their class must offer ``from_package``)."""
        from crossmodal.models import classes

        module = classes(kind)[0].from_package()  # type: ignore[attr-defined]
        entry = ModuleEntry(
            kind=kind,
            package=package,
            path=path,
            input_space=space_of(module, "input_space"),
            output_space=space_of(module, "output_space"),
            parameters=sum(p.numel() for p in module.parameters()),
        )
        digest = sha256(_external_file(entry, check=False))
        self._modules[role] = ModuleEntry(**{**to_dict(entry), "sha256": digest})

    def copy_module(self, bundle: Bundle, role: str) -> None:
        """Take a module over from another bundle, byte for byte."""
        entry = bundle.info.modules[role]
        for name in filter(None, (entry.config, entry.weights)):
            self.add_file(bundle.file(name), name)
        self._modules[role] = entry
        if record := bundle.protocol():
            self.protocol(record)

    def add_file(self, source: str | Path, name: str) -> None:
        """Copy a further file (an example, a picture of the card) into the bundle.

        Raises:
            BundleError: there is no such file. OutputError: it cannot be written.
        """
        if not Path(source).is_file():
            raise BundleError("does not exist", source=source, remedy="check the path")
        target = self._scratch / name
        with _writing(self.folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def card(self, markdown: str) -> None:
        """The model card: data, licences, measured figures, limits."""
        with _writing(self.folder):
            (self._scratch / "README.md").write_text(markdown, encoding="utf-8")

    def calibration(self, values: Mapping[str, Any]) -> None:
        """What cosines mean (see :mod:`crossmodal.evaluation.calibration`)."""
        save_yaml(values, self._scratch / "calibration.yaml")

    def protocol(self, record: Mapping[str, Any]) -> None:
        """Say whom the networks were trained on (:func:`crossmodal.data.splits.protocol_record`).

        Records of one protocol are joined. Networks of different protocols leave no list that they may be tested on:
        the bundle then names them all, and no test list has its fingerprint.
        """
        place = self._scratch / "protocol.yaml"
        both = [load_yaml(place), record] if place.is_file() else [record]
        joined = {key: "+".join(dict.fromkeys(str(r[key]) for r in both)) for key in ("protocol", "fingerprint")}
        save_yaml({**joined, "trained_on": sorted({who for r in both for who in r["trained_on"]})}, place)

    def close(self) -> Path:
        """Check the spaces, write ``bundle.yaml`` and move the bundle into place.

        Raises:
            SpaceMismatchError: two modules that meet name different spaces.
            OutputError: the folder cannot be written.
        """
        try:
            self._close()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return self.folder

    def _close(self) -> None:
        with _writing(self.folder):
            check_spaces(self._modules, source=self.folder)
            files = sorted(p for p in self._scratch.rglob("*") if p.is_file())
            save_yaml(
                {
                    "format": FORMAT,
                    "name": self._name,
                    "version": self._version,
                    "crossmodal": __version__,
                    "licence": self._licence,
                    "modules": {
                        role: {k: v for k, v in to_dict(entry).items() if v} for role, entry in self._modules.items()
                    },
                    "files": {
                        p.relative_to(self._scratch).as_posix(): {"sha256": sha256(p), "bytes": p.stat().st_size}
                        for p in files
                    },
                },
                self._scratch / "bundle.yaml",
            )
            self._scratch.chmod(0o755)  # a temporary folder is private, a bundle is not
            for path in files:
                path.chmod(0o644)
            old = None
            if self.folder.exists():
                old = Path(tempfile.mkdtemp(prefix=".old-", dir=self.folder.parent)) / "b"
                self.folder.rename(old)
            self._scratch.rename(self.folder)
            if old is not None:
                shutil.rmtree(old.parent)


def _check_replaceable(folder: Path) -> None:
    """A bundle may take the place of an empty folder or of an older bundle, of nothing else.

    Raises:
        OutputError: ``folder`` is a file, or holds a file that is no part of a bundle.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file", source=folder, remedy="name a new folder")
    listing = folder / "bundle.yaml"
    if listing.is_file():
        listed = load_yaml(listing).get("files")
        parts = {"bundle.yaml", *(listed if isinstance(listed, Mapping) else ())}
        files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        lost = next((name for name in files if name not in parts), None)
    else:
        lost = next((path.name for path in folder.iterdir()), None) if folder.exists() else None
    if lost is not None:
        raise OutputError(f"holds {lost}, which would be lost", source=folder, remedy="name a new folder")


@contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    """A folder on the same disk as ``target`` that goes with what is in it, unless it is moved."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-") as scratch:
        yield Path(scratch) / "b"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Name ``folder`` in the error when something of it cannot be written, not the temporary file."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", source=folder) from error
    except OutputError as error:
        raise OutputError(error.problem, source=folder) from error
    except SafetensorError as error:
        reason = re.sub(r" \(os error \d+\)$", "", str(error).rpartition("I/O error: ")[2])
        raise OutputError(f"cannot be written ({reason})", source=folder) from error


def starter_folder() -> Path:
    """Where the starter bundle is installed."""
    return Path(str(importlib.resources.files("crossmodal.starter"))) / "bundle"


def list_bundles() -> list[str]:
    """Names of the bundles that open without a network: the starter and the hub ids in the local cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    found = ["starter"] if (starter_folder() / "bundle.yaml").is_file() else []
    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        repos = frozenset()
    for repo in sorted(repos, key=lambda r: r.repo_id):
        if any((revision.snapshot_path / "bundle.yaml").is_file() for revision in repo.revisions):
            found.append(repo.repo_id)
    return found


def space_of(module: nn.Module, attribute: str) -> str:
    """The embedding space a network reads (``input_space``) or writes (``output_space``); empty if it has none."""
    return str(getattr(getattr(module, "config", None), attribute, "") or "")


def check_spaces(modules: Mapping[str, ModuleEntry], *, source: object) -> None:
    """Modules that hand an embedding to each other must name the same space.

    Raises:
        SpaceMismatchError: naming both modules and both spaces.
    """
    for one, one_side, other, other_side in _EDGES:
        if one in modules and other in modules:
            a, b = getattr(modules[one], one_side), getattr(modules[other], other_side)
            if a and b and a != b:
                raise SpaceMismatchError(
                    f"{one} works in '{a}' but {other} expects '{b}'", source=source, remedy="use modules of one space"
                )


def _load_weights(module: nn.Module, path: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        if hasattr(module, "load_export"):
            module.load_export(tensors)  # type: ignore[operator]
        else:
            module.load_state_dict({k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()})
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"does not fit its config ({reason})", source=path, remedy="get the bundle again") from error


def _external_file(entry: ModuleEntry, *, check: bool = True) -> Path:
    path = package_folder(entry.package) / entry.path
    if not path.is_file():
        raise BundleError("is missing", source=path, remedy=f"pip install --force-reinstall {entry.package}")
    if check and sha256(path) != entry.sha256:
        raise BundleError(
            "does not match the checksum in the bundle",
            source=path,
            remedy=f"pip install --force-reinstall {entry.package}",
        )
    return path


def _from_hub(source: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, revision = source.partition("@")
    patterns = ["bundle.yaml", "*.yaml", "*.safetensors", "*.md", "examples/*", "onnx/*"]
    try:
        folder = snapshot_download(
            repo, revision=revision or None, allow_patterns=patterns, local_files_only=local_files_only
        )
    except LocalEntryNotFoundError as error:
        raise BundleError(
            "cannot be had from the hub: it is not in the local cache and the hub was not reached",
            source=source,
            remedy="check the name and the network, or give a folder",
        ) from error
    except (HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BundleError(
            f"cannot be had from the hub ({reason})",
            source=source,
            remedy="check the name and the network, or give a folder",
        ) from error
    return Path(folder)
