/* The state of the core in which ops begin. */
#ifndef LINUX_SETTLE_H
#define LINUX_SETTLE_H

/* Brings the core to the frequency that it has while it multiplies with its widest vectors, and waits, some
 * milliseconds at most, for a moment in which nothing else runs on its other thread. Returns at once where the core was
 * so a moment ago, and on cores without such states, but for a hundred cycles or less, by chance. */
void settle(void);

#endif
