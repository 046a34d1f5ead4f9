"""What cannot be written is said before anything is read or fitted."""

import errno
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from costmodels import cli, saved
from costmodels.commands.outputs import check_model
from profiler.cli_support import run_app
from profiler.errors import UserError
from profiler.outputs import check_file


@pytest.mark.parametrize("verb", ["evaluate --plot", "report --out"])
@pytest.mark.parametrize(("name", "why"), [("folder", "folder is a folder"), ("taken/file", "taken is a file")])
def test_a_file_that_cannot_be_written_is_said_first(tmp_path, capsys, verb, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").write_text("mine")
    verb, option = verb.split()
    with pytest.raises(SystemExit) as leaving:
        run_app(cli.app, "costmodels", [verb, "no.model", "no-run", option, str(tmp_path / name)])
    said = capsys.readouterr().err
    assert leaving.value.code == 2
    assert "cannot write the " in said and why in said and option in said
    assert (tmp_path / "taken").read_text() == "mine"


def test_files_and_folders_that_can_be_made_or_written_are_not_refused(tmp_path):
    check_model(tmp_path / "new" / "model")
    check_model(tmp_path)
    check_file(tmp_path / "new" / "page.html", "the report", makes_folders=True)
    check_file(Path("/dev/null"), "the plot")
    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "old").write_text("")
    # Whoever runs this may be root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    for path in (tmp_path / "old", tmp_path / "new" / "file"):
        with pytest.raises(UserError, match="may not be written to"):
            check_file(path, "the plot", "--plot", makes_folders=True)
    with pytest.raises(UserError, match="may not be written to"):
        check_model(tmp_path / "new")


def test_a_folder_that_is_not_there_is_said_where_nobody_makes_it(tmp_path):
    with pytest.raises(UserError, match="new is not there"):
        check_file(tmp_path / "new" / "plan.json", "the step plan")
    check_file(tmp_path / "plan.json", "the step plan")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--plan", "missing.json"], "cannot read the plan missing.json"), (["--input", "3x3"], "nothing to predict")],
)
def test_a_mistake_in_what_is_to_be_predicted_is_said_before_anything_is_loaded(arguments, says, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "costmodels.commands.network", None)  # which takes seconds
    with pytest.raises(SystemExit):
        run_app(cli.app, "costmodels", ["predict", "no.model", *arguments])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("fit", "old.model", "--out", "new.model"), ("evaluate", "other.model", "old.model")]
)
def test_a_model_where_a_run_is_expected_is_called_one(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.model").mkdir()
    (tmp_path / "old.model" / "model.json").write_text("{}")
    with pytest.raises(SystemExit):
        run_app(cli.app, "costmodels", arguments)
    assert "old.model is a cost model and no run" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_no_part_of_a_model_and_spares_the_old_one(tmp_path, monkeypatch):
    saved.write(tmp_path / "old.model", {"is": "old"}, {"a": np.zeros(3)})
    before = {path.name: path.read_bytes() for path in (tmp_path / "old.model").iterdir()}
    savez = np.savez

    def full(stream, **arrays):
        savez(stream, **arrays)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    for folder in (tmp_path / "old.model", tmp_path / "new" / "new.model"):
        with pytest.raises(UserError, match="the disk is full") as caught:
            saved.write(folder, {"is": "new"}, {"a": np.ones(3)})
        assert "make room" in caught.value.hint
    assert {path.name: path.read_bytes() for path in (tmp_path / "old.model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["old.model"]
