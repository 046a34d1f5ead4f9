#include "gpio_trigger.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "runtime/trigger.h"

enum { MOST_CHIPS = 32, NO_LINE = -1 };

/* Of the chip with the header's pins: Raspberry Pi 5; 4, 400 and CM4; 3, Zero 2 and CM3. */
static const char *const header_chips[] = {"pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835"};

static int line_handle = NO_LINE, log_file = -1;
static bool level;
static char name[64];

static bool is_wanted(const char *found, const char *label) {
    if (label != NULL)
        return strcmp(found, label) == 0;
    for (unsigned i = 0; i < sizeof(header_chips) / sizeof(header_chips[0]); i++)
        if (strcmp(found, header_chips[i]) == 0)
            return true;
    return false;
}

/* Opens the chip with the wanted label; NO_LINE: `why` says which labels there were. */
static int open_chip(const char *label, struct gpiochip_info *info, char *why, size_t why_bytes) {
    size_t length = (size_t)snprintf(why, why_bytes, "no GPIO chip is labelled %s",
                                     label != NULL ? label : "as a Raspberry Pi's header");
    const char *separator = "; there are ";
    for (int number = 0; number < MOST_CHIPS; number++) {
        char path[32];
        snprintf(path, sizeof(path), "/dev/gpiochip%d", number);
        const int chip = open(path, O_RDWR | O_CLOEXEC);
        if (chip < 0) {
            if (errno != ENOENT && length < why_bytes)
                length += (size_t)snprintf(why + length, why_bytes - length, "; %s: %s", path, strerror(errno));
            continue;
        }
        memset(info, 0, sizeof(*info));
        if (ioctl(chip, GPIO_GET_CHIPINFO_IOCTL, info) == 0) {
            if (is_wanted(info->label, label))
                return chip;
            if (length < why_bytes)
                length += (size_t)snprintf(why + length, why_bytes - length, "%s%s", separator, info->label);
            separator = ", ";
        }
        close(chip);
    }
    return NO_LINE;
}

bool gpio_trigger_open(const char *label, uint32_t line, char *why, size_t why_bytes) {
    struct gpiochip_info info;
    const int chip = open_chip(label, &info, why, why_bytes);
    if (chip == NO_LINE)
        return false;
    if (line >= info.lines) {
        snprintf(why, why_bytes, "%s has lines 0 to %u, not %u", info.label, info.lines - 1, line);
        close(chip);
        return false;
    }
    struct gpio_v2_line_request request = {
        .offsets = {line},
        .num_lines = 1,
        .consumer = "profiler-agent",
        .config.flags = GPIO_V2_LINE_FLAG_OUTPUT,
    };
    const bool got = ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request) == 0 && request.fd >= 0;
    const int error = errno;
    close(chip);
    if (!got) {
        snprintf(why, why_bytes, "line %u of %s: %s", line, info.label,
                 error == EBUSY ? "another program or driver holds it" : strerror(error));
        return false;
    }
    line_handle = request.fd;
    level = false;
    snprintf(name, sizeof(name), "%s line %u", info.label, line);
    return true;
}

void gpio_trigger_name(char *text, size_t size) {
    snprintf(text, size, "%s", name);
}

bool trigger_log_open(const char *path) {
    log_file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return log_file >= 0;
}

/* "nanoseconds level\n", in one write, without the C library's formatted output: a signal may come in between. */
static void write_to_log(bool high) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    char text[24], *first = text + sizeof(text);
    *--first = '\n';
    *--first = high ? '1' : '0';
    *--first = ' ';
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    do
        *--first = (char)('0' + ns % 10);
    while ((ns /= 10) != 0);
    const ssize_t written = write(log_file, first, (size_t)(text + sizeof(text) - first));
    (void)written; /* there is nobody to tell: whoever reads the file misses an edge */
}

/* Called from a signal handler too: nothing but system calls. */
void trigger_set(bool high) {
    struct gpio_v2_line_values values = {.bits = high, .mask = 1};
    if (high == level) /* a call takes a microsecond or more */
        return;
    level = high;
    if (line_handle != NO_LINE)
        ioctl(line_handle, GPIO_V2_LINE_SET_VALUES_IOCTL, &values);
    if (log_file >= 0)
        write_to_log(high);
}
