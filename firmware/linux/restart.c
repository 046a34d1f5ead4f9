#include "restart.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "runtime/board.h"
#include "runtime/trigger.h"
#include "settle.h"
#include "tty.h"

/* The note crosses execve() in the environment: cause, entry, number of registers and these, in hexadecimal. */
#define NOTE "PROFILER_AGENT_RESET"
#define NOTE_VALUES (3 + RESET_MAX_REGISTERS)
#define NANOSECONDS UINT64_C(1000000000)

extern char **environ;

static char **arguments;
static char note[sizeof NOTE + 1 + NOTE_VALUES * 9];
static volatile uint16_t running;
static volatile uint64_t deadline_ns;
static volatile sig_atomic_t timer_pending;
static bool watched;
static timer_t timer;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

void restart_recall(void) {
    sigset_t all;
    unsigned long values[NOTE_VALUES] = {0};
    const char *text = getenv(NOTE);
    /* A handler that called execve() leaves its signal blocked. */
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    if (text == NULL)
        return;
    for (unsigned i = 0; i < NOTE_VALUES; i++) {
        char *end;
        values[i] = strtoul(text, &end, 16);
        text = end;
    }
    board.reset = (reset_record_t){.cause = (uint8_t)values[0], .running = (uint16_t)values[1]};
    board.reset.register_count = (uint8_t)(values[2] <= RESET_MAX_REGISTERS ? values[2] : 0);
    for (unsigned i = 0; i < board.reset.register_count; i++)
        board.reset.registers[i] = (uint32_t)values[3 + i];
    unsetenv(NOTE);
}

/* This and the next: safe in a signal handler. */
static char *append_hex(char *to, uint32_t value) {
    *to++ = ' ';
    for (int shift = 28; shift >= 0; shift -= 4)
        *to++ = "0123456789abcdef"[value >> shift & 15];
    *to = 0;
    return to;
}

/* Returns only where the program cannot be started again. */
static void restart(enum reset_cause cause, const uint32_t *registers, uint32_t count) {
    static char *environment[256];
    size_t kept = 0;
    char *end = note + sizeof NOTE;
    memcpy(note, NOTE "=", sizeof NOTE);
    end = append_hex(end, cause);
    end = append_hex(end, running);
    end = append_hex(end, count);
    for (uint32_t i = 0; i < count; i++)
        end = append_hex(end, registers[i]);
    for (char **variable = environ; *variable != NULL && kept < sizeof environment / sizeof environment[0] - 2;
         variable++)
        environment[kept++] = *variable;
    environment[kept++] = note;
    environment[kept] = NULL;
    trigger_set(false);
    tty_restore();
    execve("/proc/self/exe", arguments, environment);
}

static uintptr_t program_counter(const ucontext_t *context) {
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.pc;
#else
    (void)context;
    return 0;
#endif
}

static void on_fault(int number, siginfo_t *info, void *context) {
    const uint64_t address = (uintptr_t)info->si_addr, counter = program_counter(context);
    const uint32_t registers[] = {(uint32_t)number,          (uint32_t)info->si_code, (uint32_t)address,
                                  (uint32_t)(address >> 32), (uint32_t)counter,       (uint32_t)(counter >> 32)};
    restart(RESET_FAULT, registers, sizeof registers / sizeof registers[0]);
    signal(number, SIG_DFL); /* then as any program: it ends on the way back */
}

static void set_timer(uint64_t nanoseconds) {
    const struct itimerspec once = {
        .it_value = {(time_t)(nanoseconds / NANOSECONDS), (long)(nanoseconds % NANOSECONDS)}};
    timer_settime(timer, 0, &once, NULL);
    timer_pending = 1;
}

/* The timer is not set anew at every border, which would cost each op a system call: when it expires, it looks how long
 * the present op may still take. */
static void on_alarm(int number) {
    const uint64_t now = now_ns();
    (void)number;
    timer_pending = 0;
    if (running == 0)
        return;
    if (now < deadline_ns) {
        set_timer(deadline_ns - now);
        return;
    }
    restart(RESET_WATCHDOG, NULL, 0);
    _exit(1);
}

void restart_arm(char **argv, uint32_t watchdog_s) {
    static uint8_t stack[64 * 1024]; /* of its own: a fault may mean that there is none left */
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const struct sigaction alarm = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    arguments = argv;
    sigaltstack(&alternate, NULL);
#if !defined(__SANITIZE_ADDRESS__) /* whose report would be lost */
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &fault, NULL);
#endif
    (void)fault;
    sigaction(SIGALRM, &alarm, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    watched = watchdog_s != 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
    board.watchdog_ms = watched ? watchdog_s * 1000 : 0;
}

void board_running(uint16_t number) {
    if (number != 0)
        settle();
    running = 0; /* while the deadline changes */
    if (watched && number != 0) {
        deadline_ns = now_ns() + (uint64_t)board.watchdog_ms * 1000000;
        if (!timer_pending)
            set_timer((uint64_t)board.watchdog_ms * 1000000);
    }
    running = number;
}
