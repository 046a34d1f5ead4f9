"""A Cortex-M with flash behind a debug probe, as far as pyOCD drives it: what pyOCD's code does to a core is recorded.

The probe is made up, pyOCD is not. The core has the debug registers, memory that reads back, and runs a flash algorithm
by doing what the algorithm's entry points promise.
"""

from pyocd.probe.debug_probe import DebugProbe
from pyocd.target.builtin.target_STM32F767xx import FLASH_ALGO

DHCSR, DCRSR, DCRDR, DEMCR, CPUID = 0xE000EDF0, 0xE000EDF4, 0xE000EDF8, 0xE000EDFC, 0xE000ED00
C_DEBUGEN, C_HALT, S_REGRDY, S_HALT, S_RESET_ST = 1, 2, 1 << 16, 1 << 17, 1 << 25
TRCENA = 1 << 24
ROM_TABLE, SCS = 0xE00FE000, 0xE000E000
FLASH_BASE, SECTOR_BYTES = 0x0800_0000, 0x8000
SERIAL = "066DFF485671664867182828"


def component(base, class_, part):
    """Identification registers at the end of a CoreSight component of Arm."""
    designer = 0x23B
    pid = part | (designer & 0x7F) << 12 | 1 << 19 | 4 << 32
    bytes_ = {base + 0xFE0 + 4 * i: pid >> 8 * i & 0xFF for i in range(4)} | {base + 0xFD0: pid >> 32 & 0xFF}
    cid = 0xB105_000D | class_ << 12
    return bytes_ | {base + 0xFF0 + 4 * i: cid >> 8 * i & 0xFF for i in range(4)}


class Core:
    """The part's memory, its core and what happened to it, in order, in ``events``."""

    def __init__(self):
        self.words = {CPUID: 0x410F_C271, ROM_TABLE: (SCS - ROM_TABLE) & 0xFFFF_FFFF | 3, ROM_TABLE + 4: 0}
        self.words[0x4002_3C14] = 1 << 29  # FLASH_OPTCR: one bank
        self.words |= component(ROM_TABLE, 1, 0x4C8) | component(SCS, 14, 0x00C)
        self.ram = bytearray(0x80000)
        self.flash = bytearray(b"\xa5" * 0x20000)  # old firmware
        self.registers = [0] * 64
        self.dhcsr = self.demcr = 0
        self.in_reset = False
        self.events = []

    def nrst(self, low):
        self.events.append("nrst low" if low else "nrst high")
        self.in_reset = low
        if low:
            self.demcr_at_boot = self.dhcsr_at_boot = None
        else:
            self.dhcsr |= S_RESET_ST
            self.demcr_at_boot, self.dhcsr_at_boot = self.demcr, self.dhcsr
            if self.demcr & 1 and self.dhcsr & C_DEBUGEN:  # VC_CORERESET
                self.dhcsr |= C_HALT | S_HALT

    def read(self, address):
        if address == DHCSR:
            value = self.dhcsr | S_REGRDY
            self.dhcsr &= ~S_RESET_ST
            return value
        if address == DEMCR:
            return self.demcr
        place = self._place(address)
        return int.from_bytes(place[0][place[1] : place[1] + 4], "little") if place else self.words.get(address, 0)

    def write(self, address, value):
        if address == DHCSR:
            self._control(value & 0xFFFF)
        elif address == DEMCR:
            self.demcr = value
            self.events.append(f"demcr {value:#x}")
        elif address == DCRSR:
            number = value & 0x7F
            if value >> 16 & 1:
                self.registers[number] = self.words[DCRDR]
            else:
                self.words[DCRDR] = self.registers[number]
        elif place := self._place(address):
            place[0][place[1] : place[1] + 4] = value.to_bytes(4, "little")
        else:
            self.words[address] = value

    def write_byte(self, address, value):
        place, offset = self._place(address)
        place[offset] = value

    def _place(self, address):
        for base, memory in ((0x2000_0000, self.ram), (FLASH_BASE, self.flash)):
            if base <= address < base + len(memory):
                return memory, address - base
        return None

    def _control(self, value):
        was_halted = self.dhcsr & S_HALT
        self.dhcsr = self.dhcsr & S_RESET_ST | value
        if not value & C_DEBUGEN:
            self.events.append("debug off")
        elif value & C_HALT:
            self.dhcsr |= S_HALT
        elif was_halted and 0x2000_0000 <= self.registers[15] < 0x2000_1000:
            self._algorithm()
            self.dhcsr |= S_HALT | C_HALT

    def _algorithm(self):
        address, count, source = self.registers[:3]
        entry = self.registers[15] | 1
        if entry == FLASH_ALGO["pc_erase_sector"]:
            start = (address - FLASH_BASE) // SECTOR_BYTES * SECTOR_BYTES
            self.flash[start : start + SECTOR_BYTES] = b"\xff" * SECTOR_BYTES
            self.events.append(f"erase {address:#x}")
        elif entry == FLASH_ALGO["pc_program_page"]:
            offset, at = address - FLASH_BASE, source - 0x2000_0000
            assert set(self.flash[offset : offset + count]) == {0xFF}, "only erased flash can be programmed"
            self.flash[offset : offset + count] = self.ram[at : at + count]
            self.events.append(f"program {address:#x}")
        self.registers[0] = 0  # success


class Memory:
    """The core's memory through an access port."""

    def __init__(self, core):
        self.core = core

    def write_memory(self, address, data, transfer_size=32, **_):
        if transfer_size == 32:
            self.core.write(address, data)
        else:
            self.write_memory_block8(address, data.to_bytes(transfer_size // 8, "little"))

    def read_memory(self, address, transfer_size=32, now=True, **_):
        value = self.core.read(address & ~3) >> 8 * (address & 3) & (1 << transfer_size) - 1
        return value if now else lambda: value

    def write_memory_block32(self, address, data, **_):
        for i, word in enumerate(data):
            self.core.write(address + 4 * i, word)

    def read_memory_block32(self, address, size, **_):
        return [self.core.read(address + 4 * i) for i in range(size)]

    def write_memory_block8(self, address, data, **_):
        for i, byte in enumerate(data):
            self.core.write_byte(address + i, byte)

    def read_memory_block8(self, address, size, **_):
        return [self.read_memory(address + i, 8) for i in range(size)]


class SimulatedProbe(DebugProbe):
    """A probe on a :class:`Core`; manages access ports by itself, as an ST-LINK does."""

    core = None
    vendor_name = "STMicroelectronics"
    product_name = "ST-LINK/V2-1"
    description = "simulated"
    unique_id = SERIAL
    is_open = False
    wire_protocol = None
    supported_wire_protocols = (DebugProbe.Protocol.DEFAULT, DebugProbe.Protocol.SWD)
    capabilities = frozenset(
        {
            DebugProbe.Capability.MANAGED_AP_SELECTION,
            DebugProbe.Capability.MANAGED_DPBANKSEL,
            DebugProbe.Capability.BANKED_DP_REGISTERS,
        }
    )

    @classmethod
    def get_all_connected_probes(cls, unique_id=None, is_explicit=False):
        return [cls()]

    def open(self):
        self.is_open = True
        self.core.events.append("open")

    def close(self):
        self.is_open = False
        self.core.events.append("close")

    def connect(self, protocol=None):
        self.wire_protocol = DebugProbe.Protocol.SWD
        self.core.events.append("connect under reset" if self.core.in_reset else "connect")

    def disconnect(self):
        self.wire_protocol = None
        self.core.events.append("disconnect")

    def set_clock(self, frequency):
        pass

    def reset(self):
        self.assert_reset(True)
        self.assert_reset(False)

    def assert_reset(self, asserted):
        self.core.nrst(asserted)

    def is_reset_asserted(self):
        return self.core.in_reset

    def flush(self):
        pass

    def read_dp(self, address, now=True):
        value = {0x0: 0x5BA0_2477, 0x4: 0xF000_0040}.get(address, 0)  # DPIDR; powered up
        return value if now else lambda: value

    def write_dp(self, address, data):
        pass

    def read_ap(self, address, now=True):
        registers = {0xFC: 0x7477_0001, 0xF8: ROM_TABLE | 3, 0x00: 0x2300_0040}  # IDR, BASE, CSW
        value = registers.get(address & 0xFF, 0) if address >> 24 == 0 else 0
        return value if now else lambda: value

    def write_ap(self, address, data):
        pass

    def get_memory_interface_for_ap(self, ap_address):
        return Memory(self.core)
