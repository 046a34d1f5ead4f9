#include "host_info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "runtime/prng.h"
#include "sysfs.h"

/* The value of the first "key : value" line of /proc/cpuinfo. */
static bool cpuinfo(const char *key, char *value, size_t size) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        char *colon = strchr(line, ':');
        found = strncmp(line, key, strlen(key)) == 0 && colon != NULL;
        if (found) {
            colon += 1 + strspn(colon + 1, " ");
            colon[strcspn(colon, "\n")] = 0;
            snprintf(value, size, "%s", colon);
        }
    }
    if (file != NULL)
        fclose(file);
    return found;
}

#if defined(__aarch64__)
/* Part numbers of Arm's own cores (Main ID Register, implementer 0x41): those of the Raspberry Pi. */
static const char *arm_core(uint32_t part) {
    switch (part) {
    case 0xd03:
        return "Cortex-A53";
    case 0xd07:
        return "Cortex-A57";
    case 0xd08:
        return "Cortex-A72";
    case 0xd0b:
        return "Cortex-A76";
    default:
        return NULL;
    }
}

/* The Main ID Register, which Linux lets programs read; 0 where it does not. */
static uint64_t main_id(void) {
    uint64_t midr = 0;
    if (getauxval(AT_HWCAP) & HWCAP_CPUID)
        __asm__("mrs %0, MIDR_EL1" : "=r"(midr));
    return midr;
}

bool host_is_translated(void) {
    return main_id() >> 24 == 0; /* reserved for software; what QEMU's user mode shows */
}

void host_core(char *text, size_t size) {
    /* Under user-mode emulation /proc/cpuinfo shows the host's CPU. */
    const uint64_t midr = main_id();
    const uint32_t part = (uint32_t)(midr >> 4 & 0xfff);
    const char *name = midr >> 24 == 0x41 ? arm_core(part) : NULL;
    if (name != NULL)
        snprintf(text, size, "%s", name);
    else if (host_is_translated())
        snprintf(text, size, "QEMU user mode");
    else
        snprintf(text, size, "ARM %02x part %03x", (unsigned)(midr >> 24), (unsigned)part);
}
#else
bool host_is_translated(void) {
    return false; /* as far as the registers tell */
}

static void remove_all(char *text, const char *mark) {
    char *found;
    while ((found = strstr(text, mark)) != NULL)
        memmove(found, found + strlen(mark), strlen(found + strlen(mark)) + 1);
}

void host_core(char *text, size_t size) {
    char name[128];
    if (!cpuinfo("model name", name, sizeof(name)) || name[0] == 0)
        snprintf(name, sizeof(name), "unknown");
    remove_all(name, "(R)");
    remove_all(name, "(TM)");
    snprintf(text, size, "%s", name);
}
#endif

void host_caches(int cpu, char *text, size_t size) {
    size_t length = 0;
    text[0] = 0;
    for (int index = 0; index < 8; index++) {
        char level[16], type[32], bytes[32];
        const char *const names[] = {"level", "type", "size"};
        char *const values[] = {level, type, bytes};
        const size_t sizes[] = {sizeof(level), sizeof(type), sizeof(bytes)};
        for (int i = 0; i < 3; i++) {
            if (!sysfs_line(values[i], sizes[i], "/sys/devices/system/cpu/cpu%d/cache/index%d/%s", cpu, index,
                            names[i]))
                return;
        }
        const char *suffix = type[0] == 'D' ? "d" : type[0] == 'I' ? "i" : "";
        length +=
            (size_t)snprintf(text + length, size - length, "%sL%s%s %s", length ? ", " : "", level, suffix, bytes);
        if (length >= size)
            return;
    }
}

uint32_t host_clock_hz(int cpu) {
    char text[64];
    double hz = (double)sysfs_number(10, 0, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", cpu) * 1e3;
    if (hz <= 0 && cpuinfo("cpu MHz", text, sizeof(text)))
        hz = atof(text) * 1e6;
    return hz >= UINT32_MAX ? UINT32_MAX : (uint32_t)hz;
}

uint8_t host_unique_id(uint8_t id[16]) {
    char text[64];
    if (!sysfs_line(text, sizeof(text), "/etc/machine-id"))
        return 0;
    for (uint32_t word = 0; word < 4; word++) {
        uint32_t state = prng_mix(word + 1);
        for (const char *c = text; *c; c++)
            state = prng_mix(state ^ (uint8_t)*c);
        memcpy(id + 4 * word, &state, 4);
    }
    return 16;
}
