#include "tty.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/serial.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "baud.h"
#include "runtime/board.h"

/* Between attempts to open the path: one that hangs up as soon as it is opened would cost a core otherwise. */
#define RETRY_MS 200
/* For that long a path may be missing: a gadget that is set up anew is, for a moment. */
#define MISSING_MS 2000

static const char *tty_path;
static uint32_t tty_baud;
static bool tty_stay;
static int input = STDIN_FILENO, output = STDOUT_FILENO;
static struct termios before;
static volatile sig_atomic_t has_before;

static uint32_t overruns_before;

static uint8_t in_bytes[4096];
static ssize_t in_count, in_next;
static uint8_t out_bytes[4096];
static size_t out_count;

static speed_t standard_speed(uint32_t baud) {
    static const struct {
        uint32_t baud;
        speed_t speed;
    } speeds[] = {
        {9600, B9600},       {19200, B19200},     {38400, B38400},     {57600, B57600},     {115200, B115200},
        {230400, B230400},   {460800, B460800},   {500000, B500000},   {576000, B576000},   {921600, B921600},
        {1000000, B1000000}, {1152000, B1152000}, {1500000, B1500000}, {2000000, B2000000}, {2500000, B2500000},
        {3000000, B3000000}, {3500000, B3500000}, {4000000, B4000000},
    };
    for (unsigned i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++)
        if (speeds[i].baud == baud)
            return speeds[i].speed;
    return B0;
}

/* Raw, at tty_baud. False: it would not have the rate, and errno says why; anything else that it is not, a FIFO say,
 * has no settings and needs none. */
static bool set_up(int tty) {
    struct termios settings;
    if (tcgetattr(tty, &settings) != 0)
        return true;
    if (!has_before) {
        before = settings;
        has_before = true;
    }
    cfmakeraw(&settings);
    settings.c_cflag |= CLOCAL | CREAD;
    settings.c_cflag &= ~(tcflag_t)CRTSCTS;
    settings.c_cc[VMIN] = 1;
    settings.c_cc[VTIME] = 0;
    const speed_t speed = standard_speed(tty_baud);
    if (speed != B0)
        cfsetspeed(&settings, speed);
    if (tcsetattr(tty, TCSANOW, &settings) != 0)
        return false;
    return tty_baud == 0 || speed != B0 || baud_set(tty, tty_baud);
}

/* A receiver samples a byte's last bit 9.5 bits after its first edge: it can bear a twentieth of error, shared by both
 * ends. */
static void check_baud(int tty) {
    const uint32_t reached = baud_get(tty);
    if (tty_baud != 0 && reached != 0 && (reached < tty_baud - tty_baud / 40 || reached > tty_baud + tty_baud / 40)) {
        fprintf(stderr, "agent: %s cannot do %u baud, its clock gives %u: choose another rate\n", tty_path, tty_baud,
                reached);
        tty_restore();
        exit(1);
    }
}

/* Bytes that the terminal's receiver and the kernel's buffer behind it have lost so far; 0 where it does not count. */
static uint32_t overruns_so_far(void) {
    struct serial_icounter_struct counts;
    if (ioctl(input, TIOCGICOUNT, &counts) != 0)
        return 0;
    return (uint32_t)counts.overrun + (uint32_t)counts.buf_overrun;
}

uint32_t board_overruns(void) {
    return overruns_so_far() - overruns_before;
}

/* False: errno says why. */
static bool open_path(void) {
    /* Without O_NONBLOCK a serial port may wait for a modem's carrier. */
    const int tty = open(tty_path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (tty < 0)
        return false;
    input = output = tty;
    if (!set_up(tty)) {
        fprintf(stderr, "agent: cannot set %s to %u baud: %s\n", tty_path, tty_baud, strerror(errno));
        tty_restore();
        exit(1);
    }
    check_baud(tty);
    fcntl(tty, F_SETFL, fcntl(tty, F_GETFL) & ~O_NONBLOCK);
    overruns_before = overruns_so_far();
    return true;
}

static void sleep_ms(long milliseconds) {
    const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

void tty_open(const char *path, uint32_t baud, bool stay) {
    signal(SIGPIPE, SIG_IGN);
    tty_path = path;
    tty_baud = baud;
    tty_stay = stay;
    if (open_path())
        return;
    if (!stay) {
        fprintf(stderr, "agent: cannot open %s: %s\n", path, strerror(errno));
        exit(1);
    }
    fprintf(stderr, "agent: waiting for %s: %s\n", path, strerror(errno));
    while (!open_path())
        sleep_ms(RETRY_MS);
}

void tty_use_standard_streams(void) {
    signal(SIGPIPE, SIG_IGN);
}

void tty_restore(void) {
    if (has_before)
        tcsetattr(input, TCSANOW, &before);
}

/* After a hang-up. */
static void reopen(void) {
    close(input);
    in_count = in_next = 0;
    for (long missing_ms = 0;; missing_ms += RETRY_MS) {
        sleep_ms(RETRY_MS);
        if (open_path())
            return;
        if (!tty_stay && missing_ms >= MISSING_MS) {
            fprintf(stderr, "agent: %s is gone: %s\n", tty_path, strerror(errno));
            exit(1);
        }
    }
}

int board_receive(void) {
    while (in_next == in_count) {
        in_next = 0;
        in_count = read(input, in_bytes, sizeof(in_bytes));
        if (in_count > 0)
            break;
        const bool interrupted = in_count < 0 && errno == EINTR;
        in_count = 0;
        if (interrupted)
            continue;
        if (tty_path == NULL)
            return -1;
        reopen();
    }
    return in_bytes[in_next++];
}

static void flush(void) {
    size_t sent = 0;
    while (sent < out_count) {
        const ssize_t count = write(output, out_bytes + sent, out_count - sent);
        if (count < 0 && errno != EINTR)
            break; /* the other side is gone: reading will tell */
        sent += count > 0 ? (size_t)count : 0;
    }
    out_count = 0;
}

/* Collects a frame, which the only zero byte ends, so that it goes out in one write. */
void board_send(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (out_count == sizeof(out_bytes))
            flush();
        out_bytes[out_count++] = bytes[i];
        if (bytes[i] == 0)
            flush();
    }
}
