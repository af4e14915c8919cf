// Sixteen floats at a time through the compiler's vectors, so that every instruction set is served by one source.
#pragma once
#include "wide.h"

typedef Wide<float, 64>::type v16;
typedef Wide<int32_t, 64>::type i16x;

struct bf16 {
    uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(bf16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}
inline void store(float &to, float x) { to = x; }
inline void store(bf16 &to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    // Round to nearest even; a NaN must not be rounded to infinity.
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        to.bits = uint16_t((bits >> 16) | 0x40);
    else
        to.bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

inline v16 get(const float *p) {
    v16 x;
    load_lanes(p, x);
    return x;
}
inline void put(float *p, v16 x) { store_lanes(p, x); }

// The number of every lane.
inline i16x lanes() {
    i16x x;
    load_lanes(NUMBERS, x);
    return x;
}

inline float total(v16 x) {
    return fold(x, [](auto a, auto b) { return a + b; });
}
inline float largest(v16 x) {
    return fold(x, [](auto a, auto b) { return where(b > a, b, a); });
}

// Zero in the lanes after `last`.
inline v16 keep_upto(v16 x, int64_t last) {
    if (last >= 15) return x;
    const i16x mask = lanes() <= int32_t(last);
    return (v16)((i16x)x & mask);
}

// e^x to about one unit in the last place; 0 below -87, NaN stays NaN.
inline v16 exp16(v16 x) {
    // A NaN passes every comparison by and comes out of the arithmetic.
    v16 y = where(x < -87.0f, v16{} - 87.0f, x);
    y = where(y > 88.0f, v16{} + 88.0f, y);
    // x = n ln 2 + r with |r| <= ln 2 / 2; adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const v16 shifted = y * 1.44269504088896341f + 12582912.0f;
    const v16 n = shifted - 12582912.0f;
    v16 r = y - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    v16 p = v16{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const i16x power = to_int(n);
    p = (v16)((i16x)p + (power << 23));
    return where(x < -87.0f, v16{}, p);
}
