/* Texts of the identity that are put together from what registers say. */
#ifndef BOARDS_STM32_TEXT_H
#define BOARDS_STM32_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    char characters[65]; /* as much as `caches` takes in messages.cddl, and the end */
} text_t;

/* Appends as much as there is room for. */
static inline void text_append(text_t *text, const char *more) {
    const size_t length = strlen(text->characters);
    const size_t room = sizeof(text->characters) - 1 - length;
    const size_t count = strlen(more) < room ? strlen(more) : room;
    memcpy(text->characters + length, more, count);
    text->characters[length + count] = '\0';
}

static inline void text_append_number(text_t *text, uint32_t value) {
    char digits[11];
    unsigned first = sizeof(digits) - 1;
    digits[first] = '\0';
    do
        digits[--first] = (char)('0' + value % 10);
    while (value /= 10);
    text_append(text, digits + first);
}

/* `name`, and whether it is on. */
static inline void text_append_switch(text_t *text, const char *name, bool on) {
    text_append(text, name);
    text_append(text, on ? " on" : " off");
}

#endif
