// AbsTopK of the rows of a matrix: the k largest magnitudes stay, of equal ones those with the lowest index.
//
// Magnitudes order like their bit patterns. The k-th largest is closed in on from both sides: one pass over the row counts
// how many reach a trial value, which is guessed from the counts so far, and at first from the row before. A row stays in
// the first cache throughout. NaN counts as larger than infinity.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

namespace {

// What is at least `level` stays.
template <typename Bits>
void keep(const Bits *x, const Bits *magnitude, Bits *out, uint8_t *mask, int64_t width, Bits level) {
    for (int64_t i = 0; i < width; i++) {
        const bool kept = magnitude[i] >= level;
        mask[i] = kept;
        out[i] = kept ? x[i] : Bits(0);
    }
}

#ifdef __AVX512BW__
inline int64_t reaching(__m512i x, int16_t level) {
    return __builtin_popcount(_mm512_cmpge_epi16_mask(x, _mm512_set1_epi16(level)));
}
inline int64_t reaching(__m512i x, int32_t level) {
    return __builtin_popcount(_mm512_cmpge_epi32_mask(x, _mm512_set1_epi32(level)));
}
#endif

// How many are at least `level`.
template <typename Bits>
int64_t reaching(const Bits *magnitude, int64_t width, Bits level) {
    int64_t total = 0, i = 0;
#ifdef __AVX512BW__
    // A mask of bits is counted on another unit than the one that compares.
    constexpr int64_t LANES = 64 / sizeof(Bits);
    for (; i + LANES <= width; i += LANES) total += reaching(_mm512_loadu_si512(magnitude + i), level);
#endif
    // The narrow counter lets the compiler compare a whole vector at a time; rows are cut before it could overflow.
    while (i < width) {
        const int64_t stop = std::min(width, i + 16384);
        Bits count = 0;
        for (; i < stop; i++) count += Bits(magnitude[i] >= level);
        total += count;
    }
    return total;
}

// A magnitude that so many of a row reach, and how many: k, or more where several are equal to the k-th largest.
template <typename Bits>
struct Level {
    Bits least;
    int64_t count;
};

// Its level, wherever `guess` is; the nearer, the sooner.
template <typename Bits, int BITS>
Level<Bits> level_of(const Bits *magnitude, int64_t width, int64_t k, Bits largest, Bits guess) {
    // An eighth of an octave: neighbouring rows are seldom further apart.
    constexpr int64_t NEAR = int64_t(1) << (BITS - 8 - 3);
    // At least k reach `low`, fewer reach `high`.
    int64_t low = 0, high = int64_t(largest) + 1, at_low = width, at_high = 0;
    for (int step = 0; at_low != k && high - low > 1; step++) {
        int64_t trial;
        if (step < 3 && low < guess && guess < high)
            trial = guess;
        else if (step < 3 && low == guess && guess + NEAR < high)
            trial = guess + NEAR;
        else if (step < 3 && high == guess && low < guess - NEAR)
            trial = guess - NEAR;
        else if (step % 3 == 2)
            trial = low + (high - low) / 2;
        else
            // Between the k-th and the next one, were they evenly spread.
            trial = low + int64_t(double(high - low) * (double(at_low - k) - 0.5) / double(at_low - at_high));
        trial = std::min(std::max(trial, low + 1), high - 1);
        const int64_t now = reaching(magnitude, width, Bits(trial));
        if (now >= k)
            low = trial, at_low = now;
        else
            high = trial, at_high = now;
    }
    return {Bits(low), at_low};
}

template <typename Bits, int BITS>
Bits row(const Bits *x, Bits *out, uint8_t *mask, int64_t width, int64_t k, Bits *magnitude, Bits guess) {
    constexpr Bits POSITIVE = Bits((uint64_t(1) << BITS) - 1);
    Bits largest = 0;
    for (int64_t i = 0; i < width; i++) {
        magnitude[i] = x[i] & POSITIVE;
        largest = std::max(largest, magnitude[i]);
    }
    const auto [level, count] = level_of<Bits, BITS>(magnitude, width, k, largest, guess);
    if (count == k) {
        keep(x, magnitude, out, mask, width, level);
        return level;
    }
    // Several at the level, room for some of them: the first ones.
    int64_t room = k;
    if (level == POSITIVE) {
        std::fill(mask, mask + width, uint8_t(0));
        std::fill(out, out + width, Bits(0));
    } else {
        keep(x, magnitude, out, mask, width, Bits(level + 1));
        room -= reaching(magnitude, width, Bits(level + 1));
    }
    for (int64_t start = 0; room > 0; start += 64) {
        const int64_t stop = std::min(width, start + 64);
        Bits any = 0;
        for (int64_t i = start; i < stop; i++) any |= Bits(magnitude[i] == level);
        for (int64_t i = start; any && room > 0 && i < stop; i++)
            if (magnitude[i] == level) mask[i] = 1, out[i] = x[i], room--;
    }
    return level;
}

template <typename Bits, int BITS>
void forward(const Bits *x, Bits *out, uint8_t *mask, int64_t rows, int64_t width, int64_t k) {
#pragma omp parallel
    {
        std::vector<Bits> magnitude(width);
        Bits guess = 0;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            guess = row<Bits, BITS>(x + r * width, out + r * width, mask + r * width, width, k, magnitude.data(), guess);
    }
}

template <typename Bits>
void select(const Bits *x, const uint8_t *mask, Bits *out, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < count; start += 4096) {
        const int64_t stop = std::min(count, start + 4096);
        for (int64_t i = start; i < stop; i++) out[i] = mask[i] ? x[i] : Bits(0);
    }
}

}  // namespace

extern "C" {
void abs_topk_f32(const int32_t *x, int32_t *out, uint8_t *mask, int64_t rows, int64_t width, int64_t k) {
    forward<int32_t, 31>(x, out, mask, rows, width, k);
}
void abs_topk_bf16(const int16_t *x, int16_t *out, uint8_t *mask, int64_t rows, int64_t width, int64_t k) {
    forward<int16_t, 15>(x, out, mask, rows, width, k);
}
void select_f32(const int32_t *x, const uint8_t *mask, int32_t *out, int64_t count) { select(x, mask, out, count); }
void select_bf16(const int16_t *x, const uint8_t *mask, int16_t *out, int64_t count) { select(x, mask, out, count); }
}
