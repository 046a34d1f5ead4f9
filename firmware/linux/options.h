/* The agent's command line. */
#ifndef LINUX_OPTIONS_H
#define LINUX_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const char *port; /* NULL: standard input and output */
    uint32_t baud;    /* 0: as the terminal has it */
    bool stay;
    int core; /* -1: the agent chooses */
    bool realtime;
    uint32_t arena_mebibytes;
    uint32_t watchdog_s;      /* 0: none */
    bool cycles;              /* the timer */
    int trigger_line;         /* -1: none */
    bool trigger_asked;       /* named on the command line, so that doing without would be wrong */
    const char *trigger_chip; /* NULL: the Raspberry Pi's header */
    const char *trigger_log;  /* NULL: none */
} options_t;

/* Ends the process with the usage where the command line asks for it or makes no sense. */
options_t options_read(int argc, char **argv);

#endif
