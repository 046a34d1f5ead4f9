"""A process that holds a place of labgrid's for as long as the process that started it lives, however that ends.

It acquires the place, answers each line on its input with the address of the place's serial port, and gives the place
back when its input ends: labgrid keeps a place for its user until somebody releases it, also where that user died.

Input and output are lines of JSON. The first line out says whether the place was acquired now (``{"acquired": true}``)
or was this user's already (false: then it stays so), or what is wrong (``{"error": "..."}``).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from profiler.link.ports.process import die_with_parent

#: How long one command of labgrid's may take.
COMMAND_S = 60.0
#: How long its serial port may take to be there: an exporter starts its server when the place is acquired.
ADDRESS_S = 30.0


class LabgridError(Exception):
    """What labgrid said."""


class Keeper:
    """Holds one place.

    Args:
        client: Path of ``labgrid-client``.
        place: Name of the place.
        resource: Name of the serial port's resource; empty: the only one.
        folder: For files that labgrid reads and writes.
    """

    def __init__(self, client: str, place: str, resource: str, folder: Path) -> None:
        self._command = [client, "--place", place]
        self._address_file = folder / "address.json"
        self._environment_file = folder / "environment.yaml"
        bindings = {"bindings": {"port": resource}} if resource else {}
        # JSON is YAML; a list of drivers, as a mapping by class takes no binding in older versions.
        resources = {"RemotePlace": {"name": place}}
        target = {"resources": resources, "drivers": [{"SerialDriver": {"name": "link"} | bindings}]}
        self._environment_file.write_text(json.dumps({"targets": {"main": target}}))
        self._acquired = False
        self._export: subprocess.Popen | None = None

    def acquire(self) -> bool:
        """Make the place this user's; whether it was not before."""
        try:
            self._call("acquire")
        except LabgridError:
            with contextlib.suppress(LabgridError):
                self._call("env")  # succeeds only for whoever has the place
                return False
            raise
        self._acquired = True
        return True

    def address(self) -> str:
        """URL of the place's serial port. labgrid tunnels it through SSH where the place wants that, until the next."""
        self._end_export()
        self._address_file.unlink(missing_ok=True)
        command = [*self._command, "--config", str(self._environment_file), "export", "--format", "json"]
        with tempfile.TemporaryFile() as said:
            parent = os.getpid()
            self._export = subprocess.Popen(
                [*command, str(self._address_file)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509
            )
            deadline_s = time.monotonic() + ADDRESS_S
            while not self._address_file.exists():
                if self._export.poll() is not None or time.monotonic() > deadline_s:
                    self._end_export()
                    said.seek(0)
                    raise LabgridError(_sentence(said.read()) or "it did not say where the serial port is")
                time.sleep(0.02)
        facts = json.loads(self._address_file.read_text())
        values = {key.rpartition("_")[2].lower(): value for key, value in facts.items()}
        if values.get("protocol") == "raw":
            return f"socket://{values['host']}:{values['port']}"
        return f"rfc2217://{values['host']}:{values['port']}"

    def release(self) -> None:
        """Give the place back, unless it was this user's before."""
        self._end_export()
        if self._acquired:
            self._acquired = False
            self._call("release")

    def _call(self, verb: str) -> None:
        try:
            done = subprocess.run(
                [*self._command, verb], stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabgridError(f"labgrid-client {verb} did not end within {COMMAND_S:g} s") from None
        if done.returncode:
            raise LabgridError(_sentence(done.stderr or done.stdout) or f"labgrid-client {verb} failed")

    def _end_export(self) -> None:
        if self._export is not None:
            self._export.terminate()
            self._export.wait()
            self._export = None


def _sentence(said: bytes) -> str:
    """The last line of what labgrid said, without its name and level."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1].removeprefix("labgrid-client: ").removeprefix("Error: ").removeprefix("error: ").rstrip(".")


def _answer(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def main(arguments: list[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # still gives the place back
    with tempfile.TemporaryDirectory(prefix="labgrid-") as folder:
        keeper = Keeper(*arguments, Path(folder))
        try:
            _answer(acquired=keeper.acquire())
            for _ in sys.stdin:
                try:
                    _answer(url=keeper.address())
                except LabgridError as error:
                    _answer(error=str(error))
        except LabgridError as error:
            _answer(error=str(error))
        except BrokenPipeError:
            pass  # whoever asked is gone
        finally:
            try:
                keeper.release()
            except LabgridError as error:
                with contextlib.suppress(BrokenPipeError):
                    _answer(error=str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
