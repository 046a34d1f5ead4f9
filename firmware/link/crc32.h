/* CRC-32 as zlib computes it (reflected polynomial 0xEDB88320). */
#ifndef LINK_CRC32_H
#define LINK_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continues from `crc`, the CRC-32 of all bytes so far; 0 to begin with. */
uint32_t crc32_update(uint32_t crc, const uint8_t *bytes, size_t count);

#endif
