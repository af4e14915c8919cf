// Sixteen numbers in memory, fp32 or bf16 and whole or the first few of them, to and from a vector of floats.
#pragma once
#include "vector.h"

typedef Wide<uint32_t, 64>::type u16x;

template <typename V>
inline void load_lanes(const bf16 *p, V &x) {
    const auto halves = *reinterpret_cast<const typename Native<uint16_t, sizeof(V) / 2>::anywhere *>(p);
    x = (V)(__builtin_convertvector(halves, typename Native<int32_t, sizeof(V)>::type) << 16);
}
template <int B>
inline void load_lanes(const bf16 *p, Pair<float, B> &x) {
    load_lanes(p, x.lo);
    load_lanes(p + B / 8, x.hi);
}
template <typename V>
inline void store_lanes(bf16 *p, V x) {
    typedef typename Native<uint16_t, sizeof(V) / 2>::anywhere Halves;
    const auto bits = (typename Native<uint32_t, sizeof(V)>::type)x;
    // As `store` rounds: to nearest even, a NaN stays one.
    const auto rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    const auto chosen = x == x ? rounded : (bits >> 16) | 0x40;
    *reinterpret_cast<Halves *>(p) = __builtin_convertvector(chosen, Halves);
}
template <int B>
inline void store_lanes(bf16 *p, Pair<float, B> x) {
    store_lanes(p, x.lo);
    store_lanes(p + B / 8, x.hi);
}

inline v16 get(const bf16 *p) {
    v16 x;
    load_lanes(p, x);
    return x;
}
inline void put(bf16 *p, v16 x) { store_lanes(p, x); }

// The lanes that are not in memory read as zero.
template <typename T>
inline v16 get(const T *p, int64_t count) {
    float x[16] = {};
    for (int64_t i = 0; i < count; i++) x[i] = load(p[i]);
    return get(x);
}
template <typename T>
inline void put(T *p, v16 x, int64_t count) {
    float all[16];
    put(all, x);
    for (int64_t i = 0; i < count; i++) store(p[i], all[i]);
}
