#include "flight_recorder.h"

#include <stddef.h>
#include <string.h>

#define MAGIC 0xF11647ECu

typedef struct {
    uint32_t magic;
    uint32_t cause, register_count;
    uint32_t registers[RESET_MAX_REGISTERS];
    uint32_t check; /* over all words before it */
} note_t;

__attribute__((section(".noinit"))) static volatile uint32_t running_word;
__attribute__((section(".noinit"))) static note_t note;

/* FNV-1a, a word at a time. */
static uint32_t check_value(const note_t *of) {
    const uint32_t *words = (const uint32_t *)(const void *)of;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < offsetof(note_t, check) / sizeof *words; i++)
        hash = (hash ^ words[i]) * 16777619u;
    return hash;
}

/* The number and its complement. */
void flight_recorder_running(uint16_t number) {
    running_word = (uint32_t)number << 16 | (uint16_t)~number;
}

static bool running_valid(uint32_t word) {
    return (word >> 16 ^ (word & 0xFFFFu)) == 0xFFFFu;
}

void flight_recorder_note(enum reset_cause cause, const uint32_t *registers) {
    note = (note_t){.magic = MAGIC, .cause = cause};
    if (registers != NULL) {
        note.register_count = RESET_MAX_REGISTERS;
        memcpy(note.registers, registers, sizeof note.registers);
    }
    note.check = check_value(&note);
    __asm__ volatile("" ::: "memory"); /* the reset that follows is no reader that the compiler knows of */
}

void flight_recorder_recall(enum reset_cause hardware) {
    const uint32_t word = running_word;
    const bool noted = note.magic == MAGIC && note.check == check_value(&note);
    reset_record_t *reset = &board.reset;
    *reset = (reset_record_t){.cause = (uint8_t)hardware};
    if (hardware != RESET_POWER && running_valid(word))
        reset->running = (uint16_t)(word >> 16);
    if (noted && (hardware == RESET_UNKNOWN || hardware == RESET_SOFTWARE)) {
        reset->cause = (uint8_t)note.cause;
        reset->register_count = (uint8_t)note.register_count;
        memcpy(reset->registers, note.registers, sizeof reset->registers);
    } else if (hardware == RESET_UNKNOWN) {
        /* A part that keeps no flags: what a life before has left tells a reset from power that came back. */
        reset->cause = running_valid(word) ? RESET_SOFTWARE : RESET_POWER;
    }
    note.magic = 0;
    flight_recorder_running(0);
}
