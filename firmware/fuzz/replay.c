/* Runs a target over files and folders of inputs, for compilers without libFuzzer. Prints how many there were. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "target.h"

enum { PATH_BYTES = 4096 };

static unsigned long inputs;

static int replay_file(const char *path, size_t size) {
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size ? size : 1); /* of exact size: the sanitizer sees an overrun */
    if (file == NULL || data == NULL || fread(data, 1, size, file) != size) {
        fprintf(stderr, "cannot read %s\n", path);
        return 1;
    }
    fclose(file);
    /* Seen only when a sanitizer or a check ends the process here. */
    fprintf(stderr, "\r%s", path);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    inputs++;
    return 0;
}

static int replay(const char *path) {
    struct stat status;
    if (stat(path, &status) != 0) {
        fprintf(stderr, "no %s\n", path);
        return 1;
    }
    if (!S_ISDIR(status.st_mode))
        return replay_file(path, (size_t)status.st_size);
    DIR *folder = opendir(path);
    int failed = folder == NULL;
    for (struct dirent *entry; !failed && (entry = readdir(folder)) != NULL;) {
        char inside[PATH_BYTES];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
        failed = replay(inside);
    }
    if (folder != NULL)
        closedir(folder);
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc && !failed; i++)
        failed = replay(argv[i]);
    fprintf(stderr, "\n");
    printf("%lu\n", inputs);
    return failed;
}
