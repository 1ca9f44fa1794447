"""Configs: unknown keys, types, round trips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from crossmodal.config import AudioConfig, from_dict, load_yaml, merge, save_yaml, to_dict
from crossmodal.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    width: int = 4
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)
    path: str | None = None


def test_round_trip_through_yaml(tmp_path):
    config = Outer(Inner(7, 1e-3), "y", "b", (3,), "p")
    save_yaml(to_dict(config), tmp_path / "c.yaml")
    assert from_dict(Outer, load_yaml(tmp_path / "c.yaml")) == config


def test_overlay_names_only_what_changes():
    assert from_dict(Outer, merge(to_dict(Outer()), {"inner": {"rate": 2}})) == Outer(Inner(4, 2.0))


def test_a_number_in_exponent_form_is_a_float():
    assert from_dict(AudioConfig, {"mel_floor": "1e-4"}).mel_floor == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "z"}, "unknown key 'nmae': did you mean 'name'?"),
        ({"inner": {"widht": 3}}, "did you mean 'width'?"),
        ({"inner": {"width": "wide"}}, "expected int, got 'wide'"),
        ({"inner": {"width": True}}, "expected int, got True"),
        ({"inner": 3}, "expected a mapping"),
        ({"kind": "c"}, "not one of a, b"),
        ({"sizes": 3}, "expected a list"),
        ({"sizes": ["a"]}, "expected int"),
        ({"path": 3}, "expected str"),
    ],
)
def test_wrong_values_name_the_key(values, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        from_dict(Outer, values)


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n"])
def test_broken_yaml_is_a_config_error(tmp_path, content):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_yaml(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path / "absent.yaml")
