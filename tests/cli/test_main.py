"""The program around the verbs: help, suggestions, errors in one line, exit status. The verbs here are stand-ins."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sppnet import cli
from sppnet.cli import common
from sppnet.cli.common import FileFailures, collect_images, folder_for_output, fraction, positive_int, progress
from sppnet.cli.main import VERBS, main
from sppnet.errors import ArgumentError, ImageError, ModelFileError
from sppnet.storage.atomic import write_atomic

Run = Callable[[argparse.Namespace], int]


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """What each stand-in does; change it in a test."""
    actions: dict[str, Run] = dict.fromkeys(VERBS, lambda namespace: 0)

    def module(verb: str) -> types.ModuleType:
        made: Any = types.ModuleType(f"sppnet.cli.{verb}")

        def add_parser(subparsers: Any) -> None:
            parser = subparsers.add_parser(verb, help=f"help on {verb}")
            parser.add_argument("files", nargs="*")
            parser.add_argument("--output")
            parser.add_argument("--protocol", choices=["voc07-11pt", "voc-area"])
            parser.add_argument("--threshold", type=fraction)
            parser.set_defaults(func=lambda namespace: actions[verb](namespace))

        made.add_parser = add_parser
        return made

    for verb in VERBS:
        name = verb.replace("-", "_")
        monkeypatch.setitem(sys.modules, f"sppnet.cli.{name}", module(verb))
        monkeypatch.setattr(cli, name, sys.modules[f"sppnet.cli.{name}"], raising=False)
    monkeypatch.delenv("SPPNET_DEBUG", raising=False)
    return actions


def raising(error: BaseException) -> Run:
    def run(namespace: argparse.Namespace) -> int:
        raise error

    return run


def test_help(verbs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for part in (*VERBS, "examples:", "exit status", "SPPNET_DEBUG", "once over the whole photo"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().out
    assert main(["eval", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: sppnet eval ")
    assert "--protocol" in text


def test_version(verbs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sppnet 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detekt", "a.jpg"], "no verb 'detekt'; did you mean 'detect'? There are: detect, train, eval, proposals"),
        (["evaluate"], "did you mean 'eval'?"),
        (["xyz"], "no verb 'xyz'; There are: detect"),
        (["detect", "--ouptut", "x"], "unrecognized arguments: --ouptut"),
        (["detect", "--ouptut=x"], "did you mean --output?"),
        (["eval", "--protocol", "voc07"], "--protocol: got 'voc07'; did you mean 'voc07-11pt'? expected one of:"),
        (["detect", "--threshold", "7"], "--threshold: expected a number from 0 to 1, got '7'"),
        (["--debug"], "required: VERB"),
    ],
)
def test_usage_errors(
    verbs: dict[str, Run], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_exit_status_is_the_verbs(verbs: dict[str, Run]) -> None:
    for status in (0, 1, 2):
        verbs["detect"] = lambda namespace, status=status: status  # type: ignore[misc]
        assert main(["detect", "a.jpg"]) == status


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ModelFileError("m.safetensors: no such file"), 2, "sppnet: m.safetensors: no such file\n"),
        (ArgumentError("iou is 2"), 2, "sppnet: iou is 2\n"),
        (PermissionError(13, "Permission denied", "out.json"), 2, "Permission denied: 'out.json'\n"),
        (KeyboardInterrupt(), 130, "sppnet: interrupted\n"),
    ],
)
def test_errors_are_one_line(
    verbs: dict[str, Run],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    message: str,
) -> None:
    verbs["eval"] = raising(error)
    assert main(["eval"]) == status
    captured = capsys.readouterr()
    assert captured.err.endswith(message)
    assert "Traceback" not in captured.err
    for arguments in (["--debug", "eval"], ["eval", "--debug"]):
        assert main(arguments) == status
        assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("SPPNET_DEBUG", "1")
    assert main(["eval"]) == status
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(verbs: dict[str, Run]) -> None:
    verbs["eval"] = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["eval"])


# --- the real program, in its own process ----------------------------------------------------------------------------


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from sppnet.cli.main import main; status = main(['--help']); "
        "heavy = {'torch', 'numba', 'numpy', 'PIL'} & set(sys.modules); sys.exit(str(heavy) if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert verb in done.stdout


def test_reader_that_leaves_early() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sppnet.cli.main", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() in (0, 141)


# --- shared helpers --------------------------------------------------------------------------------------------------


def test_one_bad_file_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    failures = FileFailures()
    done = []
    for path in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        with failures.catch(path):
            if path == "b.jpg":
                raise ImageError("b.jpg: damaged")
            if path == "c.jpg":
                raise OSError("disk full")
            done.append(path)
    assert done == ["a.jpg", "d.jpg"]
    assert failures.exit_status == common.EXIT_FAILED == 1
    assert failures.summary(4) == "2 of 4 failed: b.jpg, c.jpg"
    assert capsys.readouterr().err == "sppnet: b.jpg: damaged\nsppnet: c.jpg: disk full\n"
    fine = FileFailures()
    with fine.catch("a.jpg"):
        pass
    assert (fine.exit_status, fine.summary(1)) == (0, "")
    for error in (KeyboardInterrupt(), ZeroDivisionError(), BrokenPipeError()):
        with pytest.raises(type(error)), fine.catch("a.jpg"):
            raise error


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # not a terminal

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for quiet, expected in ((False, True), (True, False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert list(progress(range(3), "counting", quiet=quiet)) == [0, 1, 2]
        assert ("counting" in terminal.getvalue()) is expected


def test_collect_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no pictures in"):
        collect_images([tmp_path])
    (tmp_path / "a.jpg").touch()
    assert collect_images([tmp_path, "missing.jpg"]) == [tmp_path / "a.jpg", Path("missing.jpg")]


def test_argument_types() -> None:
    assert positive_int("12") == 12
    assert fraction("0.25") == 0.25
    for function, text in (
        (positive_int, "0"),
        (positive_int, "x"),
        (fraction, "1.1"),
        (fraction, "nan"),
        (fraction, ""),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            function(text)


def test_folder_for_output(tmp_path: Path) -> None:
    assert folder_for_output(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="can't be used as a folder"):
        folder_for_output(tmp_path / "file")


def half_written(target: Path) -> None:
    with write_atomic(target) as temporary:
        temporary.write_text("half of the sec")
        raise KeyboardInterrupt


def test_write_atomic(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.json"
    with write_atomic(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".json"
        temporary.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    with pytest.raises(KeyboardInterrupt):
        half_written(target)
    assert target.read_text() == "first"
    with pytest.raises(OSError), write_atomic(target):
        pass  # nothing written
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["result.json"]
