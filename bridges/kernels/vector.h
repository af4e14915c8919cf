// Sixteen floats at a time through the compiler's own vectors, so that every instruction set is served by one source.
#pragma once
#include <cstdint>
#include <cstring>

typedef float v16 __attribute__((vector_size(64)));
// For memory of any alignment; a copy through memcpy would be split in halves that stall the load after it.
typedef float v16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i16x __attribute__((vector_size(64)));

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

inline v16 get(const float *p) { return *reinterpret_cast<const v16u *>(p); }
inline void put(float *p, v16 x) { *reinterpret_cast<v16u *>(p) = x; }

constexpr i16x LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline float total(v16 x) {
    for (int half = 8; half; half /= 2) x += __builtin_shuffle(x, (LANES + half) & 15);
    return x[0];
}

// Zero in the lanes after `last`.
inline v16 keep_upto(v16 x, int64_t last) {
    if (last >= 15) return x;
    const i16x mask = LANES <= int32_t(last);
    return (v16)((i16x)x & mask);
}

// e^x to about one unit in the last place; 0 below -87, NaN stays NaN.
inline v16 exp16(v16 x) {
    // A NaN passes every comparison by and comes out of the arithmetic.
    v16 y = x < -87.0f ? v16{} - 87.0f : x;
    y = y > 88.0f ? v16{} + 88.0f : y;
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
    const i16x power = __builtin_convertvector(n, i16x);
    p = (v16)((i16x)p + (power << 23));
    return x < -87.0f ? v16{} : p;
}
