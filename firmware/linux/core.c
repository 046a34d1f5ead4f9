#include "core.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sysfs.h"

/* Above what Linux runs at 50 by default: threads of interrupts. */
#define PRIORITY 51

static bool taken, locked;

/* The cores of a list such as "2-3,5". */
static bool list_holds(const char *list, int core) {
    while (*list != 0) {
        char *end;
        const long first = strtol(list, &end, 10);
        if (end == list)
            return false;
        long last = first;
        if (*end == '-')
            last = strtol(end + 1, &end, 10);
        if (first <= core && core <= last)
            return true;
        list = *end == ',' ? end + 1 : end + strlen(end);
    }
    return false;
}

static bool isolated(int core) {
    char list[128];
    return sysfs_line(list, sizeof(list), "/sys/devices/system/cpu/isolated") && list_holds(list, core);
}

static int last_isolated(void) {
    char list[128];
    int core = -1;
    if (sysfs_line(list, sizeof(list), "/sys/devices/system/cpu/isolated"))
        for (int i = 0; i < CPU_SETSIZE; i++)
            core = list_holds(list, i) ? i : core;
    return core;
}

static int last_allowed(void) {
    cpu_set_t allowed;
    int core = -1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
        for (int i = 0; i < CPU_SETSIZE; i++)
            core = CPU_ISSET(i, &allowed) ? i : core;
    return core;
}

int core_pin(int core) {
    cpu_set_t wanted;
    if (core < 0)
        core = last_isolated();
    if (core < 0)
        core = last_allowed();
    if (core < 0)
        return 0;
    CPU_ZERO(&wanted);
    CPU_SET(core, &wanted);
    if (sched_setaffinity(0, sizeof(wanted), &wanted) != 0)
        fprintf(stderr, "agent: cannot pin to core %d: %s; timing will scatter more\n", core, strerror(errno));
    return core;
}

void core_take(void) {
    const struct sched_param priority = {.sched_priority = PRIORITY};
    taken = sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
    if (!taken)
        fprintf(stderr, "agent: no real-time priority: %s; CAP_SYS_NICE permits it\n", strerror(errno));
    else if (sysfs_number(10, -1, "/proc/sys/kernel/sched_rt_runtime_us") >= 0)
        fprintf(stderr, "agent: the kernel takes a part of every second from real-time programs, in the middle of what "
                        "they do; sysctl kernel.sched_rt_runtime_us=-1 ends that\n");
    /* On fault: the arena is mapped far larger than most programs reach. */
    locked = mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
    if (!locked)
        fprintf(stderr, "agent: memory is not locked: %s; CAP_IPC_LOCK permits it\n", strerror(errno));
}

void core_sharing(int core, char *text, size_t size) {
    snprintf(text, size, "%s%s%s", isolated(core) ? "isolated" : "shared", taken ? ", SCHED_FIFO" : "",
             locked ? ", locked" : "");
}
