// Channels of a row kept or replaced: out = kept ? x : other. Row r belongs to mask r / group, so that one mask may serve
// many prompts.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "half.h"

namespace {

// Which row of `other` takes the place of a row: with entries, the same token of the stretch that the prompt's entry names,
// of `length` tokens each; without, as many rows as there are, over and over, so that one set of prompts may serve many masks.
struct Instead {
    const int64_t *entries;
    int64_t tokens, length, period;
    int64_t operator()(int64_t r) const { return entries ? entries[r / tokens] * length + r % tokens : r % period; }
};

// On bit patterns, which the compiler blends a vector at a time.
template <typename Bits>
void choose(const Bits *x, const uint8_t *kept, const Bits *other, Bits *out, int64_t rows, int64_t width, int64_t group,
            Instead at) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const Bits *from = x + r * width, *instead = other + at(r) * width;
        const uint8_t *mask = kept + r / group * width;
        Bits *__restrict to = out + r * width;
        for (int64_t c = 0; c < width; c++) {
            const Bits whole = Bits(-Bits(mask[c] != 0)), a = from[c], b = instead[c];
            to[c] = Bits((a & whole) | (b & Bits(~whole)));
        }
    }
}

template <typename Bits>
void cut(const Bits *grad, const uint8_t *mask, Bits *__restrict to, int64_t width) {
    for (int64_t c = 0; c < width; c++) to[c] = Bits(grad[c] & Bits(-Bits(mask[c] != 0)));
}
inline void cut(const float *grad, const uint8_t *mask, float *to, int64_t width) {
    cut(reinterpret_cast<const uint32_t *>(grad), mask, reinterpret_cast<uint32_t *>(to), width);
}
inline void cut(const bf16 *grad, const uint8_t *mask, bf16 *to, int64_t width) {
    cut(reinterpret_cast<const uint16_t *>(grad), mask, reinterpret_cast<uint16_t *>(to), width);
}

// The gradient of x where it was kept and, for a single mask, Σ grad · (x − other) of every channel.
template <typename T>
void backward(const T *grad, const T *x, const uint8_t *kept, const T *other, T *grad_x, float *sums, int64_t rows,
              int64_t width, int64_t group, Instead at) {
    // Pieces of fixed size, added up in order: the sums do not depend on how many threads there are.
    const int64_t piece = 64, pieces = (rows + piece - 1) / piece;
    std::vector<float> parts(sums ? pieces * width : 0);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < pieces; b++)
        for (int64_t r = b * piece; r < std::min(rows, (b + 1) * piece); r++) {
            const T *g = grad + r * width, *instead = other + at(r) * width, *from = x + r * width;
            const uint8_t *mask = kept + r / group * width;
            T *to = grad_x + r * width;
            cut(g, mask, to, width);
            if (!sums) continue;
            float *part = parts.data() + b * width;
            int64_t c = 0;
            for (; c + 16 <= width; c += 16) put(part + c, get(part + c) + get(g + c) * (get(from + c) - get(instead + c)));
            for (; c < width; c++) part[c] += load(g[c]) * (load(from[c]) - load(instead[c]));
        }
    if (!sums) return;
    std::fill(sums, sums + width, 0.0f);
    for (int64_t b = 0; b < pieces; b++)
        for (int64_t c = 0; c < width; c++) sums[c] += parts[b * width + c];
}

}  // namespace

extern "C" {
void choose_f32(const uint32_t *x, const uint8_t *kept, const uint32_t *other, uint32_t *out, const int64_t *entries,
                int64_t rows, int64_t width, int64_t group, int64_t tokens, int64_t length, int64_t period) {
    choose(x, kept, other, out, rows, width, group, {entries, tokens, length, period});
}
void choose_bf16(const uint16_t *x, const uint8_t *kept, const uint16_t *other, uint16_t *out, const int64_t *entries,
                 int64_t rows, int64_t width, int64_t group, int64_t tokens, int64_t length, int64_t period) {
    choose(x, kept, other, out, rows, width, group, {entries, tokens, length, period});
}
void choose_backward_f32(const float *grad, const float *x, const uint8_t *kept, const float *other, float *grad_x,
                         float *sums, const int64_t *entries, int64_t rows, int64_t width, int64_t group,
                         int64_t tokens, int64_t length, int64_t period) {
    backward(grad, x, kept, other, grad_x, sums, rows, width, group, {entries, tokens, length, period});
}
void choose_backward_bf16(const bf16 *grad, const bf16 *x, const uint8_t *kept, const bf16 *other, bf16 *grad_x,
                          float *sums, const int64_t *entries, int64_t rows, int64_t width, int64_t group,
                          int64_t tokens, int64_t length, int64_t period) {
    backward(grad, x, kept, other, grad_x, sums, rows, width, group, {entries, tokens, length, period});
}
}
