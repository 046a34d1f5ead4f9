/* The trigger pin: high while timed entries of repetitions run, for a power analyser or a logic analyser.
 *
 * It rises before the first timed entry of a repetition and falls before anything untimed (the fills of an image) and
 * at the end. So a run without fills in the image section is one window over all its repetitions; one with them has
 * repetitions x image_count windows, the last of each repetition with the entries that run once at its end. In a cold
 * run it is low while caches are emptied: every run of a timed entry is a window of its own. Warm-ups leave it low. The
 * port defines trigger_set(), a single store where the hardware allows; it is called where the level changes only. */
#ifndef RUNTIME_TRIGGER_H
#define RUNTIME_TRIGGER_H

#include <stdbool.h>

void trigger_set(bool high);

#endif
