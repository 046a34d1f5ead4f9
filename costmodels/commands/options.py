"""Arguments and options that verbs of ``costmodels`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[list[Path], typer.Argument(help="Folders of runs of one device.", show_default=False)]
Model = Annotated[Path, typer.Argument(help="Folder of a fitted model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")]
