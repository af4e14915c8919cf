// Sixteen vectors of sixteen lanes, transposed; lanes of floats, or of two halves each.
#pragma once
#include "vector.h"

typedef uint16_t u32h __attribute__((vector_size(64)));
typedef uint16_t u32hu __attribute__((vector_size(64), aligned(2), may_alias));

// Two rows of 32 halves as twice sixteen lanes that hold a half of each row.
inline void join(u32h a, u32h b, v16 &low, v16 &high) {
    u32h first, second;
    for (int i = 0; i < 32; i++) {
        first[i] = uint16_t(i % 2 ? 32 + i / 2 : i / 2);
        second[i] = uint16_t(first[i] + 16);
    }
    low = (v16)__builtin_shuffle(a, b, first);
    high = (v16)__builtin_shuffle(a, b, second);
}

// One of four rounds of exchanging what lies `STEP` apart.
template <int STEP>
inline void exchange(v16 *r) {
    i16x low, high;
    for (int lane = 0; lane < 16; lane++) {
        low[lane] = (lane & STEP) ? 16 + lane - STEP : lane;
        high[lane] = (lane & STEP) ? 16 + lane : lane + STEP;
    }
    for (int i = 0; i < 16; i++)
        if (!(i & STEP)) {
            const v16 a = r[i], b = r[i + STEP];
            r[i] = __builtin_shuffle(a, b, low);
            r[i + STEP] = __builtin_shuffle(a, b, high);
        }
}

inline void transpose(v16 *r) {
    exchange<1>(r);
    exchange<2>(r);
    exchange<4>(r);
    exchange<8>(r);
}
