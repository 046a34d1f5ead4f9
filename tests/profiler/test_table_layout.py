"""Tables in terminals narrower than they are."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from profiler import cli_support
from profiler.table_layout import GAP, Column, blocks, column_widths

FIGURES = st.floats(1e-9, 1e9).map(lambda value: f"{value:.4g}")
NAMES = st.lists(st.sampled_from(["memory", "peak", "bytes", "max", "ns", "per", "mac"]), min_size=1).map("_".join)
COLUMNS = st.lists(
    st.builds(Column, NAMES, st.lists(FIGURES, min_size=3, max_size=3)), min_size=1, max_size=9
)  # fmt: skip


def total(widths):
    return sum(widths) + GAP * (len(widths) - 1)


@given(COLUMNS, st.integers(0, 3), st.integers(60, 200))
def test_no_figure_is_cut_and_every_column_is_shown_once_beside_the_labels(columns, labels, width):
    found = blocks(columns, labels, width)
    shown = [index for block in found for index in block]
    assert set(shown) == set(range(len(columns)))
    assert all(shown.count(index) == 1 for index in range(max(labels, 1), len(columns)))
    assert all(block[0] == 0 for block in found)
    for block in found:
        chosen = [columns[i] for i in block]
        widths = column_widths(chosen, width)
        assert all(w >= max(map(len, c.cells)) for w, c in zip(widths, chosen, strict=True))
        assert total(widths) <= max(width, total([c.least_width for c in chosen]))


def test_what_fits_stands_in_one_line_of_headers():
    columns = [Column("port", ["native://"]), Column("memory_peak_bytes", ["1,024"])]
    assert blocks(columns, 1, 80) == [[0, 1]]
    assert column_widths(columns, 80) == [len("native://"), len("memory_peak_bytes")]


def test_headers_are_folded_behind_underscores_before_a_table_is_split():
    columns = [Column("kind", ["conv2d"]), Column("memory_peak_bytes_max", ["12"]), Column("ops", ["1"])]
    assert blocks(columns, 1, 25) == [[0, 1, 2]]
    assert columns[1].folded_header(column_widths(columns, 25)[1]) == "memory_\npeak_\nbytes_max"


def test_a_split_table_repeats_the_columns_that_say_what_a_row_is_about():
    columns = [Column("kind", ["conv2d"]), Column("pass", ["forward"])] + [
        Column(f"figure_{i}", ["1" * 9]) for i in "abcdef"
    ]
    assert blocks(columns, 2, 50) == [[0, 1, 2, 3], [0, 1, 4, 5], [0, 1, 6, 7]]


@pytest.mark.parametrize("width", [40, 60, 100, 400])
def test_a_printed_table_keeps_every_figure_whole_at_any_width(monkeypatch, width):
    out = io.StringIO()
    monkeypatch.setattr(cli_support, "console_out", Console(file=out, width=width))
    rows = [
        {
            "kind": "softmax_cross_entropy",
            "pass": "grad_weight",
            "dtype": "f32",
            "latency_ms": 5.1e-5,
            "macs": 1_234_567,
        }
        | {f"figure_{i}": 2.139e-7 for i in range(8)}
    ]
    cli_support.print_table(rows)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = out.getvalue().split()
    assert {"0.000051", "1,234,567", "softmax_cross_entropy"} <= set(words)
    assert words.count("2.1e-7") == 8


def test_the_title_of_a_further_table_keeps_a_lines_distance(capsys, monkeypatch):
    monkeypatch.setattr(cli_support.console_out, "table_above", False)
    for title in ("first", "second"):
        cli_support.print_table([{"a": 1}], title=title, caption="caption")
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "first", "a", "─", "1", "caption", "", "second", "a", "─", "1", "caption",
    ]  # fmt: skip
