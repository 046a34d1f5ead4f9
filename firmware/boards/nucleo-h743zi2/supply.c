#include "cortex_m.h"

/* Confirms the LDO as the supply: it is what the NUCLEO-H743ZI2 is wired for, and the H743 has no other regulator.
 * RM0433: the choice is made once a power-on, and the RAMs may not be written before ACTVOSRDY shows a valid level;
 * hence in registers alone. Dual-core relatives share the device id and this register, but there the same write turns
 * their SMPS off, and a board wired for that has no core voltage from then on: so nothing is written unless the line
 * identifier reads "H743". What is left undone shows in clocks_start(). */
__attribute__((naked)) void board_supply_init(void) {
    __asm__ volatile("ldr r0, =0x1FF1E8C0\n\t" /* line identifier */
                     "ldr r0, [r0]\n\t"
                     "ldr r1, =0x48373433\n\t"
                     "cmp r0, r1\n\t"
                     "bne 2f\n\t"
                     "ldr r0, =0x58024800\n\t" /* PWR */
                     "ldr r1, [r0, #0x0C]\n\t" /* CR3 */
                     "tst r1, #4\n\t"          /* SCUEN: not written yet */
                     "beq 2f\n\t"
                     "bic r1, r1, #5\n\t" /* SCUEN, BYPASS */
                     "orr r1, r1, #2\n\t" /* LDOEN */
                     "str r1, [r0, #0x0C]\n\t"
                     "ldr r2, =100000\n" /* as WAIT_POLLS */
                     "1:\n\t"
                     "ldr r1, [r0, #0x04]\n\t" /* CSR1 */
                     "tst r1, #0x2000\n\t"     /* ACTVOSRDY */
                     "bne 2f\n\t"
                     "subs r2, r2, #1\n\t"
                     "bne 1b\n"
                     "2:\n\t"
                     "bx lr\n\t"
                     ".ltorg");
}
