/* Runs ops read from stdin and writes their buffers to stdout: test_kernels.py's cases on a machine that this one only
 * emulates. All numbers are little-endian words: kind, pass, dtype, variant, count of geometry values, the values; k,
 * axis, bias, optimizer, whether a channel list follows, the list (a word each); the quantisation's values; four floats
 * of constants; count of buffers, then bytes and contents of each. Answers: 1 and all buffers' contents, or another word and nothing more:
 * 0 not a valid op, 2 a guard was overwritten. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#ifndef GUARD_WORDS /* 0 where a sanitizer watches over the ends of buffers */
#define GUARD_WORDS 16
#endif
#define GUARD_BYTES (4 * GUARD_WORDS)
static const uint32_t guard = 0x7fc0deadu;

static uint32_t word(void) {
    uint32_t value;
    if (fread(&value, sizeof value, 1, stdin) != 1) {
        exit(0);
    }
    return value;
}

static void answer(uint32_t value) {
    fwrite(&value, sizeof value, 1, stdout);
}

static uint8_t *guarded(uint32_t bytes) {
    uint8_t *memory = malloc(bytes + 2u * GUARD_BYTES);
    for (int i = 0; i < GUARD_WORDS; i++) {
        memcpy(memory + 4 * i, &guard, 4);
        memcpy(memory + GUARD_BYTES + bytes + 4u * (unsigned)i, &guard, 4);
    }
    return memory + GUARD_BYTES;
}

static bool intact(const uint8_t *buffer, uint32_t bytes) {
    for (int i = 0; i < GUARD_WORDS; i++) {
        if (memcmp(buffer - GUARD_BYTES + 4 * i, &guard, 4) != 0 || memcmp(buffer + bytes + 4 * i, &guard, 4) != 0) {
            return false;
        }
    }
    return true;
}

static void run_one(void) {
    static uint16_t channels[65536];
    uint32_t values[OP_MAX_GEOMETRY], bytes[OP_MAX_BUFFERS];
    void *buffers[OP_MAX_BUFFERS + 1];
    op_t op;
    step_constants_t constants;
    memset(&op, 0, sizeof op);
    op.kind = (uint8_t)word();
    op.pass = (uint8_t)word();
    op.dtype = (uint8_t)word();
    op.variant = (uint8_t)word();
    const uint32_t count = word();
    for (uint32_t i = 0; i < count; i++) {
        values[i] = word();
    }
    op.trained.channel_count = (uint16_t)word();
    op.trained.axis = (uint8_t)word();
    op.trained.bias = (uint8_t)word();
    op.trained.optimizer = (uint8_t)word();
    if (word()) {
        for (uint32_t i = 0; i < op.trained.channel_count; i++) {
            channels[i] = (uint16_t)word();
        }
        op.trained.channels = channels;
    }
    int8_t *scalars = (int8_t *)&op.quantization;
    for (int i = 0; i < QUANTIZATION_VALUES; i++) {
        scalars[i] = (int8_t)word();
    }
    uint32_t *fields = (uint32_t *)&constants;
    for (int i = 0; i < 4; i++) {
        fields[i] = word();
    }
    const uint32_t buffer_count = word();
    for (uint32_t i = 0; i < buffer_count; i++) {
        bytes[i] = word();
        buffers[i] = guarded(bytes[i]);
        if (fread(buffers[i], 1, bytes[i], stdin) != bytes[i]) {
            exit(1);
        }
    }
    const kernel_t *kernel = kernel_find(op.kind, op.pass, op.dtype, op.variant);
    bool valid = op_set_geometry(&op, values, count) && op_valid(&op) && kernel != NULL;
    bool whole = true;
    if (valid) {
        const uint32_t scratch = kernel->scratch_bytes(&op);
        buffers[buffer_count] = guarded(scratch);
        kernel->run(&op, buffers, &constants);
        whole = intact(buffers[buffer_count], scratch);
        for (uint32_t i = 0; i < buffer_count; i++) {
            whole = whole && intact(buffers[i], bytes[i]);
        }
        free((uint8_t *)buffers[buffer_count] - GUARD_BYTES);
    }
    answer(!valid ? 0 : whole ? 1 : 2);
    for (uint32_t i = 0; i < buffer_count; i++) {
        if (valid && whole) {
            fwrite(buffers[i], 1, bytes[i], stdout);
        }
        free((uint8_t *)buffers[i] - GUARD_BYTES);
    }
    fflush(stdout);
}

int main(void) {
    for (;;) {
        run_one();
    }
}
