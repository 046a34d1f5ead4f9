"""Tables as other labs make them."""

import csv

CONV = {"kind": "conv2d", "in_h": 16, "in_w": 12, "in_channels": 4, "out_channels": 8, "kernel_h": 3, "kernel_w": 3}
LINEAR = {"kind": "linear", "in_features": 7, "out_features": 5}
LAB = [
    {"board": "m4", "cin": 3, "cout": 16, "size": 32, "kernel": 3, "stride": 2, "out": 16, "cycles": 168, "pad": ""},
    {"board": "m4", "cin": 16, "cout": 8, "size": 16, "kernel": 1, "stride": 1, "out": 16, "cycles": 336, "pad": ""},
    {"board": "m33", "cin": 3, "cout": 16, "size": 32, "kernel": 3, "stride": 2, "out": 16, "cycles": 999, "pad": ""},
]


def cells(**values):
    return {name: str(value) for name, value in values.items()}


def table(path, *rows, delimiter=","):
    """Write rows as a CSV with the columns of all of them."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path
