/* A file of its own: the kernel's own termios.h and the C library's do not go together. */
#include "baud.h"

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <sys/ioctl.h>

bool baud_set(int tty, uint32_t baud) {
    struct termios2 settings;
    if (ioctl(tty, TCGETS2, &settings) != 0)
        return false;
    settings.c_cflag &= ~(tcflag_t)(CBAUD | CBAUD << IBSHIFT);
    settings.c_cflag |= BOTHER | BOTHER << IBSHIFT;
    settings.c_ispeed = settings.c_ospeed = baud;
    return ioctl(tty, TCSETS2, &settings) == 0;
}

uint32_t baud_get(int tty) {
    struct termios2 settings;
    return ioctl(tty, TCGETS2, &settings) == 0 ? settings.c_ospeed : 0;
}
