// Sixteen numbers in memory, fp32 or bf16 and whole or the first few of them, to and from a vector of floats.
#pragma once
#include "vector.h"

typedef uint16_t u16h __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint32_t u16x __attribute__((vector_size(64)));

inline v16 get(const bf16 *p) {
    return (v16)(__builtin_convertvector(*reinterpret_cast<const u16h *>(p), i16x) << 16);
}
inline void put(bf16 *p, v16 x) {
    const u16x bits = (u16x)x;
    // As `store` rounds: to nearest even, a NaN stays one.
    const u16x rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    const u16x chosen = x == x ? rounded : (bits >> 16) | 0x40;
    *reinterpret_cast<u16h *>(p) = __builtin_convertvector(chosen, u16h);
}

// The lanes that are not in memory read as zero.
template <typename T>
inline v16 get(const T *p, int64_t count) {
    v16 x = {};
    for (int64_t i = 0; i < count; i++) x[i] = load(p[i]);
    return x;
}
template <typename T>
inline void put(T *p, v16 x, int64_t count) {
    for (int64_t i = 0; i < count; i++) store(p[i], x[i]);
}
