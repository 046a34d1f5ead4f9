"""Write build_info.c: version, compiler, flags, and a hash that tells two builds apart.

The hash is the first 16 hex digits of SHA-256 over the compiler, the flags, and every source's path and content in the
order of the paths. Equal sources built alike give equal hashes wherever they lie.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path


def build_hash(root: Path, sources: list[str], compiler: str, flags: str) -> str:
    digest = hashlib.sha256(f"{compiler}\n{flags}\n".encode())
    for source in sorted(sources):
        content = (root / source).read_bytes()
        digest.update(f"{source}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--firmware-version", required=True)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--flags", required=True)
    parser.add_argument("sources", nargs="+")
    arguments = parser.parse_args()
    texts = {
        "build_firmware_version": arguments.firmware_version,
        "build_hash": build_hash(arguments.root, arguments.sources, arguments.compiler, arguments.flags),
        "build_compiler": arguments.compiler,
        "build_flags": arguments.flags,
    }
    lines = ['#include "link/build_info.h"', ""]
    lines += [f'const char {name}[] = "{text}";' for name, text in texts.items()]
    arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
