"""Configuration: plain dataclasses, YAML overlays that name only what changes, and the one shared ``AudioConfig``.

An unknown key is an error that suggests the nearest known one. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from crossmodal.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class AudioConfig:
    """The one audio setting of the library; every front-end reads its numbers from here."""

    sample_rate: int = 16_000
    """Samples per second of every waveform inside the library."""

    # Acoustic model and vocoder (shared log-mel).
    n_fft: int = 1024
    """FFT points of the speech-synthesis mel."""
    win_length: int = 800
    """Hann window of the speech-synthesis mel, in samples (50 ms)."""
    hop_length: int = 200
    """Hop of the speech-synthesis mel, in samples (12.5 ms)."""
    n_mels: int = 100
    """Mel bands of the speech-synthesis mel (Slaney scale and area normalisation, 0 Hz to Nyquist)."""
    mel_floor: float = 1e-5
    """Magnitude floor before the natural logarithm."""

    # GE2E speaker encoder (Resemblyzer's setting): power mel, no logarithm.
    speaker_n_mels: int = 40
    speaker_win_ms: float = 25.0
    speaker_hop_ms: float = 10.0
    speaker_partial_frames: int = 160
    """Frames of one partial utterance (1.6 s)."""
    speaker_target_dbfs: float = -30.0
    """Volume to which quieter speech is raised before embedding."""

    # Speech2Face complex spectrogram.
    s2f_n_fft: int = 512
    s2f_win_length: int = 400
    """25 ms Hann window."""
    s2f_hop_length: int = 160
    """10 ms hop."""
    s2f_seconds: float = 6.0
    """Duration the voice encoder is trained on: 598 frames; shorter clips are repeated."""
    s2f_power: float = 0.3
    """Power-law compression: sgn(S)·|S|^power on real and imaginary part."""


def from_dict(cls: type[T], values: Mapping[str, Any] | None, *, source: object = "config") -> T:
    """Build dataclass ``cls`` from ``values``, nested dataclasses included.

    Raises:
        ConfigError: a key is unknown (the nearest known key is suggested) or a value has the wrong type.
    """
    values = dict(values or {})
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kwargs: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(fields))}"
            raise ConfigError(f"unknown key '{key}'", source=source, remedy=hint)
        kwargs[key] = _coerce(hints[key], value, f"{source}.{key}")
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise ConfigError(str(error), source=source) from error


def _coerce(hint: Any, value: Any, source: str) -> Any:
    """Check ``value`` against ``hint`` and convert what YAML cannot say (tuples, paths, floats like 1e-3)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        problem: ConfigError | None = None
        for option in (a for a in args if a is not type(None)):
            try:
                return _coerce(option, value, source)
            except ConfigError as error:
                problem = error
        raise problem or ConfigError(f"{value!r} is not allowed", source=source)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"expected a mapping, got {value!r}", source=source)
        return from_dict(hint, value, source=source)
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{value!r} is not one of {', '.join(map(str, args))}", source=source)
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"expected a list, got {value!r}", source=source)
        item = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(item) != len(value):
            raise ConfigError(f"expected {len(item)} values, got {len(value)}", source=source)
        return tuple(_coerce(h, v, source) for h, v in zip(item, value, strict=True))
    if origin is list:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"expected a list, got {value!r}", source=source)
        return [_coerce(args[0], v, source) for v in value]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"expected a mapping, got {value!r}", source=source)
        return {k: _coerce(args[1], v, f"{source}.{k}") for k, v in value.items()}
    if hint is float and (isinstance(value, int | str) and not isinstance(value, bool)):
        try:  # YAML 1.1 reads 1e-3 as a string
            return float(value)
        except ValueError:
            pass
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is bool or (isinstance(value, bool) and hint in (int, float)):
        if hint is not bool or not isinstance(value, bool):
            raise ConfigError(f"expected {hint.__name__}, got {value!r}", source=source)
        return value
    if isinstance(hint, type) and not isinstance(value, hint):
        raise ConfigError(f"expected {hint.__name__}, got {value!r}", source=source)
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The reverse of :func:`from_dict`: plain lists, dicts, strings and numbers, ready for YAML."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay nested mappings: what ``overlay`` names replaces what ``base`` says, the rest stays."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping (safe loader).

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping.
    """
    import yaml

    try:
        # the safe loader in C, where PyYAML was built with it, is ten times as fast
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot be read", source=path, remedy=str(getattr(error, "strerror", error))) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"is not valid YAML ({' '.join(str(error).split())})", source=path) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("should hold a mapping", source=path)
    return content


def save_yaml(content: Mapping[str, Any], path: str | Path) -> None:
    """Write ``content`` as YAML, whole or not at all."""
    import yaml

    from crossmodal.files import atomic_write

    atomic_write(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120).encode())
