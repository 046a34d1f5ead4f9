/* A plugin for QEMU that writes down every change of the trigger pin: for an emulated energy meter.
 *
 *     qemu-system-arm ... -plugin libtrigger_edges.so,trigger=0x40020018,code=0x8001000-0x8001040,out=FILE
 *
 * Each write to the register `trigger` by an instruction within `code` (the function that sets the pin: to look at
 * every store of the firmware would cost half of the emulator's speed) appends a line to FILE: instructions executed
 * and loads and stores made since the emulator started, both before the write. What is written this version of QEMU's
 * interface does not tell; the firmware writes only changes, so that rises and falls take turns, a rise first. */
#include "qemu_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT extern const int qemu_plugin_version;
const int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

static uint64_t instructions, accesses;
static uint64_t trigger, code_start, code_end;
static FILE *file;

static void written(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data) {
    (void)cpu, (void)info, (void)data;
    if (address == trigger) {
        fprintf(file, "%llu %llu\n", (unsigned long long)instructions, (unsigned long long)accesses);
        fflush(file);
    }
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    const size_t n = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint64_t address = qemu_plugin_insn_vaddr(insn);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &instructions, 1);
        qemu_plugin_register_vcpu_mem_inline(insn, QEMU_PLUGIN_MEM_RW, QEMU_PLUGIN_INLINE_ADD_U64, &accesses, 1);
        if (address >= code_start && address < code_end) {
            qemu_plugin_register_vcpu_mem_cb(insn, written, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W, NULL);
        }
    }
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "trigger=", 8) == 0) {
            trigger = strtoull(argv[i] + 8, NULL, 0);
        } else if (strncmp(argv[i], "code=", 5) == 0) {
            char *dash;
            code_start = strtoull(argv[i] + 5, &dash, 0);
            code_end = *dash == '-' ? strtoull(dash + 1, NULL, 0) : 0;
        } else if (strncmp(argv[i], "out=", 4) == 0) {
            file = fopen(argv[i] + 4, "a");
        }
    }
    if (trigger == 0 || code_end <= code_start || file == NULL) {
        fprintf(stderr, "trigger_edges: wants trigger=ADDRESS, code=FIRST-END and out=FILE\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
