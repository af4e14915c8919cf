// RMSNorm of the rows of x [rows, width] with an optional gain [width], and its backward; sums are fp32.
//
// The output may be bf16 where the input is fp32, so that a conversion that follows costs no pass of its own. Products and
// sums are not fused: which of two products is fused would differ with what the rows are stored in.
#pragma GCC optimize("fp-contract=off")
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "half.h"

namespace {

// `f(get, put, place)` for every sixteen places of a row, where get and put stop at its end.
template <typename F>
inline void along(int64_t width, F f) {
    int64_t c = 0;
    for (; c + 16 <= width; c += 16)
        f([](const auto *p) { return get(p); }, [](auto *p, v16 x) { put(p, x); }, c);
    const int64_t rest = width - c;
    if (rest) f([=](const auto *p) { return get(p, rest); }, [=](auto *p, v16 x) { put(p, x, rest); }, c);
}

template <typename In, typename Out>
void forward(const In *x, const float *gain, Out *out, float *scale, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for schedule(static) if (rows * width > 16384)
    for (int64_t r = 0; r < rows; r++) {
        const In *from = x + r * width;
        Out *to = out + r * width;
        v16 squares = {};
        along(width, [&](auto read, auto, int64_t c) {
            const v16 v = read(from + c);
            squares += v * v;
        });
        const float s = scale[r] = 1.0f / std::sqrt(total(squares) / float(width) + eps);
        if (gain)
            along(width, [&](auto read, auto write, int64_t c) { write(to + c, read(from + c) * s * read(gain + c)); });
        else
            along(width, [&](auto read, auto write, int64_t c) { write(to + c, read(from + c) * s); });
    }
}

// The gradient of the gain comes as one sum for every `piece` rows, [pieces, width]: their total then does not depend on
// the number of threads. What is not wanted of the gradients is null.
template <typename In, typename Out, bool GAIN>
void backward(const Out *grad, const In *x, const float *gain, const float *scale, In *of_x, float *of_gain,
              int64_t rows, int64_t width, int64_t piece) {
#pragma omp parallel for schedule(static) if (rows * width > 16384)
    for (int64_t first = 0; first < rows; first += piece) {
        float *sums = of_gain ? of_gain + first / piece * width : nullptr;
        if (sums) std::fill(sums, sums + width, 0.0f);
        for (int64_t r = first; r < std::min(rows, first + piece); r++) {
            const Out *g = grad + r * width;
            const In *from = x + r * width;
            const float s = scale[r];
            const auto scaled = [&](auto read, int64_t c) {
                if constexpr (GAIN) return read(g + c) * read(gain + c);
                return read(g + c);
            };
            v16 products = {};
            along(width, [&](auto read, auto, int64_t c) { products += scaled(read, c) * read(from + c); });
            const float along_x = total(products) / float(width) * s * s * s;
            if (of_x) along(width, [&](auto read, auto write, int64_t c) {
                write(of_x + r * width + c, scaled(read, c) * s - read(from + c) * along_x);
            });
            if (sums) along(width, [&](auto read, auto write, int64_t c) {
                write(sums + c, read(sums + c) + read(g + c) * read(from + c) * s);
            });
        }
    }
}

template <typename In, typename Out>
void backward(const Out *grad, const In *x, const float *gain, const float *scale, In *of_x, float *of_gain,
              int64_t rows, int64_t width, int64_t piece) {
    if (gain)
        backward<In, Out, true>(grad, x, gain, scale, of_x, of_gain, rows, width, piece);
    else
        backward<In, Out, false>(grad, x, gain, scale, of_x, of_gain, rows, width, piece);
}

}  // namespace

#define RMS_NORM(NAME, IN, OUT)                                                                                       \
    void rms_norm_##NAME(const IN *x, const float *gain, OUT *out, float *scale, int64_t rows, int64_t width,         \
                         float eps) {                                                                                 \
        forward(x, gain, out, scale, rows, width, eps);                                                               \
    }                                                                                                                 \
    void rms_norm_backward_##NAME(const OUT *grad, const IN *x, const float *gain, const float *scale, IN *of_x,      \
                                  float *of_gain, int64_t rows, int64_t width, int64_t piece) {                       \
        backward(grad, x, gain, scale, of_x, of_gain, rows, width, piece);                                            \
    }

extern "C" {
RMS_NORM(f32_f32, float, float)
RMS_NORM(f32_bf16, float, bf16)
RMS_NORM(bf16_bf16, bf16, bf16)
}
