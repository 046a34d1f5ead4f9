/* Files of one value or line each, as /sys and /proc have them. */
#ifndef LINUX_SYSFS_H
#define LINUX_SYSFS_H

#include <stdbool.h>
#include <stddef.h>

/* The first line of the file that `format` names, without its newline, cut to `size` - 1 characters. False, and an
 * empty `line`: there is no such file, or nothing in it. */
__attribute__((format(printf, 3, 4))) bool sysfs_line(char *line, size_t size, const char *format, ...);

/* The number that this line is, in `base`; `otherwise` where there is none. */
__attribute__((format(printf, 3, 4))) long long sysfs_number(int base, long long otherwise, const char *format, ...);

#endif
