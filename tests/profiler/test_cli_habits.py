"""What the three commands have in common: help, pipes that are closed, how they start."""

import itertools
import subprocess
import sys

import pytest
import typer

import costmodels.cli
import profiler.cli
import tinytrain.cli
from profiler import cli_support

APPS = {"profile": profiler.cli.app, "costmodels": costmodels.cli.app, "tinytrain": tinytrain.cli.app}
#: Each takes longer to import than everything else that --help needs together.
HEAVY = {"torch", "pandas", "scipy", "sklearn", "matplotlib"}


def leaves(command, path):
    inner = getattr(command, "commands", None)
    if inner is None:
        return [(path, command)]
    return [leaf for name, each in inner.items() for leaf in leaves(each, f"{path} {name}")]


COMMANDS = [leaf for name, app in APPS.items() for leaf in leaves(typer.main.get_command(app), name)]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_option_that_takes_a_value_says_which_in_words(path, command):
    bare = [p.name for p in command.params if p.metavar is None and not getattr(p, "is_flag", False)]
    assert not bare


@pytest.mark.parametrize("name", [*APPS, "profile firmware"])
def test_the_list_of_verbs_is_not_cut_short_on_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    prog, *verbs = name.split()
    with pytest.raises(SystemExit):
        cli_support.run_app(APPS[prog], prog, [*verbs, "--help"])
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_an_example_is_one_line_that_can_be_copied(path, command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    prog, *verbs = path.split()
    with pytest.raises(SystemExit):
        cli_support.run_app(APPS[prog], prog, [*verbs, "--help"])
    lines = capsys.readouterr().out.splitlines()
    examples = [(line, after) for line, after in itertools.pairwise([*lines, ""]) if "Example: " in line]
    assert examples, "no example"
    for line, after in examples:
        assert line.startswith(f"  Example: {prog} ") and not after.strip(), "folded"


WITH_ARGUMENTS = [leaf for leaf in COMMANDS if any(p.param_type_name == "argument" for p in leaf[1].params)]


@pytest.mark.parametrize(("path", "command"), WITH_ARGUMENTS, ids=[path for path, _ in WITH_ARGUMENTS])
def test_help_names_arguments_and_no_types_of_the_code(path, command, capsys):
    prog, *verbs = path.split()
    with pytest.raises(SystemExit):
        cli_support.run_app(APPS[prog], prog, [*verbs, "--help"])
    explained = capsys.readouterr().out.partition("Arguments:\n")[2].partition("\n\n")[0]
    for argument in (p for p in command.params if p.param_type_name == "argument"):
        name = argument.metavar + ("" if argument.nargs == 1 else "...")
        assert any(line.startswith(f"  {name}  ") for line in explained.splitlines())
    assert "<" not in explained


@pytest.mark.parametrize("name", APPS)
def test_an_empty_argument_of_any_command_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path, _ in COMMANDS:
        prog, *verbs = path.split()
        if prog == name:
            with pytest.raises(SystemExit) as leaving:
                cli_support.run_app(APPS[name], name, [*verbs, "--out", ""])
            assert leaving.value.code == 2
            assert f"{name}: error: the argument after --out is empty; give a value" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, **options)


@pytest.mark.parametrize("name", APPS)
def test_help_imports_nothing_that_takes_seconds(name):
    package = "profiler" if name == "profile" else name
    code = (
        f"import sys; from {package}.cli import main; sys.argv = ['{name}', '--help']\n"
        "try: main()\n"
        f"finally: print(sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)"
    )
    assert run(code).stderr.split("\n")[0] == "[]"


WRITES = """
import sys, os, typer
from profiler import cli_support
app = typer.Typer()
@app.command()
def command():
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, {fd})
    {writes}
    cli_support.print_error("later", "still here") if {fd} == 1 else print("still here", flush=True)
cli_support.run_app(app, "x", [])
"""


@pytest.mark.parametrize(
    "writes",
    ["cli_support.print_table([{'a': 1}])", "cli_support.print_json([1]); sys.stdout.flush()", "typer.echo('line')"],
)
def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(writes):
    ended = run(WRITES.format(fd=1, writes=writes))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_into_a_closed_pipe_is_no_failure():
    code = "import os, sys; from profiler.cli import main; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
    ended = run(code + "sys.argv = ['profile', '--help']; main()")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_messages_that_nobody_reads_any_longer_do_not_end_a_measurement():
    ended = run(WRITES.format(fd=2, writes="cli_support.message('one'); cli_support.warn('two')"))
    assert (ended.returncode, ended.stdout) == (0, "still here\n")


def test_ctrl_c_is_one_sentence_even_while_the_commands_are_put_together(monkeypatch, capsys):
    def interrupted(app):
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.main, "get_command", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli_support.run_app(APPS["profile"], "profile", ["devices"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("profile: error: interrupted; ")
