"""The command that makes the starter: what it does again, what it does not, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossmodal.recipes.starter import assemble, build
from crossmodal.recipes.starter.build import Step


def step(name: str, done: Path, code: str) -> Step:
    return Step(name, ("-c", code), done)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the command with steps of the test's own → what it printed, or the message it ended with."""
    assembled: list[str] = []

    def assemble_(parts, out, card, data) -> Path:
        assembled.extend(part.parent.name for part in parts)
        return out

    def call(steps: list[Step], *options: str) -> list[str]:
        monkeypatch.setattr(build, "steps", lambda *_, **__: iter(steps))
        monkeypatch.setattr(assemble, "assemble", assemble_)
        monkeypatch.setattr(sys, "argv", ["build", "--data", str(tmp_path), *options])
        assembled.clear()
        build.main()
        return list(assembled)

    return call


def test_a_step_is_done_once_and_the_parts_are_put_together(call, tmp_path, capfd) -> None:
    log = tmp_path / "log"
    write = f"open({str(log)!r}, 'a').write"
    result = tmp_path / "made" / "voices.npz"
    leave = f"import pathlib; p = pathlib.Path({str(result)!r}); p.parent.mkdir(); p.write_text('x'); {write}('b')"
    steps = [step("one", tmp_path / "a" / ".done", f"{write}('a')"), step("two", result, leave)]
    assert call(steps, "--list") == []
    assert capfd.readouterr().out.splitlines()[0].startswith("== one: ")
    assert not log.exists()
    assert len(call(steps)) == 5
    assert log.read_text() == "ab"
    assert result.read_text() == "x"
    call(steps)
    assert log.read_text() == "ab"
    (tmp_path / "a" / ".done").unlink()
    call(steps)
    assert log.read_text() == "aba"


def test_a_failed_step_ends_the_build_and_is_done_again(call, tmp_path) -> None:
    first, second = tmp_path / "a" / ".done", tmp_path / "b" / ".done"
    export = tmp_path / "a" / "export" / "bundle.yaml"  # an interrupted training leaves one, and exit code 130
    code = f"import pathlib, sys; p = pathlib.Path({str(export)!r}); p.parent.mkdir(parents=True, exist_ok=True)\n"
    steps = [step("train it", first, code + "p.touch(); sys.exit(130)"), step("next", second, "pass")]
    for _ in range(2):
        with pytest.raises(SystemExit, match="train it ended with exit code 130"):
            call(steps)
        assert export.exists()
        assert not first.exists()
        assert not second.exists()
    call([step("train it", first, "pass"), steps[1]])
    assert first.exists()
    assert second.exists()


def test_a_result_that_is_missing_is_not_made_up(call, tmp_path) -> None:
    result = tmp_path / "photos.npz"
    with pytest.raises(SystemExit, match=r"ended well but did not leave .*photos\.npz"):
        call([step("prepare", result, "pass")])
    assert not result.exists()


def test_trainings_are_done_when_they_ended_not_when_they_exported() -> None:
    for one in build.steps(Path("DIR"), Path("WORK"), spectrogram=True):
        if one.name.startswith("train "):
            assert one.done == Path(one.command[one.command.index("--out") + 1]) / ".done"


def test_ctrl_c_lets_the_step_end_in_good_order(tmp_path) -> None:
    ended = tmp_path / "ended"
    wait = (
        "import pathlib, sys, time\n"
        f"pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "try: time.sleep(60)\n"
        f"except KeyboardInterrupt: time.sleep(0.6); pathlib.Path({str(ended)!r}).touch(); sys.exit(130)"
    )
    code = (
        "from pathlib import Path\nfrom crossmodal.recipes.starter.build import Step, run\n"
        f"run(Step('wait', ('-c', {wait!r}), Path({str(tmp_path / '.done')!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert (process.returncode, message) == (
        1,
        "error: wait ended with exit code 130: the same command goes on from here\n",
    )
    assert ended.exists()
    assert not (tmp_path / ".done").exists()
