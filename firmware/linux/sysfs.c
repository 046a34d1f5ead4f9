#include "sysfs.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 160 };

static bool read_line(const char *path, char *line, size_t size) {
    FILE *file = fopen(path, "r");
    line[0] = 0;
    if (file == NULL)
        return false;
    const bool got = fgets(line, (int)size, file) != NULL;
    fclose(file);
    line[got ? strcspn(line, "\n") : 0] = 0;
    return line[0] != 0;
}

bool sysfs_line(char *line, size_t size, const char *format, ...) {
    char path[PATH_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof(path), format, arguments);
    va_end(arguments);
    return read_line(path, line, size);
}

long long sysfs_number(int base, long long otherwise, const char *format, ...) {
    char path[PATH_BYTES], line[32], *end;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof(path), format, arguments);
    va_end(arguments);
    if (!read_line(path, line, sizeof(line)))
        return otherwise;
    const long long number = strtoll(line, &end, base);
    return end == line || *end != 0 ? otherwise : number;
}
