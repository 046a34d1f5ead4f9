/* Runs parts of the Linux agent on a made-up machine: a test's folder stands for /sys, /proc/sys and /dev, and files in
 * it for GPIO chips and a Raspberry Pi's mailbox. The linker puts the functions below in the place of the C library's
 * (-Wl,--wrap), so that the agent's own objects are what runs.
 *
 *   runner ROOT state CPU | pin CORE | trigger LABEL|- LINE | cycles CORE | port ATTEMPTS stay|leave|empty
 *
 * ROOT/dev/gpiochipN holds the chip's label, how many lines it has and which of them is taken; ROOT/dev/vcio the flags
 * in hexadecimal; ROOT/cycles the counter's successive readings; ROOT/dev/port what comes over the port until it hangs
 * up, after which its path is missing, or the port hangs up at once (empty), for so many attempts to open it. What the
 * agent does to the world is printed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "linux/clock.h"
#include "linux/core.h"
#include "linux/gpio_trigger.h"
#include "linux/host_state.h"
#include "linux/tty.h"
#include "runtime/board.h"
#include "runtime/timer.h"
#include "runtime/trigger.h"

board_t board = {.timer_name = "clock_monotonic_raw", .timer_hz = 1000000000, .timer_bits = 64};

static const char *root;
static FILE *cycles;
static int sleeps, bad_attempts;
static bool empty_meanwhile;
static long slept_ms;

static const char *made_up(const char *path, char *place, size_t size) {
    const bool ours = !strncmp(path, "/sys/", 5) || !strncmp(path, "/proc/sys/", 10) || !strncmp(path, "/dev/", 5);
    snprintf(place, size, "%s%s", ours ? root : "", path);
    return place;
}

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode) {
    char place[512];
    return __real_fopen(made_up(path, place, sizeof(place)), mode);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    char place[512];
    return __real_open(made_up(path, place, sizeof(place)), flags);
}

static int chip_ioctl(const char *content, unsigned long request, void *argument) {
    struct gpiochip_info *info = argument;
    struct gpio_v2_line_request *line = argument;
    char label[GPIO_MAX_NAME_SIZE];
    unsigned lines, taken;
    if (sscanf(content, "%31s %u %u", label, &lines, &taken) != 3) {
        errno = ENOTTY;
        return -1;
    }
    if (request == GPIO_GET_CHIPINFO_IOCTL) {
        snprintf(info->label, sizeof(info->label), "%s", label);
        info->lines = lines;
        return 0;
    }
    if (request != GPIO_V2_GET_LINE_IOCTL || line->num_lines != 1 || line->offsets[0] == taken) {
        errno = request != GPIO_V2_GET_LINE_IOCTL ? ENOTTY : EBUSY;
        return -1;
    }
    printf("%s line %u %s for %s\n", label, line->offsets[0],
           line->config.flags == GPIO_V2_LINE_FLAG_OUTPUT ? "output" : "?", line->consumer);
    line->fd = __real_open("/dev/null", O_RDWR);
    return 0;
}

int __wrap_ioctl(int handle, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == GPIO_V2_LINE_SET_VALUES_IOCTL) {
        const struct gpio_v2_line_values *values = argument;
        printf("%s\n", values->mask != 1 ? "?" : values->bits & 1 ? "high" : "low");
        return 0;
    }
    char content[64] = "";
    if (pread(handle, content, sizeof(content) - 1, 0) <= 0) {
        errno = ENOTTY;
        return -1;
    }
    if (request != _IOWR(100, 0, char *))
        return chip_ioctl(content, request, argument);
    /* A message to the firmware: its bytes, a request, one tag of 4 bytes that clears nothing, the end. */
    uint32_t *message = argument;
    const uint32_t wanted[] = {28, 0, 0x00030046, 4, 0, 0, 0};
    if (memcmp(message, wanted, sizeof(wanted)) != 0)
        return -1;
    message[1] = UINT32_C(0x80000000);
    message[5] = (uint32_t)strtoul(content, NULL, 16);
    return 0;
}

int __wrap_sched_setaffinity(pid_t process, size_t size, const cpu_set_t *set) {
    (void)process;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET_S(i, size, set))
            printf("pinned to %d\n", i);
    return 0;
}

/* A counter that can be read only: nothing is mapped of a pipe. */
long __wrap_syscall(long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    const struct perf_event_attr *attributes = va_arg(arguments, const struct perf_event_attr *);
    va_end(arguments);
    int ends[2];
    unsigned long long reading;
    if (number != SYS_perf_event_open || cycles == NULL || pipe(ends) != 0) {
        errno = ENOENT;
        return -1;
    }
    printf("event %llu, kernel %s\n", (unsigned long long)attributes->config,
           attributes->exclude_kernel ? "left out" : "counted");
    while (fscanf(cycles, "%llu", &reading) == 1)
        if (write(ends[1], &reading, sizeof(reading)) != sizeof(reading))
            return -1;
    close(ends[1]);
    return ends[0];
}

/* Time passes at once, and the port's path goes and comes back meanwhile. */
int __wrap_nanosleep(const struct timespec *time, struct timespec *rest) {
    char port[512], away[512];
    (void)rest;
    made_up("/dev/port", port, sizeof(port));
    made_up("/dev/away", away, sizeof(away));
    if (sleeps == 0)
        rename(port, away);
    if (sleeps == 0 && empty_meanwhile)
        close(creat(port, 0600));
    if (sleeps == bad_attempts)
        rename(away, port);
    sleeps++;
    slept_ms += time->tv_sec * 1000 + time->tv_nsec / 1000000;
    return 0;
}

static void print_state(int cpu) {
    machine_state_t state = {0};
    host_state(cpu, &state);
    core_sharing(cpu, state.scheduling, sizeof(state.scheduling));
    printf("%s|%u|%u|%s%x|%s\n", state.governor, state.frequency_khz, state.temperature_millikelvin,
           state.throttled_known ? "" : "?", state.throttled, state.scheduling);
}

static void drive_trigger(const char *label, uint32_t line) {
    char text[256];
    if (!gpio_trigger_open(strcmp(label, "-") ? label : NULL, line, text, sizeof(text))) {
        printf("no: %s\n", text);
        return;
    }
    trigger_set(false);
    trigger_set(true);
    trigger_set(true);
    trigger_set(false);
    gpio_trigger_name(text, sizeof(text));
    printf("%s\n", text);
}

static void count_cycles(int core) {
    char why[128], path[512];
    snprintf(path, sizeof(path), "%s/cycles", root);
    cycles = __real_fopen(path, "r");
    if (!clock_use_cycles(core, why, sizeof(why)))
        printf("no: %s\n", why);
    const uint64_t first = timer_now(), second = timer_now(), third = timer_now();
    printf("%s %u\n", board.timer_name, board.timer_hz);
    if (board.timer_hz != 1000000000)
        printf("%llu %llu %llu\n", (unsigned long long)first, (unsigned long long)second, (unsigned long long)third);
}

static void receive_over_a_hang_up(int attempts, const char *how) {
    bad_attempts = attempts;
    empty_meanwhile = strcmp(how, "empty") == 0;
    tty_open("/dev/port", 0, strcmp(how, "stay") == 0);
    const int before = board_receive(), after = board_receive();
    printf("%c, %c after %ld ms\n", before, after, slept_ms);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    root = argv[1];
    const int number = atoi(argv[3]);
    if (strcmp(argv[2], "state") == 0)
        print_state(number);
    else if (strcmp(argv[2], "pin") == 0)
        printf("%d\n", core_pin(number));
    else if (strcmp(argv[2], "trigger") == 0 && argc == 5)
        drive_trigger(argv[3], (uint32_t)atoi(argv[4]));
    else if (strcmp(argv[2], "cycles") == 0)
        count_cycles(number);
    else if (strcmp(argv[2], "port") == 0 && argc == 5)
        receive_over_a_hang_up(number, argv[4]);
    else
        return 2;
    return 0;
}
