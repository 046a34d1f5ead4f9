#include "clock.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "host_state.h"
#include "runtime/timer.h"
#include "sysfs.h"

#define NO_COUNTER (-1)

static int counter = NO_COUNTER;
/* The kernel's description of the counter, which says whether and where this process may read it itself. */
static volatile struct perf_event_mmap_page *page;

/* Hardware counter `index` as perf's page numbers them, from 0 on. True where this code can read it. */
static inline bool read_hardware(uint32_t index, uint64_t *value) {
#if defined(__aarch64__)
    const uint32_t cycle_counter = 31;
    if (index != cycle_counter)
        return false;
    __asm__ volatile("isb\n\tmrs %0, PMCCNTR_EL0" : "=r"(*value)::"memory");
    return true;
#elif defined(__x86_64__)
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdpmc" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    *value = (uint64_t)high << 32 | low;
    return true;
#else
    (void)index;
    (void)value;
    return false;
#endif
}

/* Without the kernel's help, which would take longer than small ops do. The kernel changes the page only while this
 * process does not run, and counts that up in `lock`. */
static inline bool read_page(uint64_t *cycles) {
    uint32_t lock;
    do {
        uint64_t value;
        lock = page->lock;
        timer_barrier();
        const uint32_t index = page->index, width = page->pmc_width;
        const int64_t offset = page->offset;
        if (!page->cap_user_rdpmc || index == 0 || !read_hardware(index - 1, &value))
            return false;
        const int64_t extended = (int64_t)(value << (64 - width)) >> (64 - width);
        *cycles = (uint64_t)(offset + extended);
        timer_barrier();
    } while (page->lock != lock);
    return true;
}

static uint64_t cycles_now(void) {
    uint64_t cycles = 0;
    if (page == NULL || !read_page(&cycles))
        if (read(counter, &cycles, sizeof(cycles)) != sizeof(cycles))
            return 0; /* the counter was taken away: timer_advances() finds that out before the next run */
    return cycles;
}

static int open_counter(uint64_t config1) {
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof(attributes),
        .config = PERF_COUNT_HW_CPU_CYCLES,
        .config1 = config1,
        .pinned = 1, /* never shared by turns: a share would be an estimate */
        .exclude_kernel = 1,
        .exclude_hv = 1,
    };
    return (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* Whether the core's frequency stays what it is now. */
static bool frequency_stays(int core) {
    static const char format[] = "/sys/devices/system/cpu/cpu%d/cpufreq/%s";
    char governor[17];
    sysfs_line(governor, sizeof(governor), format, core, "scaling_governor");
    const long long least = sysfs_number(10, 0, format, core, "scaling_min_freq");
    return strcmp(governor, "performance") == 0 ||
           (least > 0 && least == sysfs_number(10, 0, format, core, "scaling_max_freq"));
}

bool clock_use_cycles(int core, char *why, size_t why_bytes) {
    const uint32_t khz = host_frequency_khz(core);
    if (khz == 0 || khz > UINT32_MAX / 1000) {
        snprintf(why, why_bytes, "the frequency of core %d is not known", core);
        return false;
    }
    if (!frequency_stays(core)) {
        snprintf(why, why_bytes, "the frequency of core %d changes; set its governor to performance", core);
        return false;
    }
#if defined(__aarch64__)
    const uint64_t user_access = 3; /* 64 bits wide, and read from here; sysctl kernel.perf_user_access permits that */
#else
    const uint64_t user_access = 0;
#endif
    counter = open_counter(user_access);
    if (counter < 0 && user_access != 0)
        counter = open_counter(0);
    if (counter < 0) {
        counter = NO_COUNTER;
        snprintf(why, why_bytes, "the kernel gives no cycle counter: %s",
                 errno == ENOENT ? "there is none, as in most virtual machines" : strerror(errno));
        return false;
    }
    void *mapped = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, counter, 0);
    page = mapped == MAP_FAILED ? NULL : mapped;
    board.timer_name = "perf_cycles";
    board.timer_hz = khz * 1000;
    return true;
}

/* Both count all the time. */
void timer_start(void) {
}

void timer_stop(void) {
}

uint64_t timer_now(void) {
    struct timespec now;
    if (counter != NO_COUNTER)
        return cycles_now();
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
