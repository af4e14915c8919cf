// AbsTopK of the rows of a matrix: the k largest magnitudes stay, of equal ones those with the lowest index.
//
// Magnitudes order like their bit patterns, so the k-th largest is found bit by bit from the top: one pass over the row
// counts how many reach a trial value. A row stays in the first cache throughout. NaN counts as larger than infinity.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

template <typename Bits>
int64_t reaching(const Bits *magnitude, int64_t padded, Bits level) {
    // The narrow counter lets the compiler compare a whole vector at a time; rows are cut before it could overflow.
    int64_t total = 0;
    for (int64_t start = 0; start < padded; start += 16384) {
        const int64_t stop = std::min(padded, start + 16384);
        Bits count = 0;
        for (int64_t i = start; i < stop; i++) count += Bits(magnitude[i] >= level);
        total += count;
    }
    return total;
}

template <typename Bits, int BITS>
void row(const Bits *x, Bits *out, uint8_t *mask, int64_t width, int64_t k, Bits *magnitude) {
    constexpr Bits POSITIVE = Bits((uint64_t(1) << BITS) - 1);
    Bits largest = 0;
    for (int64_t i = 0; i < width; i++) {
        magnitude[i] = x[i] & POSITIVE;
        largest = std::max(largest, magnitude[i]);
    }
    Bits level = 0;
    int64_t count = width;
    // Where exactly k reach the level, lower bits cannot change who stays.
    for (int bit = BITS - 1; bit >= 0 && count != k; bit--) {
        const Bits trial = Bits(level | Bits(uint64_t(1) << bit));
        if (trial > largest) continue;
        const int64_t now = reaching(magnitude, width, trial);
        if (now >= k) level = trial, count = now;
    }
    if (count == k) {
        for (int64_t i = 0; i < width; i++) {
            const bool kept = magnitude[i] >= level;
            mask[i] = kept;
            out[i] = kept ? x[i] : Bits(0);
        }
        return;
    }
    // Several at the level, room for some of them: the first ones.
    int64_t room = k - (level == POSITIVE ? 0 : reaching(magnitude, width, Bits(level + 1)));
    for (int64_t i = 0; i < width; i++) {
        const bool kept = magnitude[i] > level;
        mask[i] = kept;
        out[i] = kept ? x[i] : Bits(0);
    }
    for (int64_t start = 0; room > 0; start += 64) {
        const int64_t stop = std::min(width, start + 64);
        Bits any = 0;
        for (int64_t i = start; i < stop; i++) any |= Bits(magnitude[i] == level);
        for (int64_t i = start; any && room > 0 && i < stop; i++)
            if (magnitude[i] == level) mask[i] = 1, out[i] = x[i], room--;
    }
}

template <typename Bits, int BITS>
void forward(const Bits *x, Bits *out, uint8_t *mask, int64_t rows, int64_t width, int64_t k) {
#pragma omp parallel
    {
        std::vector<Bits> magnitude(width);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            row<Bits, BITS>(x + r * width, out + r * width, mask + r * width, width, k, magnitude.data());
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
