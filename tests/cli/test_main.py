"""The program around the verbs: help, suggestions, errors in one line, exit status. The verbs here are stand-ins."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sppnet import cli
from sppnet.cli import common
from sppnet.cli import options as cli_options
from sppnet.cli.common import failure_status, progress
from sppnet.cli.main import VERBS, build_parser, main
from sppnet.cli.options import DATA_FORMATS, fraction, name_list, pixels, positive_int, positive_number, seed
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.image_runs import FailedImage
from sppnet.storage.atomic import write_atomic
from sppnet.storage.names import printable_lines
from sppnet.threads import num_threads

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
            parser.add_argument("--threads", type=positive_int)
            if verb != "proposals":
                parser.add_argument("--device")
            parser.set_defaults(func=lambda namespace: actions[verb](namespace))

        made.add_parser = add_parser
        result: types.ModuleType = made
        return result

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
    for part in (*VERBS, "examples:", "exit status", "SPPNET_DEBUG", "once over the whole image"):
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
        (["xyz"], "no verb 'xyz'; there are: detect"),
        (["detect", "--ouptut", "x"], "unrecognized arguments: --ouptut"),
        (["detect", "--ouptut=x"], "did you mean --output?"),
        (["eval", "--protocol", "voc07"], "--protocol: got 'voc07'; did you mean 'voc07-11pt'? expected one of:"),
        (["detect", "--threshold", "7"], "--threshold: got '7', expected a number from 0 to 1"),
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "data", "-o", "m.safetensors"], "interrupted; the same command goes on from here"),
        (["detect", "a", "b", "--json", "f.json"], "interrupted; the same command goes on from here"),
        (
            ["detect", "a", "b", "--json", "f.json", "--fresh"],
            "interrupted; without --fresh the same command goes on from here",
        ),
        (["detect", "a", "b"], "interrupted"),
        (["scale", "detect", "a", "-o", "out"], "interrupted; the same command goes on from here"),
        (["features", "a", "-o", "v.safetensors"], "interrupted"),
        (["features", "a", "b", "-o", "v.safetensors"], "interrupted; the same command goes on from here"),
        (
            ["features", "a", "b", "-o", "v.safetensors", "--fresh"],
            "interrupted; without --fresh the same command goes on from here",
        ),
        (["features", "a", "b", "--estimate"], "interrupted"),
        (["studio", "data"], "stopped; all labels are saved"),
    ],
)
def test_who_interrupts_hears_whether_anything_is_lost(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"sppnet.cli.{arguments[0]}")
    monkeypatch.setattr(module, "run", raising(KeyboardInterrupt()))
    assert main(arguments) == 130
    assert capsys.readouterr().err == f"\nsppnet: {told}\n"


def test_help_is_a_verb_too(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["detect"], ["data", "check"]):
        assert main([*arguments, "--help"]) == 0
        expected = capsys.readouterr().out
        assert main(["help", *arguments]) == 0
        assert capsys.readouterr().out == expected
    assert main(["help", "xyz"]) == 2


def test_a_model_without_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["model", "info", "my.safetensors"], ["export", "my.safetensors", "-o", "my.onnx"]):
        assert main(command) == 2
        assert capsys.readouterr().err.endswith("unrecognized arguments: my.safetensors; name it with --model\n")


def test_exit_status_is_the_verbs(verbs: dict[str, Run]) -> None:
    for status in (0, 1, 2):
        verbs["detect"] = lambda namespace, status=status: status  # type: ignore[misc]
        assert main(["detect", "a.jpg"]) == status


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ModelFileError("m.safetensors: no such file"), 2, "sppnet: m.safetensors: no such file\n"),
        (ArgumentError("iou is 2"), 2, "sppnet: iou is 2\n"),
        (
            PermissionError(13, "Permission denied", "out.json"),
            2,
            "sppnet: out.json: Permission denied; name another file, or mend that\n",
        ),
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


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError(), "not enough memory; use smaller"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough memory; use smaller"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "save the file as UTF-8"),
        (RuntimeError("mat1 and mat2\nand more"), "unexpected RuntimeError: mat1 and mat2; this may be a fault"),
        (ValueError("x"), "unexpected ValueError: x; this may be a fault of sppnet: run it again with --debug"),
        (ZeroDivisionError(), "unexpected ZeroDivisionError"),
    ],
)
def test_what_nobody_expected_is_one_line_too(
    verbs: dict[str, Run], capsys: pytest.CaptureFixture[str], error: Exception, advice: str
) -> None:
    verbs["eval"] = raising(error)
    assert main(["eval"]) == 2
    text = capsys.readouterr().err
    assert advice in text
    assert text.count("\n") == 1
    assert main(["eval", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_usage_is_that_of_the_verb(verbs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["eval", "--nonsense"], ["eval", "--threshold", "x"]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("usage: sppnet eval ")
        assert "\nsppnet eval: " in error


def test_messages_of_the_library(verbs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    """Notes as they are, warnings with the program's name, all on stderr; afterwards the logger is as it was."""
    logger = logging.getLogger("sppnet")
    before = (logger.level, logger.propagate, list(logger.handlers))

    def talk(namespace: argparse.Namespace) -> int:
        below = logging.getLogger("sppnet.somewhere")
        below.debug("detail")
        below.info("note")
        below.warning("bad \x1b[2Jname")
        return 0

    verbs["eval"] = talk
    for options, expected in (
        ([], "note\nsppnet: bad \\x1b[2Jname\n"),
        (["-q"], "sppnet: bad \\x1b[2Jname\n"),
        (["-v"], "detail\nnote\nsppnet: bad \\x1b[2Jname\n"),
    ):
        assert main(["eval", *options]) == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", expected)
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_names_can_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable_lines("dög\tcat\n") == "dög\tcat\n"
    assert printable_lines("a\x1b]0;title\x07\r\x9bb") == "a\\x1b]0;title\\x07\\r\\x9bb"
    assert printable_lines("gpj.\u202eexe") == "gpj.\\u202eexe"
    assert main(["eval", "a", "--scales", "\x1b[31mred"]) == 2
    assert "\x1b" not in capsys.readouterr().err
    assert main(["proposals", "\x1b[31mred.jpg"]) == 1
    printed = capsys.readouterr()
    assert "\\x1b[31mred.jpg: no such file" in printed.err
    assert "\x1b" not in printed.out + printed.err


def test_formats_of_data_sets_are_those_that_can_be_read() -> None:
    from sppnet.datasets.loading import FORMATS
    from sppnet.datasets.writing import WRITTEN_FORMATS

    assert DATA_FORMATS == FORMATS
    assert cli_options.WRITTEN_FORMATS == WRITTEN_FORMATS


# --- one command line ------------------------------------------------------------------------------------------------


def leaves(parser: argparse.ArgumentParser, name: str = "") -> dict[str, dict[str, argparse.Action]]:
    """The options of every verb and action, by its name."""
    below = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    if not below:
        return {name.strip(): {s: action for action in parser._actions for s in action.option_strings or [action.dest]}}
    return {k: v for choices in below for n, p in choices.items() for k, v in leaves(p, f"{name} {n}").items()}


def test_an_option_has_one_name_and_one_meaning() -> None:
    """Looked up in the real parsers."""
    options = leaves(build_parser())
    assert len(options) == len(VERBS) + 4 + 3  # data has five actions, scale four
    computing = ("detect", "train", "eval", "features", "add-class", "classify-train")
    for verb, has in options.items():
        assert {"-q", "--quiet", "-v", "--verbose", "--debug"} <= set(has), verb
        assert "model" not in has, verb  # never positional
        assert not {"--short-side", "--sizes", "--boxes", "--dropout"} & (set(has) - {"--dropout"}), verb
        if "--output" in has:
            assert has["-o"] is has["--output"], verb
        if "--on-error" in has:
            assert has["--on-error"].default == "skip", verb
            assert (has["--strict"].dest, has["--strict"].const) == ("on_error", "fail"), verb
        if verb in computing:
            assert tuple(has["--device"].choices or ()) == ("cpu", "cuda"), verb
        if verb in (*computing, "proposals", "classify", "classify-eval"):
            assert {"--threads", "--on-error"} <= set(has), verb
        for option, action in has.items():
            assert action.help, (verb, option)
    for verb in ("train", "eval", "add-class", "proposals", "data check", "data convert", "data show"):
        assert tuple(options[verb]["--format"].choices or ()) == DATA_FORMATS
    assert "--dropout" not in options["train"]


def test_threads_are_set_while_the_verb_runs(verbs: dict[str, Run]) -> None:
    import torch

    before, ours = torch.get_num_threads(), num_threads()
    seen = []

    def note(namespace: argparse.Namespace) -> int:
        seen.append((torch.get_num_threads(), num_threads()))
        return 0

    verbs["eval"] = verbs["proposals"] = note
    assert main(["eval", "--threads", "3"]) == 0
    assert main(["eval"]) == 0
    assert main(["proposals", "--threads", "3"]) == 0  # does not compute with torch
    assert seen == [(3, 3), (before, ours), (before, 3)]
    assert (torch.get_num_threads(), num_threads()) == (before, ours)
    assert main(["eval", "--threads", "0"]) == 2


def test_windows_are_proposed_without_torch(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "a.png")
    code = "import sys; from sppnet.cli.main import main; sys.exit(main(sys.argv[1:]) + 9 * ('torch' in sys.modules))"
    command = [sys.executable, "-c", code, "proposals", str(tmp_path / "a.png"), "--mode", "grid", "--threads", "1"]
    subprocess.run(command, check=True, timeout=120)


def test_defaults_that_the_help_tells() -> None:
    """Those that stand in its text, because the parser itself doesn't know them."""
    from sppnet.detection.options import FeatureOptions, FinetuneOptions
    from sppnet.proposals.search import SelectiveSearch

    options = leaves(build_parser())
    scales = " ".join(map(str, FeatureOptions().short_sides_px))
    assert f"(default: {scales})" in str(options["train"]["--scales"].help)
    assert f"(default: {FinetuneOptions().epochs})" in str(options["train"]["--epochs"].help)
    assert f"usually {SelectiveSearch().max_windows})" in str(options["detect"]["--max-windows"].help)


def test_completion(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, mark in (("bash", "-F _shtab_sppnet sppnet"), ("zsh", "#compdef sppnet")):
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert mark in script
        assert "rename-class" in script
        assert "--val-split" in script


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


def test_python_m_sppnet_and_a_closed_stdout() -> None:
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'sppnet', '--version'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = subprocess.run([sys.executable, "-m", "sppnet", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("sppnet 0.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_results_that_can_not_be_printed() -> None:
    command = [sys.executable, "-m", "sppnet", "completion", "zsh"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "sppnet: No space left on device; check the disk and the names of the files\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_reader_that_leaves_early() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sppnet", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() in (0, 141)


# --- shared helpers --------------------------------------------------------------------------------------------------


def test_failed_images_are_named_and_give_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [FailedImage(Path(f"{name}.jpg"), "damaged") for name in "abcd"]
    assert failure_status(failed[:2], 4, "; mend them") == common.EXIT_FAILED == 1
    assert capsys.readouterr().out == "2 of 4 images failed: a.jpg, b.jpg; mend them\n"
    assert failure_status(failed, 4) == 1
    assert capsys.readouterr().out == "4 of 4 images failed: a.jpg, b.jpg, c.jpg, ...\n"
    assert failure_status([], 4) == common.EXIT_OK == 0
    assert capsys.readouterr().out == ""


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


def test_argument_types() -> None:
    assert positive_int("12") == 12
    assert fraction("0.25") == 0.25
    assert (seed("0"), seed(str(2**63 - 1))) == (0, 2**63 - 1)
    assert (pixels("32"), pixels("4000")) == (32, 4000)
    assert positive_number("1e-3") == 0.001
    assert name_list(" cat, dog") == ["cat", "dog"]
    for function, text in (
        (positive_int, "0"),
        (positive_int, "x"),
        (positive_int, "1.5"),
        (fraction, "1.1"),
        (fraction, "nan"),
        (fraction, ""),
        (seed, "-1"),
        (seed, str(2**63)),
        (pixels, "31"),
        (pixels, "30000"),
        (positive_number, "0"),
        (positive_number, "inf"),
        (name_list, " , "),
        (name_list, "cat,dog,cat"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            function(text)


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
