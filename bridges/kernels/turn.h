// Sixteen vectors of sixteen lanes, transposed.
#pragma once
#include "vector.h"

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
