#include "tty.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "runtime/board.h"

static const char *tty_path;
static bool tty_stay;
static int input = STDIN_FILENO, output = STDOUT_FILENO;

static uint8_t in_bytes[4096];
static ssize_t in_count, in_next;
static uint8_t out_bytes[4096];
static size_t out_count;

static bool open_path(void) {
    const int tty = open(tty_path, O_RDWR | O_NOCTTY);
    struct termios settings;
    if (tty < 0)
        return false;
    if (tcgetattr(tty, &settings) == 0) { /* a FIFO or socket has no settings, and needs none */
        cfmakeraw(&settings);
        settings.c_cflag |= CLOCAL | CREAD;
        settings.c_cc[VMIN] = 1;
        settings.c_cc[VTIME] = 0;
        tcsetattr(tty, TCSANOW, &settings);
    }
    input = output = tty;
    return true;
}

void tty_open(const char *path, bool stay) {
    signal(SIGPIPE, SIG_IGN);
    tty_path = path;
    tty_stay = stay && path != NULL;
    if (path != NULL && !open_path()) {
        fprintf(stderr, "agent: cannot open %s: %s\n", path, strerror(errno));
        exit(1);
    }
}

/* After a hang-up: waits until the path can be opened again. False: that is not wanted. */
static bool reopened(void) {
    if (!tty_stay)
        return false;
    close(input);
    do /* never at once: a path that hangs up as soon as it is opened would cost a core */
        usleep(200000);
    while (!open_path());
    return true;
}

int board_receive(void) {
    while (in_next == in_count) {
        in_next = 0;
        in_count = read(input, in_bytes, sizeof(in_bytes));
        if (in_count > 0 || (in_count < 0 && errno == EINTR)) {
            in_count = in_count < 0 ? 0 : in_count;
        } else {
            in_count = 0;
            if (!reopened())
                return -1;
        }
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
