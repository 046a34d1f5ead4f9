/* Private: the loop around the unrolled assembly of micro_f32.h and dense_s8.h. */
#ifndef KERNELS_MICRO_RUN_H
#define KERNELS_MICRO_RUN_H

/* Runs `four` while four steps are left, then `one` for each that is: the register n counts them. */
#define MICRO_RUN_IN(n, four, one)                                                                                     \
    "subs " n ", " n ", #4\n\t"                                                                                        \
    "blo 2f\n"                                                                                                         \
    "1:\n\t" four "subs " n ", " n ", #4\n\t"                                                                          \
    "bhs 1b\n"                                                                                                         \
    "2:\n\t"                                                                                                           \
    "adds " n ", " n ", #4\n\t"                                                                                        \
    "beq 4f\n"                                                                                                         \
    "3:\n\t" one "subs " n ", " n ", #1\n\t"                                                                           \
    "bne 3b\n"                                                                                                         \
    "4:\n\t"

#define MICRO_RUN(four, one) MICRO_RUN_IN("%[n]", four, one)

#endif
