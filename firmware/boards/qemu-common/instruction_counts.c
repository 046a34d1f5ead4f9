/* A plugin for QEMU that counts how often every instruction of a window was executed, and how often control did not go
 * on behind it. A window lies between two writes to the trigger pin's register, so that the last one of a program with
 * one timed op holds that op.
 *
 *     qemu-system-arm ... -plugin libinstruction_counts.so,trigger=0x40020018,out=FILE
 *
 * At each write FILE is replaced by a line an instruction: address, executions, jumps from there (hexadecimal, decimal,
 * decimal). */
#include "qemu_plugin.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT extern const int qemu_plugin_version;
const int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

/* Halfwords of code that are told apart; the boards have less. */
#define HALFWORDS (1u << 21)

typedef struct {
    uint64_t address, executions, jumps;
} count_t;

/* A translated block: control stays in it from `start` to its last instruction, and `end` follows that. */
typedef struct {
    uint64_t start, end;
    count_t *last;
} block_t;

static count_t counts[HALFWORDS];
static uint32_t used[HALFWORDS], used_count; /* which of them were ever translated */
static const block_t *current;
static uint64_t last_before; /* executions of its last instruction when it was entered */
static uint64_t trigger;
static char path[4096];

static count_t *count_at(uint64_t address) {
    const uint32_t index = (uint32_t)(address >> 1) % HALFWORDS;
    count_t *count = &counts[index];
    if (count->address == 0) {
        count->address = address;
        used[used_count++] = index;
    } else if (count->address != address) {
        fprintf(stderr, "instruction_counts: code lies more than %u bytes apart\n", 2 * HALFWORDS);
        exit(1);
    }
    return count;
}

static void block_entered(unsigned cpu, void *data) {
    (void)cpu;
    const block_t *block = data;
    /* A block whose last instruction was not reached was broken off at an access to a device, to begin again there. */
    const bool finished = current != NULL && current->last->executions != last_before;
    if (finished && current->end != block->start) {
        current->last->jumps++;
    }
    current = block;
    last_before = block->last->executions;
}

/* Ends a window and begins the next. */
static void written(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data) {
    (void)cpu, (void)info, (void)data;
    if (address != trigger) {
        return;
    }
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    for (uint32_t i = 0; i < used_count; i++) {
        count_t *count = &counts[used[i]];
        if (count->executions != 0) {
            fprintf(file, "%llx %llu %llu\n", (unsigned long long)count->address, (unsigned long long)count->executions,
                    (unsigned long long)count->jumps);
        }
        count->executions = count->jumps = 0;
    }
    fclose(file);
    current = NULL;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    const size_t n = qemu_plugin_tb_n_insns(tb);
    block_t *block = malloc(sizeof *block); /* lives as long as the emulator: the block may be entered at any time */
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        count_t *count = count_at(qemu_plugin_insn_vaddr(insn));
        qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &count->executions, 1);
        qemu_plugin_register_vcpu_mem_cb(insn, written, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W, NULL);
        block->start = i == 0 ? count->address : block->start;
        block->end = count->address + qemu_plugin_insn_size(insn);
        block->last = count;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_entered, QEMU_PLUGIN_CB_NO_REGS, block);
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "trigger=", 8) == 0) {
            trigger = strtoull(argv[i] + 8, NULL, 0);
        } else if (strncmp(argv[i], "out=", 4) == 0) {
            snprintf(path, sizeof path, "%s", argv[i] + 4);
        }
    }
    if (trigger == 0 || path[0] == '\0') {
        fprintf(stderr, "instruction_counts: wants trigger=ADDRESS and out=FILE\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
