"""Foreign state dicts by a map of layer names: a YAML file that says which of their tensors is which of ours.

::

    kind: voice-encoder-conv            # a name of crossmodal.models.TABLE
    config: {padding: 0}                # what differs from that network's default config
    names:                              # ours: theirs; the first pattern that fits counts
      convolutions.0.*: layer1.0.*      # * stands for the same text on both sides
    transpose: {convolutions.0.weight: [0, 1, 3, 2]}    # ours: order of their dimensions
    reshape: {"normalise.*": [-1]}      # ours: shape, after the transposition
    ignore: ["optimiser.*"]             # theirs: not needed
    keep: ["feature_mean"]              # ours: what the file has no tensor for
    credit: face-from-voice             # a name of crossmodal.parts.CREDITS
    notes: ["..."]                      # lines of the part's card

A ``*`` in the middle of a name stands for one level (no dot), at its end for everything that follows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossmodal.config import from_dict, load_yaml
from crossmodal.errors import BundleError, ConfigError
from crossmodal.models import build

MAPS = Path(__file__).parent / "maps"
"""Maps that come with the package."""


@dataclass(frozen=True)
class StateMap:
    """The content of a map file."""

    kind: str
    names: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    transpose: dict[str, list[int]] = field(default_factory=dict)
    reshape: dict[str, list[int]] = field(default_factory=dict)
    ignore: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    credit: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Match:
    """One of our tensors and where it comes from."""

    ours: str
    theirs: str
    value: Tensor


def packaged_maps() -> list[str]:
    """Names of the maps that come with the package."""
    return sorted(path.stem for path in MAPS.glob("*.yaml"))


def read_map(source: str | Path) -> StateMap:
    """A map file, or a packaged map by its name.

    Raises:
        ConfigError: there is no such map, or it says what no map can say.
    """
    path = Path(source)
    if not path.is_file():
        path = MAPS / f"{source}.yaml"
        if not path.is_file():
            remedy = f"give a YAML file or one of {', '.join(packaged_maps())}"
            raise ConfigError("there is no such map", source=source, remedy=remedy)
    found = from_dict(StateMap, load_yaml(path), source=path)
    for pattern, target in found.names.items():
        if not isinstance(target, str) or target.count("*") > pattern.count("*"):
            raise ConfigError(f"'{pattern}: {target}' has more * on the right", source=path)
    return found


def apply_map(state: Mapping[str, Tensor], rules: StateMap, source: str | Path) -> tuple[nn.Module, list[Match]]:
    """Build the network of ``rules`` and find its weights in ``state``.

    Returns:
        The network with the weights loaded, in eval mode, and what was taken from where.

    Raises:
        ConfigError: the map names a network or a setting that does not exist.
        BundleError: the first layer that does not fit, with near matches.
    """
    network = build(rules.kind, rules.config)
    expected = network.state_dict()
    used: set[str] = set()
    matches: list[Match] = []
    for ours, target in expected.items():
        theirs = _translate(ours, rules.names)
        if theirs is None or theirs not in state:
            if ours.endswith("num_batches_tracked") or _any(ours, rules.keep):  # a counter that older files lack
                continue
            raise _missing(ours, theirs, target, {k: v for k, v in state.items() if k not in used}, source)
        value = _rearranged(ours, theirs, state[theirs], rules, source)
        if value.shape != target.shape:
            raise _misshapen(ours, theirs, value, target, {k: v for k, v in state.items() if k not in used}, source)
        used.add(theirs)
        matches.append(Match(ours, theirs, value))
    left = [name for name in state if name not in used and not _any(name, rules.ignore)]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        problem = f"holds {_shown(left[0], state[left[0]])}{more}, which the map does not use"
        raise BundleError(problem, source=source, remedy="name it under names, or list it under ignore")
    network.load_state_dict({**expected, **{match.ours: match.value for match in matches}})
    return network.eval(), matches


def _rearranged(ours: str, theirs: str, value: Tensor, rules: StateMap, source: str | Path) -> Tensor:
    order = next((order for pattern, order in rules.transpose.items() if _any(ours, [pattern])), None)
    shape = next((shape for pattern, shape in rules.reshape.items() if _any(ours, [pattern])), None)
    try:
        if order is not None:
            value = value.permute(order)
        return (value if shape is None else value.reshape(shape)).contiguous()
    except (RuntimeError, TypeError) as error:
        problem = f"{_shown(theirs, value)} cannot be rearranged for '{ours}' ({' '.join(str(error).split())[:80]})"
        raise BundleError(problem, source=source, remedy="correct transpose or reshape of the map") from error


def _translate(ours: str, names: Mapping[str, str]) -> str | None:
    """What ``names`` calls our tensor in their file; ``None`` if no pattern fits."""
    for pattern, target in names.items():
        found = _regex(pattern).fullmatch(ours)
        if found:
            for text in found.groups():
                target = target.replace("*", text, 1)
            return target
    return None


def _regex(pattern: str) -> re.Pattern[str]:
    middle, star, last = pattern.rpartition("*")
    if not star:
        return re.compile(re.escape(pattern))
    end = "(.+)" if not last else "([^.]+)" + re.escape(last)
    return re.compile(re.escape(middle).replace(r"\*", "([^.]+)") + end)


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(_regex(pattern).fullmatch(name) for pattern in patterns)


def _shown(name: str, value: Tensor) -> str:
    return f"'{name}' {tuple(value.shape)}"


def _near(name: str, shape: torch.Size, state: Mapping[str, Tensor]) -> str:
    """Tensors that might be meant: of the same size first, then of a like name."""
    sized = [key for key, value in state.items() if value.numel() == shape.numel()]
    named = difflib.get_close_matches(name, list(state), n=3, cutoff=0.4)
    ranked = sorted(sized, key=lambda key: -difflib.SequenceMatcher(None, name, key).ratio())
    near = list(dict.fromkeys([*ranked[:3], *named]))[:4]
    return f"near: {', '.join(_shown(key, state[key]) for key in near)}" if near else "look at --list"


def _missing(
    ours: str, theirs: str | None, target: Tensor, state: Mapping[str, Tensor], source: str | Path
) -> BundleError:
    if theirs is None:
        problem = f"the map names nothing for {_shown(ours, target)}"
    else:
        problem = f"has no '{theirs}', which the map names for {_shown(ours, target)}"
    return BundleError(problem, source=source, remedy=_near(theirs or ours, target.shape, state))


def _misshapen(
    ours: str, theirs: str, value: Tensor, target: Tensor, state: Mapping[str, Tensor], source: str | Path
) -> BundleError:
    problem = f"{_shown(theirs, value)} does not fit {_shown(ours, target)}"
    if value.numel() == target.numel():
        return BundleError(problem, source=source, remedy="add a transpose or reshape to the map")
    others = {key: tensor for key, tensor in state.items() if key != theirs}
    return BundleError(problem, source=source, remedy=f"change config, or {_near(theirs, target.shape, others)}")
