"""Habits that all three commands share: errors as one sentence, tables, JSON, progress with time left.

Messages and progress go to stderr, results to stdout, so that ``--json`` can be piped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from profiler.errors import UserError
from profiler.shown_values import format_column, format_seconds, is_figure, is_pandas, json_ready
from profiler.table_layout import Column, blocks, column_widths

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


#: click does not fold the paragraph that begins so.
_UNWRAPPED = "\b\n"
#: Of every command's typer app. click stops at 80 columns, which cuts what verbs and options are for.
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class _Console(Console):
    """A console on a pipe that its reader may close at any time."""

    #: Whether a table stands on it: the title of the next one keeps a line's distance.
    table_above = False

    def on_broken_pipe(self) -> None:
        """Of results: as any stream, to end the command (rich would leave with status 1 here). Of messages: nobody
        reads them any longer, and what is being measured goes on."""
        if not self.stderr:
            raise BrokenPipeError
        self.quiet = True
        _to_nowhere(sys.stderr)


def _to_nowhere(stream: TextIO) -> None:
    """What is still written to a closed pipe, and the interpreter's own flush at exit, harms no longer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _console(*, stderr: bool) -> _Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream is not None and stream.isatty() else PIPE_WIDTH
    return _Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


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
    console_out.table_above = False
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _check_not_empty(given)
        command = typer.main.get_command(app)
        _tidy_help(command)
        # Not command.main(): that leaves with status 1 where the reader of a pipe has gone.
        with command.make_context(prog, given) as context:
            status = command.invoke(context)
    except typer.Exit as asked:  # --help
        status = asked.exit_code
    except UserError as error:
        print_error(prog, str(error))
        status = error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        print_error(prog, "interrupted; start it again, nothing on disk is harmed")
    except BrokenPipeError:
        _to_nowhere(sys.stdout)  # the reader of a pipe (`head`) has seen enough
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
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # what a pipe took no longer, whatever came of the command
        _to_nowhere(sys.stdout)
    sys.exit(status if isinstance(status, int) and not isinstance(status, bool) else 0)


def _tidy_help(command: Any) -> None:
    """An example is a line of its own in a command's help, of whatever length, so that it can be copied and run;
    arguments go by their names alone, which typer puts the types of our code behind."""
    for name in ("help", "epilog"):
        paragraphs = (getattr(command, name) or "").split("\n\n")
        whole = [_UNWRAPPED + " ".join(p.split()) if p.lstrip().startswith("Example: ") else p for p in paragraphs]
        setattr(command, name, "\n\n".join(whole) or None)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.get_help_record = partial(_argument_record, parameter, parameter.get_help_record)
    for verb in getattr(command, "commands", {}).values():
        _tidy_help(verb)


def _argument_record(argument: Any, record: Callable[[Any], tuple[str, str] | None], context: Any) -> Any:
    """What help says of an argument: its name and what it is; None where it is hidden."""
    found = record(context)
    return found and (argument.metavar + ("" if argument.nargs == 1 else "..."), found[1])


def _check_not_empty(arguments: Sequence[str]) -> None:
    """Raise UserError where an argument is empty, as ``--out "$OUT"`` is without such a variable: no option means
    anything by that, and as a path it would be the current folder."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument:
            what = f"the argument after {before} is empty" if before else "the first argument is empty"
        elif option.startswith("--") and equals and not value:
            what = f"{argument} gives no value"
        else:
            continue
        raise UserError(what, hint="give a value (is a variable of the shell not set?) or leave it away", exit_status=2)


def _help_command(prog: str, error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else prog} --help"


def parse_input_shape(text: str) -> tuple[int, int, int]:
    """``3x64x64`` as (channels, height, width).

    Raises:
        UserError: anything else.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(p.strip().isdecimal() and len(p) < 10 and int(p) > 0 for p in parts):
        raise UserError(
            f"--input {text!r} is no shape",
            hint="give channels, height and width, for example --input 3x64x64",
            exit_status=2,
        )
    channels, height, width = map(int, parts)
    return channels, height, width


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
    records = rows.to_dict("records") if is_pandas(rows, "DataFrame") else [dict(row) for row in rows]
    if columns is None:
        named = rows.columns if is_pandas(rows, "DataFrame") else (key for record in records for key in record)
        columns = list(dict.fromkeys(named))
    if title:
        if console_out.table_above:
            console_out.print()
        console_out.print(Text(title, style="bold"), soft_wrap=True)
    console_out.table_above = True
    laid_out = [Column(str(name), format_column(str(name), [r.get(name) for r in records])) for name in columns]
    figures = [bool(records) and all(is_figure(record.get(name)) for record in records) for name in columns]
    labels = figures.index(True) if True in figures else len(columns)
    for number, block in enumerate(blocks(laid_out, labels, console_out.width)):
        if number:
            console_out.print()
        shown = [laid_out[index] for index in block]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
        for index, column, width in zip(block, shown, column_widths(shown, console_out.width), strict=True):
            justify = "right" if figures[index] else "left"
            table.add_column(Text(column.folded_header(width)), justify=justify, overflow="fold", width=width)
        for row in zip(*(column.cells for column in shown), strict=True):
            table.add_row(*map(Text, row))
        console_out.print(table)
    if caption:
        console_out.print(Text(caption), soft_wrap=True)


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
