"""Plots of predictions; every title says what the device's timer counts."""

from __future__ import annotations

from pathlib import Path

from costmodels.evaluate import Evaluation
from costmodels.evaluate_points import FITTED
from profiler.errors import UserError
from profiler.ops import Pass

#: Column, label, marker and colour of what is drawn.
_SERIES = (
    ("c × MACs", "c × MACs (words, where none)", "x", "tab:orange"),
    (FITTED, "fitted", ".", "tab:blue"),
)


def timer_note(timer: str) -> str:
    """What the latencies of a device mean, for titles and captions."""
    if timer == "instructions":
        return "emulated: time = instructions"
    return f"timer: {timer}"


def energy_note(source: str | None) -> str:
    """What the energies of a device are worth, for titles and captions."""
    if source is None:
        return "energy: not measured"
    if source == "simulated":
        return "energy: simulated, made up by a model and measured by nothing"
    return f"energy: {source}"


def predicted_against_measured(evaluation: Evaluation, path: Path) -> None:
    """Write a PNG with a log-log panel a pass: the fitted model's predictions and those of ``c × MACs``.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (takes a second to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    points = evaluation.points["latency"]
    passes = [p for p in Pass if (points["pass"] == str(p)).any()]
    figure = Figure(figsize=(4 * len(passes), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(passes), squeeze=False, sharex=True, sharey=True)[0]
    low, high = points["measured"].min() / 2, points["measured"].max() * 2
    for panel, pass_ in zip(panels, passes, strict=True):
        rows = points[points["pass"] == str(pass_)]
        panel.fill_between([low, high], [low * 0.9, high * 0.9], [low * 1.1, high * 1.1], color="0.9", label="±10 %")
        panel.plot([low, high], [low, high], color="0.5", linewidth=0.8)
        for name, label, marker, color in _SERIES:
            panel.plot(rows["measured"], rows[name], marker, color=color, label=label, markersize=5)
        panel.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        panel.set_title(f"{pass_} (n = {len(rows)})")
        panel.set_xlabel("measured latency, µs")
    panels[0].set_ylabel("predicted latency, µs")
    panels[0].legend(loc="upper left")
    figure.suptitle(f"{evaluation.device}, {evaluation.judged_on} ({timer_note(evaluation.timer)})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise UserError(
            f"cannot write the plot {path}: {error.strerror}", hint="give --plot a file that you can write"
        ) from None
