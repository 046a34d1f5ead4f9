/* A plugin for QEMU that counts how often every instruction of a window was executed, and how often control did not go
 * on behind it. A window lies between two writes to the trigger pin's register, so that the last one of a program with
 * one timed op holds that op.
 *
 *     qemu-system-arm ... -plugin libinstruction_counts.so,trigger=0x40020018,out=FILE
 *
 * At each write FILE is replaced by a line an instruction: address, executions, jumps from there (hexadecimal, decimal,
 * decimal). QEMU is packaged without its plugin header: the declarations below are those of version 1 of that
 * interface, which QEMU 6.0 and later offer. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W = 2 };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

typedef void (*translated_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*executed_t)(unsigned cpu, void *data);
typedef void (*accessed_t)(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated_t cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, executed_t cb, enum qemu_plugin_cb_flags flags,
                                          void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, enum qemu_plugin_op op, void *at,
                                                uint64_t value);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, accessed_t cb, enum qemu_plugin_cb_flags flags,
                                      enum qemu_plugin_mem_rw rw, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

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
