"""One request, one answer, over a line that may damage, lose or repeat anything, to a device that may restart.

Every request carries an id that its reply repeats, and may be sent again without doing harm, so a lost or damaged
frame costs a repetition and nothing else. Every reply carries the device's boot id: a restart in between is seen, and
what was in flight is reported as lost instead of being merged with what came before. A port that went away and came
back is opened again; where it leads to the same boot of the same device, the request is simply repeated. What tells old
replies and restarts is in :mod:`profiler.link.request_ids`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from profiler.devices.identity import Identity, ResetCause
from profiler.link import frames, messages, replies
from profiler.link.errors import DeviceReset, LinkError, NoAnswer, PortError, Refused, WrongProtocol
from profiler.link.frames import FrameStatus
from profiler.link.messages import Accepted, Answer, Done, OtherProtocol, PeekReply, RefusedReply, Reply
from profiler.link.patience import Patience
from profiler.link.power import PowerCycle, TargetSupply
from profiler.link.replies import BadReply
from profiler.link.request_ids import REQUEST_IDS, RequestIds
from profiler.link.transport import LinkStatistics, Transport

PATIENCE = Patience()

#: How many of a session's restarts are remembered.
MOST_RESTARTS_KEPT = 100
#: Of an identity or a page of ticks: for the time on the wire.
_USUAL_REPLY_BYTES = 512


class Channel:
    """Asks a device and gets its answers.

    Args:
        transport: The open port. The channel closes it.
        timeout_s: How long the device may take to identify itself, now and after a restart.
        patience: All other waits.
        power_cycle: What brings the device back where it stays silent.
        run_limit_ms: How long one run may take in the device's own time; 0: as long as it wants.

    Attributes:
        identity: Who the device is.
        boot_id: Its boot id; after a restart that was noticed, the new one.
        restarts: Why it restarted, in words: the last :data:`MOST_RESTARTS_KEPT` times.
        entry_names: What to call the entries of the program that runs, where the device restarts over one.

    Raises:
        NoAnswer: nothing answers.
        WrongProtocol: what answers speaks something else.
    """

    identity: Identity

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float,
        patience: Patience | None = None,
        power_cycle: PowerCycle | TargetSupply | None = None,
        run_limit_ms: int = 0,
    ) -> None:
        self.transport = transport
        self.run_limit_ms = run_limit_ms
        self.boot_id = 0
        self.restarts: deque[str] = deque(maxlen=MOST_RESTARTS_KEPT)
        self.entry_names: Sequence[str] = ()
        self._timeout_s = timeout_s
        self._patience = patience or PATIENCE
        self._power_cycle = power_cycle
        self._ids = RequestIds()
        self._bad_reply = ""  # what was wrong with the last whole frame that is no reply
        try:
            self.identity = self._meet()
        except NoAnswer as silence:
            if power_cycle is None:
                raise
            self._bring_back(power_cycle, silence, self._identify)
            self.identity = self._meet()

    @property
    def url(self) -> str:
        return self.transport.url

    @property
    def statistics(self) -> LinkStatistics:
        return self.transport.statistics

    def close(self) -> None:
        self.transport.release()

    def fits(self, command: list) -> bool:
        """Whether the request fits into what the device can receive."""
        payload = messages.encode_request(REQUEST_IDS[-1], command)
        return frames.encoded_bytes(len(payload)) <= self.identity.largest_frame_bytes

    # ------------------------------------------------------------ asking

    def ask(self, command: list, expected: type[Answer], *, wait_s: float = 0.0) -> Answer | RefusedReply:
        """The answer to ``command``, of type ``expected`` or a refusal.

        Args:
            command: From :mod:`profiler.link.messages`; any but ``run``.
            expected: Type of the answer.
            wait_s: How long the device takes, beside the way on the wire.

        Raises:
            DeviceReset: the device restarted, the port went away and came back, or the device was power cycled.
            NoAnswer: it fell silent.
            PortError: the port went away for good.
        """
        return self._guarded(command, expected, wait_s)

    def ask_run(self, command: list, expected_s: float) -> Done | RefusedReply:
        """The same for ``run``, which is first accepted and then takes about ``expected_s``, the host silent."""
        return self._guarded(command, Done, 0.0, expected_s)

    def _guarded(self, command: list, expected: type[Answer], wait_s: float, expected_s: float = 0.0):
        problem: LinkError | None = None
        for _ in range(self._patience.most_breaks + 1):
            try:
                return self._exchange(command, expected, wait_s, expected_s)
            except NoAnswer as silence:
                problem = silence
                break
            except PortError as error:
                problem, same_boot = self._after_port_error(error, expected_s)
                if not same_boot:
                    break
        assert problem is not None
        if self._power_cycle is not None and not isinstance(problem, DeviceReset):
            self._bring_back(self._power_cycle, problem, self._reacquaint)
            problem = DeviceReset(f"{problem.args[0]} and was power cycled", hint="see what it does to the device")
        raise problem

    def _exchange(self, command: list, expected: type[Answer], wait_s: float, expected_s: float) -> Answer:
        if not self.fits(command):
            raise self._too_long(command)
        runs = expected is Done
        request_id = self._ids.next(runs=runs)
        kinds: tuple[type, ...] = (Accepted, Done) if runs else (expected,)
        request = _encoded(request_id, command)
        wait_s += self.transport.transfer_s(len(request) + _USUAL_REPLY_BYTES)
        accepted = False
        silent = 0
        give_up_s = time.monotonic() + self._patience.limit_s(wait_s, expected_s)
        ended_s = math.inf  # when an accepted run has certainly come to an end
        for attempt in range(self._patience.most_attempts):
            received_bytes = self.statistics.bytes_received
            reply = None
            if attempt:
                # A device that restarted would take the request for a new one, so first see that it is still the same
                # boot. Silence may also mean that it is busy with the run: probes then wait in its receive buffer, so
                # no more are sent than fit there.
                probe_id = self._ids.next_rare()
                probe = _encoded(probe_id, messages.peek(0, 0))
                if (silent + 1) * (len(probe) + len(frames.DELIMITER)) <= self.identity.largest_frame_bytes:
                    self._send(probe, again=True)
                busy_s = self._patience.busy_s(expected_s, silent) if accepted or silent > 2 else 0.0
                busy_s = min(busy_s, max(0.0, ended_s - time.monotonic()))
                probe_wait_s = wait_s + self._patience.wait_s(silent) + busy_s
                reply = self._await({request_id: kinds, probe_id: (PeekReply,)}, probe_wait_s)
            if not attempt or (reply and reply.request_id != request_id):
                self._send(request, again=attempt > 0)
                reply = self._await({request_id: kinds}, wait_s + self._patience.wait_s(silent))
            if reply and isinstance(reply.answer, Accepted):
                if not accepted:
                    accepted, ended_s = True, time.monotonic() + self._longest_run_s()
                busy_s = min(self._patience.busy_s(expected_s, silent), max(0.0, ended_s - time.monotonic()))
                reply = self._await({request_id: (Done,)}, busy_s)
            if reply:
                return reply.answer
            silent = silent + 1 if self.statistics.bytes_received == received_bytes else 0
            if silent >= self._patience.attempts or time.monotonic() > min(give_up_s, ended_s):
                break
        raise NoAnswer(
            f"{self.identity.board} at {self.url} stopped answering ({attempt + 1} attempts)",
            hint="reset it and start the command again; --power-cycle COMMAND or --target-power does that by itself",
        )

    def _too_long(self, command: list) -> Refused:
        byte_count = len(_encoded(REQUEST_IDS[-1], command))
        most = self.identity.largest_frame_bytes
        return Refused(
            f"a request of {byte_count} bytes does not fit the {most} bytes that {self.identity.board} can receive",
            hint="build its firmware with a larger LINK_FRAME_BYTES (firmware/link/wire.h)",
            reason="frame_too_long",
            entry_index=0,
            detail=byte_count,
        )

    def _longest_run_s(self) -> float:
        """Until a run that was accepted has ended in one way or another, with room for the device's own start: at an
        op's border by the session's limit, inside of an op by the watchdog. Where one of them is missing, or the
        device's time is not the host's, nobody knows."""
        watchdog_ms = self.identity.watchdog_ms
        if not (self.run_limit_ms and watchdog_ms) or self.identity.counts_instructions:
            return math.inf
        return 1.5e-3 * (self.run_limit_ms + watchdog_ms) + self._timeout_s

    def _send(self, request: bytes, *, again: bool) -> None:
        if again:
            self.statistics.retries += 1
            request = frames.DELIMITER + request  # ends whatever half of a frame the device may hold
        self.transport.send(request)

    def _await(self, awaited: Mapping[int, tuple[type, ...]], wait_s: float, *, any_boot: bool = False) -> Reply | None:
        """The first reply to one of the requests in ``awaited``; None after so much silence.

        Everything else is counted and dropped. After a damaged frame the wait is cut short: it was probably the reply.
        """
        deadline_s = time.monotonic() + wait_s
        damaged = False
        while frame := self.transport.receive(deadline_s):
            reply = self._read_reply(frame) if frame.status is FrameStatus.OK else None
            if reply is None:
                if not damaged:
                    damaged = True
                    deadline_s = min(deadline_s, time.monotonic() + self._patience.damaged_wait_s)
                continue
            if reply.request_id not in awaited:
                self.statistics.stale_replies += 1
            elif reply.boot_id != self.boot_id and not any_boot:
                raise self._after_restart()
            elif isinstance(reply.answer, (*awaited[reply.request_id], RefusedReply)):
                return reply
            else:
                self.statistics.bad_replies += 1
        return None

    def _read_reply(self, frame: frames.Frame) -> Reply | None:
        try:
            return replies.decode_reply(frame.payload)
        except BadReply as error:
            self.statistics.bad_replies += 1
            self._bad_reply = str(error)
            return None

    # ------------------------------------------------------------ identity, restarts

    def _meet(self) -> Identity:
        """Identify the device for the first time; a port that goes away meanwhile is opened again.

        It is asked twice: one that was up before keeps its last run's reply until it sees another nonce than the last,
        and the second is another one for certain.
        """
        deadline_s = time.monotonic() + self._timeout_s
        broken = False
        while True:
            try:
                if broken:
                    self.transport.reopen()
                self._identify()
                return self._identify()
            except PortError:
                if time.monotonic() > deadline_s:
                    raise
                broken = True
                time.sleep(self._patience.reopen_wait_s)

    def _identify(self) -> Identity:
        """Resynchronise: whatever stands on the line is ended by delimiters and dropped, then the device is asked."""
        received_before = self.statistics.bytes_received
        self._bad_reply = ""
        nonce = self._ids.next_nonce(self.boot_id)
        self.transport.discard_input()
        request_id = self._ids.next_rare()
        request = _encoded(request_id, messages.identify(nonce, self.run_limit_ms))
        deadline_s = time.monotonic() + self._timeout_s
        attempt = 0
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._send(frames.DELIMITER * 2 + request, again=attempt > 0)
            wait_s = self.transport.transfer_s(_USUAL_REPLY_BYTES)
            wait_s += min(self._patience.identify_wait_s * 2**attempt, self._patience.longest_identify_wait_s)
            reply = self._await({request_id: (Identity, OtherProtocol)}, min(wait_s, left_s), any_boot=True)
            attempt = min(attempt + 1, 8)
            if reply is None:
                continue
            if isinstance(reply.answer, Identity):
                self.boot_id = reply.boot_id
                return reply.answer
            found = "another one"
            if isinstance(reply.answer, OtherProtocol):
                found = f"version {reply.answer.version}"
            raise self._wrong_protocol(f"speaks {found} of the protocol, this host speaks version {messages.PROTOCOL}")
        garbage = self.statistics.bytes_received - received_before
        if self._bad_reply:
            raise self._wrong_protocol(f"sends what is no answer in this protocol: {self._bad_reply}")
        if garbage:
            raise self._wrong_protocol(f"sends something ({garbage} bytes) that is no answer in this protocol")
        raise NoAnswer(
            f"nothing answered at {self.url} within {self._timeout_s:g} s",
            hint="check the port's name, the baud rate, and that the board is powered and runs this project's firmware",
        )

    def _wrong_protocol(self, found: str) -> WrongProtocol:
        return WrongProtocol(
            f"the device at {self.url} {found}",
            hint="build the firmware of this version (cmake presets in firmware/), load it, and check the baud rate",
        )

    def _after_restart(self) -> DeviceReset:
        self._reacquaint()
        return DeviceReset(
            f"{self.identity.board} at {self.url} restarted and lost what it was doing{self._why()}",
            hint="repeat it; if that happens again, check the supply and the cable",
            reset=self.identity.reset,
        )

    def _after_port_error(self, error: PortError, expected_s: float) -> tuple[PortError | DeviceReset, bool]:
        """Wait for the port to come back, as an unplugged board or an emulator that died does.

        Returns:
            (what to raise, whether the device behind it has not restarted: then the request may be repeated instead).
        """
        # The device may still be busy with the run that the port went away over.
        busy_s = self._patience.busy_s(expected_s, self._patience.attempts) if expected_s else 0.0
        deadline_s = time.monotonic() + self._timeout_s + busy_s
        while time.monotonic() < deadline_s:
            try:
                self.transport.reopen()
                restarted = self._reacquaint()
            except (PortError, NoAnswer):
                time.sleep(self._patience.reopen_wait_s)
            else:
                sentence = f"the link broke and was opened again: {error.args[0]}"
                if restarted:
                    sentence += self._why()
                reset = self.identity.reset if restarted else None
                return DeviceReset(sentence, hint="repeat what was lost", reset=reset), not restarted
        return error, False

    def _bring_back(
        self, power_cycle: PowerCycle | TargetSupply, problem: LinkError, acquaint: Callable[[], object]
    ) -> None:
        """Power cycle the device and wait until it identifies itself, at a port that may take its time to come back."""
        self.transport.close()  # a port that is held open comes back under another name
        self.statistics.power_cycles += 1
        power_cycle.run(problem.args[0])
        deadline_s = time.monotonic() + power_cycle.back_wait_s
        while True:
            try:
                self.transport.reopen()
                acquaint()
                return
            except (PortError, NoAnswer) as error:
                if time.monotonic() > deadline_s:
                    raise type(error)(f"power cycled, yet {error.args[0]}", hint=error.hint) from None
                time.sleep(self._patience.reopen_wait_s)

    def _why(self) -> str:
        """The reason of the last restart, as the end of a sentence; nothing where the device does not know."""
        reset = self.identity.reset
        if reset.cause is ResetCause.UNKNOWN and not reset.running:
            return ""
        words, entry = reset.in_words, reset.running - 1
        if 0 <= entry < len(self.entry_names):
            words = words.replace("of the program", f"of the program, {self.entry_names[entry]}", 1)
        return f": {words}"

    def _reacquaint(self) -> bool:
        """Identify the device once more.

        Returns:
            Whether it restarted since the last time.

        Raises:
            WrongProtocol: it is another device now, or has other firmware.
        """
        before, boot_before = self.identity, self.boot_id
        self.identity = self._identify()
        restarted = self.boot_id != boot_before
        self.statistics.resets += restarted
        if restarted:
            self.restarts.append(self._why().removeprefix(": ") or "unknown")
        if self.identity.build_hash != before.build_hash:
            raise WrongProtocol(
                f"another firmware answers at {self.url}: build {self.identity.build_hash}, before {before.build_hash}",
                hint="start a new run: measurements of two builds are never mixed",
            )
        if self.identity.unique_id != before.unique_id:
            raise WrongProtocol(
                f"another device answers at {self.url}: serial number {self.identity.unique_id or 'none'}, before "
                f"{before.unique_id or 'none'}",
                hint="name the port by /dev/serial/by-id/..., so that each device keeps its name",
            )
        return restarted


def _encoded(request_id: int, command: list) -> bytes:
    return frames.encode(messages.encode_request(request_id, command))
