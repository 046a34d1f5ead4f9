#include "host_state.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sysfs.h"

enum { MOST_SENSORS = 32, ZERO_CELSIUS_MILLIKELVIN = 273150 };

uint32_t host_frequency_khz(int cpu) {
    /* The first is what the hardware says, where root may ask it; the second what was last asked of the hardware. */
    static const char *const names[] = {"cpuinfo_cur_freq", "scaling_cur_freq"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const long long khz = sysfs_number(10, 0, "/sys/devices/system/cpu/cpu%d/cpufreq/%s", cpu, names[i]);
        if (khz > 0 && khz <= UINT32_MAX)
            return (uint32_t)khz;
    }
    return 0;
}

static uint32_t hottest_millikelvin(void) {
    long long hottest = -ZERO_CELSIUS_MILLIKELVIN;
    for (int zone = 0; zone < MOST_SENSORS; zone++) {
        const long long celsius =
            sysfs_number(10, -ZERO_CELSIUS_MILLIKELVIN, "/sys/class/thermal/thermal_zone%d/temp", zone);
        hottest = celsius > hottest ? celsius : hottest;
    }
    return (uint32_t)(hottest + ZERO_CELSIUS_MILLIKELVIN);
}

/* Asks a Raspberry Pi's firmware, as `vcgencmd get_throttled` does, through its mailbox's property interface: lengths
 * in bytes, a request code that the answer replaces, one tag with its value, the end. */
static bool throttled_by_firmware(uint32_t *flags) {
    enum { GET_THROTTLED = 0x00030046, VALUE = 5, WORDS = 7 };
    uint32_t message[WORDS] = {WORDS * 4, 0, GET_THROTTLED, 4, 0, 0 /* flags to clear: none */, 0};
    const int mailbox = open("/dev/vcio", O_RDONLY | O_CLOEXEC);
    if (mailbox < 0)
        return false;
    const bool answered = ioctl(mailbox, _IOWR(100, 0, char *), message) >= 0 && message[1] == UINT32_C(0x80000000);
    close(mailbox);
    *flags = message[VALUE];
    return answered;
}

/* Where the kernel shows the firmware's flags in sysfs, in hexadecimal. */
static bool throttled_in_sysfs(uint32_t *flags) {
    const long long number = sysfs_number(16, -1, "/sys/devices/platform/soc/soc:firmware/get_throttled");
    *flags = number < 0 ? 0 : (uint32_t)number;
    return number >= 0;
}

void host_state(int cpu, machine_state_t *state) {
    sysfs_line(state->governor, sizeof(state->governor), "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpu);
    state->frequency_khz = host_frequency_khz(cpu);
    state->temperature_millikelvin = hottest_millikelvin();
    state->throttled_known = throttled_by_firmware(&state->throttled) || throttled_in_sysfs(&state->throttled);
}
