"""Habits that all three commands share: errors as one sentence, tables, JSON, progress with time left.

Messages and progress go to stderr, results to stdout, so that ``--json`` can be piped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from profiler.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

#: Width of tables where stdout is a file or a pipe: nothing is cut short there.
PIPE_WIDTH = 400
#: Seconds between two plain progress lines where stderr is no terminal.
PLAIN_PROGRESS_S = 5.0
#: Items that :func:`watched` lets by between two words about it.
_WATCHED_EVERY = 500
#: Environment variable: number of a file descriptor that progress goes to instead, as lines of JSON. A display of
#: several commands sets it for those that it starts.
PROGRESS_DESCRIPTOR = "PROFILE_PROGRESS_DESCRIPTOR"
# Taken out: what this command starts does not have the descriptor.
_display = int(os.environ.pop(PROGRESS_DESCRIPTOR)) if PROGRESS_DESCRIPTOR in os.environ else None


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream is not None and stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


console_out = _console(stderr=False)
console_err = _console(stderr=True)


class DefaultVerbGroup(TyperGroup):
    """A group that takes ``profile --port ...`` as ``profile measure --port ...``."""

    default_verb = "measure"
    #: Options of the group itself.
    own_options = frozenset({"--help", "-h", "--version", "--install-completion", "--show-completion"})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in self.own_options:
            args = [self.default_verb, *args]
        return super().parse_args(ctx, args)


def message(text: str) -> None:
    """One line for people, on stderr."""
    console_err.print(Text(text), soft_wrap=True)


def warn(text: str) -> None:
    """A warning for people, on stderr."""
    console_err.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def _show_warning(text: Any, category: type[Warning], *rest: Any) -> None:
    """Our own warnings (a damaged run, say) are for people and need no file and line."""
    if category.__module__.partition(".")[0] in ("profiler", "costmodels", "tinytrain"):
        warn(str(text))
    else:
        _python_show_warning(text, category, *rest)


_python_show_warning = warnings.showwarning


def tell(**facts: Any) -> None:
    """Tell the display that started this command, where one did; see ``PROGRESS_DESCRIPTOR``."""
    if _display is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(_display, json.dumps(json_ready(facts)).encode() + b"\n")


def print_error(prog: str, text: str) -> None:
    console_err.print(Text(f"{prog}: error: {text}", style="red"), soft_wrap=True)


def run_app(app: typer.Typer, prog: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a typer app as a console script and leave with its exit status.

    Whatever the user can put right ends in ``PROG: error: <sentence>`` on stderr and status 1 (it failed) or 2 (bad
    usage). Other exceptions are our mistakes and keep their traceback.

    Args:
        app: The app; commands may return an exit status.
        prog: Name of the command.
        arguments: Instead of the process's own.
    """
    status: Any = 1
    warnings.showwarning = _show_warning
    command = typer.main.get_command(app)
    try:
        status = command.main(
            args=list(arguments) if arguments is not None else None, prog_name=prog, standalone_mode=False
        )
        sys.stdout.flush()
        if status == 130:  # typer's answer to Ctrl-C where the command did not handle it
            print_error(prog, "interrupted; start it again, nothing on disk is harmed")
            status = 1
    except UserError as error:
        print_error(prog, str(error))
        status = error.exit_status
    except KeyboardInterrupt:
        print_error(prog, "interrupted; start it again, nothing on disk is harmed")
    except BrokenPipeError:
        # The reader of a pipe (`head`) has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print_error(
            prog, f"{error.strerror or error}{where}; check the path, its permissions and the space on the disk"
        )
    except Exception as error:
        # typer's own click carries no public name for "bad usage"; what it shares is format_message and exit_code.
        if not hasattr(error, "format_message"):
            raise
        text = error.format_message().rstrip(".")
        print_error(prog, f"{text}; `{_help_command(prog, error)}` shows what there is")
        status = getattr(error, "exit_code", 2)
    sys.exit(status if isinstance(status, int) and not isinstance(status, bool) else 0)


def _help_command(prog: str, error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else prog} --help"


def parse_input_shape(text: str) -> tuple[int, int, int]:
    """``3x64x64`` as (channels, height, width).

    Raises:
        UserError: anything else.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
        raise UserError(
            f"--input {text!r} is no shape",
            hint="give channels, height and width, for example --input 3x64x64",
            exit_status=2,
        )
    channels, height, width = map(int, parts)
    return channels, height, width


def _is_pandas(value: Any, name: str) -> bool:
    """Whether ``value`` is of this class of pandas, without importing it: that takes longer than most commands."""
    return type(value).__module__.startswith("pandas") and type(value).__name__ == name


def format_value(value: Any) -> str:
    """A figure for people: four significant digits, thousands separated, nothing for NaN and None."""
    if value is None or _is_pandas(value, "NAType"):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        if value == 0 or math.isinf(value):
            return f"{value:g}"
        if 1e-3 <= abs(value) < 1e15:
            digits = max(0, 3 - math.floor(math.log10(abs(value))))
            return f"{value:,.{digits}f}"
        return f"{value:.3e}"
    return str(value)


def print_table(
    rows: pd.DataFrame | Iterable[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    *,
    title: str | None = None,
    caption: str | None = None,
) -> None:
    """Print a table on stdout.

    Args:
        rows: A data frame or mappings.
        columns: Which columns, in order; all by default. Headers are the names, which carry the units.
        title: Line above.
        caption: Line below; where an emulated device is concerned it says what the timer counts.
    """
    records = rows.to_dict("records") if _is_pandas(rows, "DataFrame") else [dict(row) for row in rows]
    if columns is None:
        named = rows.columns if _is_pandas(rows, "DataFrame") else (key for record in records for key in record)
        columns = list(dict.fromkeys(named))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
    for name in columns:
        numeric = all(
            isinstance(r.get(name), int | float | np.number | type(None)) and not isinstance(r.get(name), bool)
            for r in records
        )
        table.add_column(Text(str(name)), justify="right" if numeric and records else "left", overflow="fold")
    for record in records:
        table.add_row(*(Text(format_value(record.get(name))) for name in columns))
    if title:
        console_out.print(Text(title, style="bold"), soft_wrap=True)
    console_out.print(table)
    if caption:
        console_out.print(Text(caption), soft_wrap=True)


def json_ready(value: Any) -> Any:
    """``value`` with numpy's and pandas' types made plain and NaN made null."""
    if _is_pandas(value, "DataFrame"):
        return [json_ready(record) for record in value.to_dict("records")]
    if _is_pandas(value, "Series"):
        return json_ready(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or _is_pandas(value, "NAType"):
        return None
    if isinstance(value, str | int | bool):
        return value
    return str(value)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on stdout, and nothing else."""
    sys.stdout.write(json.dumps(json_ready(value), indent=1, allow_nan=False) + "\n")


class Ticker:
    """What :func:`progress` gives: tell it how far things are."""

    def __init__(self, total: float, description: str) -> None:
        self.total = total
        self.done = 0.0
        self.description = description

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """``amount`` more is done; ``note`` says what comes now."""
        self.done += amount
        self._show(note)

    def grow(self, amount: float) -> None:
        """There is ``amount`` more to do than was thought."""
        self.total += amount
        self._show(None)

    def note(self, text: str) -> None:
        """Say what is going on without having advanced."""
        self._show(text)

    def line(self, text: str) -> None:
        """One line of the results, on stdout, at once."""
        typer.echo(text)

    def _show(self, note: str | None) -> None:
        """Nothing to show."""


class _RichTicker(Ticker):
    def __init__(self, bar: Progress, total: float, description: str) -> None:
        super().__init__(total, description)
        self._bar = bar
        self._task = bar.add_task(description, total=total, note="")

    def line(self, text: str) -> None:
        # While it is drawn the bar takes over stdout too, and would put the line on stderr.
        self._bar.stop()
        super().line(text)
        self._bar.start()

    def _show(self, note: str | None) -> None:
        fields = {} if note is None else {"note": note}
        self._bar.update(self._task, completed=self.done, total=self.total, **fields)


class _ToldTicker(Ticker):
    """Shown by another process."""

    def _show(self, note: str | None) -> None:
        tell(done=self.done, total=self.total, note=note)


class PlainTicker(Ticker):
    """A line every few seconds: logs and pipes."""

    def __init__(self, total: float, description: str, every_s: float = PLAIN_PROGRESS_S) -> None:
        super().__init__(total, description)
        self._every_s = every_s
        self._start = self._last = time.monotonic()

    def _show(self, note: str | None) -> None:
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        left = ""
        if 0 < self.done < self.total:
            left = f", about {format_seconds((now - self._start) / self.done * (self.total - self.done))} left"
        suffix = f" ({note})" if note else ""
        message(f"{self.description}: {self.done:.0f} of {self.total:.0f}{left}{suffix}")


def format_seconds(seconds: float) -> str:
    """``75`` as ``1 min 15 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def progress(total: float, description: str, *, quiet: bool = False) -> Iterator[Ticker]:
    """Progress with time left, on stderr: a bar on a terminal, else a line every few seconds.

    Example:
        >>> with progress(3, "fitting", quiet=True) as ticker:
        ...     ticker.advance(note="conv2d forward")
    """
    if quiet:
        yield Ticker(total, description)
    elif _display is not None:
        yield _ToldTicker(total, description)
    elif not console_err.is_terminal:
        yield PlainTicker(total, description)
    else:
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console_err,
            transient=True,
        )
        with bar:
            yield _RichTicker(bar, total, description)


def watched(items: Iterable[Any], total: float, description: str) -> Iterator[Any]:
    """``items`` one by one, with :func:`progress` among so many."""
    with progress(total, description) as ticker:
        for number, item in enumerate(items, start=1):
            yield item
            if number % _WATCHED_EVERY == 0:
                ticker.advance(_WATCHED_EVERY)
