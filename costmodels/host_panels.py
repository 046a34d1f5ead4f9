"""What float32 convolutions do on hosts: their weights lie in panels (``firmware/kernels/panel_f32.h``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodels.host_caches import share_beyond
from profiler.geometry import Window
from profiler.ops import Op

#: As in ``panel_f32.h``: outputs of a panel, panels at once, weights of an output up to which there are panels, weights
#: of them at most, positions of a map from which on they pay off.
_PANEL, _PANELS, _PANEL_WEIGHTS, _PANEL_POSITIONS = 16, 16, 1024, 4
_FIRST_CACHE = "32k"
#: Of convolutions whose weights lie in panels, and of those whose weights do not.
PANELLED = {
    "panel_passes": "times that the window slides, each for as many panels as there is room for",
    "passed_rows": "rows of the map, of each",
    "passed_quads": "blocks of four positions, of each",
    "passed_singles": "single positions, of each",
    "packed_fours": "squares of four outputs by four weights that are transposed into panels",
    "packed_rests": "the same of single weights",
    "packed_fours_far": "such squares where weights and panels are more than the first cache holds",
    "panel_quads": "blocks of four positions, of each panel",
    "panel_quad_rows": "rows of their windows",
    "panel_quad_runs": "runs of inputs there that lie one behind the other",
    "panel_quad_pairs": "pairs of inputs",
    "panel_quad_odds": "inputs that pairs leave over",
    "panel_quad_halves": "inputs, of each half of a panel that has outputs",
    "panel_quads_far": "inputs where the panels are more than the first cache holds",
    "panel_singles": "single positions, of each panel",
    "panel_single_rows": "rows of their windows",
    "panel_single_runs": "runs of inputs there that lie one behind the other",
    "panel_single_fours": "fours of inputs",
    "panel_single_odds": "inputs that fours leave over",
    "panel_single_halves": "inputs, of each half of a panel that has outputs",
    "panel_singles_far": "inputs where the panels are more than the first cache holds",
    "stored_fours": "blocks of four outputs that are stored by themselves, as they do not fill a panel",
    "stored_ones": "single ones",
    "unpanelled_quads": "blocks of four positions and four outputs where weights stay as they are",
    "unpanelled_quad_inputs": "inputs of these",
    "unpanelled_singles": "single positions and four outputs there",
    "unpanelled_single_inputs": "inputs of these",
}


def panels(ops: Sequence[Op], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """:data:`PANELLED`, from the counts of blocks of four outputs and of what they read."""
    groups, outputs, weights, positions = np.array([_layout(op) for op in ops]).T
    panelled = (weights <= _PANEL_WEIGHTS) & (positions >= _PANEL_POSITIONS)
    room = np.minimum(_PANELS, np.maximum(_PANEL_WEIGHTS // weights, 1)) * _PANEL  # outputs
    passes = panelled * -(-outputs // room)
    fours = groups * -(-outputs // 4)
    of_panels = panelled * -(-outputs // _PANEL) / -(-outputs // 4)  # for each block of four outputs that is counted
    halves = panelled * -(-outputs // (_PANEL // 2)) / -(-outputs // 4)
    panel_bytes = 4 * weights * np.minimum(room, -(-outputs // _PANEL) * _PANEL)
    swept = np.where(panelled, panel_bytes, 4 * weights * outputs)
    far = share_beyond(swept, _FIRST_CACHE)
    packed_far = share_beyond(panel_bytes + 4 * weights * outputs, _FIRST_CACHE)
    quad_inputs, single_inputs = (4 * of[f"{n}_iterations"] + of[f"{n}_tails"] for n in ("quad", "single"))
    runs = np.maximum(of["quad_runs"], 1)
    odds = of["quad_runs"] * (np.round(of["quad_tails"] / runs) % 2)  # all runs of quads are equally long
    pixels, part = panelled * (4 * of["quads"] + of["singles"]), outputs % _PANEL
    packed = panelled * fours
    values = [
        groups * passes,
        of["rows"] * passes,
        of["quads"] * passes,
        of["singles"] * passes,
        packed * (weights // 4),
        packed * (weights % 4),
        packed * (weights // 4) * packed_far,
        of_panels * of["quad_blocks"],
        of_panels * of["quad_rows"],
        of_panels * of["quad_runs"],
        of_panels * (quad_inputs - odds) / 2,
        of_panels * odds,
        halves * quad_inputs,
        of_panels * quad_inputs * far,
        of_panels * of["single_blocks"],
        of_panels * of["single_rows"],
        of_panels * of["single_runs"],
        of_panels * of["single_iterations"],
        of_panels * of["single_tails"],
        halves * single_inputs,
        of_panels * single_inputs * far,
        pixels * (part // 4),
        pixels * (part % 4),
        *(~panelled * n for n in (of["quad_blocks"], quad_inputs, of["single_blocks"], single_inputs)),
    ]
    return dict(zip(PANELLED, values, strict=True))


def _layout(op: Op) -> tuple[int, int, int, int]:
    """Groups, outputs of one, weights of an output, positions of the output map."""
    g = op.geometry
    assert isinstance(g, Window)
    groups = g.groups  # type: ignore[attr-defined]
    inputs, outputs = g.input_shape[2] // groups, g.output_shape[2] // groups
    return groups, outputs, g.kernel_h * g.kernel_w * inputs, g.out_h * g.out_w  # type: ignore[attr-defined]
