#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_ARENA_MEBIBYTES = 256,
    DEFAULT_TRIGGER_LINE = 17,
    DEFAULT_WATCHDOG_S = 60,
    MOST_BAUD = 4000000,
    NO_TRIGGER = -1
};

static void usage(FILE *stream) {
    fputs("usage: agent [options] --port DEVICE | --stdio\n"
          "Makes this machine a device that answers on a serial port, USB gadget or pseudo terminal.\n"
          "  --port DEVICE          where to answer: /dev/ttyGS0, /dev/serial0\n"
          "  --baud N               its rate, 1200 to 4000000 (default: as it is)\n"
          "  --stay                 where DEVICE is not there or goes away, wait for it\n"
          "  --stdio                answer on standard input and output instead\n"
          "  --core N               core to run on (default: the last one isolated, else the last one allowed)\n"
          "  --realtime             SCHED_FIFO and locked memory\n"
          "  --timer clock|cycles   nanoseconds (default), or cycles of a core whose frequency stays\n"
          "  --trigger-line N|none  line that is high while timed entries run (default: 17, with --stdio none)\n"
          "  --trigger-chip LABEL   its GPIO chip (default: the one with a Raspberry Pi's header)\n"
          "  --trigger-log FILE     append the trigger's changes: nanoseconds of CLOCK_MONOTONIC_RAW, level\n"
          "  --arena MEBIBYTES      size of the arena region, 1 to 2047 (default: 256)\n"
          "  --watchdog SECONDS     start anew where one op takes longer, 1 to 3600 (default: 60); 0: never\n"
          "example: agent --port /dev/ttyGS0 --stay --realtime\n",
          stream);
}

static _Noreturn void refuse(void) {
    usage(stderr);
    exit(2);
}

/* The number that a whole option value is; anything else ends the process with the usage. */
static int number(const char *text, long smallest, long largest) {
    char *end;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || value < smallest || value > largest) {
        fprintf(stderr, "agent: \"%s\" is no number from %ld to %ld\n", text, smallest, largest);
        refuse();
    }
    return (int)value;
}

static bool is_cycles(const char *timer) {
    if (strcmp(timer, "cycles") == 0 || strcmp(timer, "clock") == 0)
        return timer[1] == 'y';
    fprintf(stderr, "agent: there is no timer \"%s\": clock or cycles\n", timer);
    refuse();
}

options_t options_read(int argc, char **argv) {
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'},
        {"baud", required_argument, NULL, 'b'},
        {"stay", no_argument, NULL, 's'},
        {"stdio", no_argument, NULL, 'i'},
        {"core", required_argument, NULL, 'c'},
        {"realtime", no_argument, NULL, 'r'},
        {"timer", required_argument, NULL, 't'},
        {"trigger-line", required_argument, NULL, 'l'},
        {"trigger-chip", required_argument, NULL, 'g'},
        {"trigger-log", required_argument, NULL, 'f'},
        {"arena", required_argument, NULL, 'a'},
        {"watchdog", required_argument, NULL, 'w'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    options_t options = {.core = -1,
                         .arena_mebibytes = DEFAULT_ARENA_MEBIBYTES,
                         .watchdog_s = DEFAULT_WATCHDOG_S,
                         .trigger_line = NO_TRIGGER};
    bool standard = false, line_given = false;
    int name;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 'p':
            options.port = optarg;
            break;
        case 'b':
            options.baud = (uint32_t)number(optarg, 1200, MOST_BAUD);
            break;
        case 's':
            options.stay = true;
            break;
        case 'i':
            standard = true;
            break;
        case 'c':
            options.core = number(optarg, 0, CPU_SETSIZE - 1);
            break;
        case 'r':
            options.realtime = true;
            break;
        case 't':
            options.cycles = is_cycles(optarg);
            break;
        case 'l':
            line_given = true;
            options.trigger_line = strcmp(optarg, "none") == 0 ? NO_TRIGGER : number(optarg, 0, 63);
            break;
        case 'g':
            options.trigger_chip = optarg;
            break;
        case 'f':
            options.trigger_log = optarg;
            break;
        case 'a':
            options.arena_mebibytes = (uint32_t)number(optarg, 1, 2047);
            break;
        case 'w':
            options.watchdog_s = (uint32_t)number(optarg, 0, 3600);
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            refuse();
        }
    }
    if (optind != argc || (options.port == NULL) != standard)
        refuse();
    /* A pin is driven unasked only where the machine was set up to be a device. */
    if (!line_given && (options.port != NULL || options.trigger_chip != NULL))
        options.trigger_line = DEFAULT_TRIGGER_LINE;
    options.trigger_asked = options.trigger_line != NO_TRIGGER && (line_given || options.trigger_chip != NULL);
    return options;
}
