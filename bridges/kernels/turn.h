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
    const u32h one = __builtin_shuffle(a, b, first), other = __builtin_shuffle(a, b, second);
    std::memcpy(&low, &one, sizeof low);
    std::memcpy(&high, &other, sizeof high);
}

// What lies `STEP` apart in two vectors, exchanged: the second's lanes without that bit of their number come to the first,
// in the places of the first's lanes with it.
template <int STEP, typename V>
inline void exchange(V &a, V &b) {
    constexpr int COUNT = sizeof(V) / 4;
    typename Native<int32_t, sizeof(V)>::type low = {}, high = {};
    for (int lane = 0; lane < COUNT; lane++) {
        low[lane] = (lane & STEP) ? COUNT + lane - STEP : lane;
        high[lane] = (lane & STEP) ? COUNT + lane : lane + STEP;
    }
    const V first = a;
    a = __builtin_shuffle(first, b, low);
    b = __builtin_shuffle(first, b, high);
}
template <int STEP, typename T, int B>
inline void exchange(Pair<T, B> &a, Pair<T, B> &b) {
    if constexpr (STEP * 8 == B) {
        const auto first = a.hi;
        a.hi = b.lo;
        b.lo = first;
    } else {
        exchange<STEP>(a.lo, b.lo);
        exchange<STEP>(a.hi, b.hi);
    }
}

// One of four rounds.
template <int STEP>
inline void exchange(v16 *r) {
    for (int i = 0; i < 16; i++)
        if (!(i & STEP)) exchange<STEP>(r[i], r[i + STEP]);
}

inline void transpose(v16 *r) {
    exchange<1>(r);
    exchange<2>(r);
    exchange<4>(r);
    exchange<8>(r);
}
