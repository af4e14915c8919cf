// GELU, exact or through tanh, and its backward: one pass, in fp32 whatever is stored.
//
// bf16 has so few numbers that all of them are computed once and looked up from then on; those that occur lie in the
// first cache. Measured to be twice as fast as computing them.
#include <algorithm>
#include <cstdint>

#include "half.h"

namespace {

// GELU is x * cdf(x) and its derivative cdf(x) + x * slope(x).
struct Parts {
    v16 cdf, slope;
};

inline v16 magnitude(v16 x) { return (v16)((i16x)x & 0x7fffffff); }

struct Exact {
    static Parts at(v16 x) {
        // The tail of the normal distribution is exp(-x^2/2) P(|x|) / Q(|x|); the ratio was fitted to 6e-9 of its value
        // for |x| <= 14, beyond which the exponential is zero. Negative x take the tail itself: nothing cancels there.
        const v16 density = exp16(x * x * -0.5f), size = magnitude(x), z = where(size < 14.0f, size, v16{} + 14.0f);
        v16 p = z * 4.077609284e-3f + 4.037254136e-2f;
        p = p * z + 1.824617807e-1f;
        p = p * z + 4.372508233e-1f;
        p = p * z + 0.5f;
        v16 q = z * 1.022092197e-2f + 1.012057637e-1f;
        q = q * z + 4.674289728e-1f;
        q = q * z + 1.199290492f;
        q = q * z + 1.672386602f;
        q = q * z + 1.0f;
        const v16 tail = p / q * density;
        return {where(x < 0.0f, tail, 1.0f - tail), density * 0.398942280401432678f};
    }
};

struct Tanh {
    static Parts at(v16 x) {
        // (1 + tanh u) / 2 = 1 / (1 + exp(-2u)); only the exponential that cannot overflow is taken.
        constexpr float twice = 1.59576912160573071f, cubic = 0.044715f;
        const v16 square = x * x;
        const v16 e = exp16(magnitude(x) * (square * cubic + 1.0f) * -twice);
        const v16 r = 1.0f / (1.0f + e);
        // Far out the exponential is zero, and so must its product with the square be, which overflows there.
        const v16 bounded = where(square < 1e4f, square, v16{} + 1e4f);
        return {where(x < 0.0f, e * r, r), e * r * r * (bounded * (3.0f * cubic) + 1.0f) * twice};
    }
};

template <typename Form>
v16 value(v16 x) {
    return x * Form::at(x).cdf;
}
template <typename Form>
v16 derivative(v16 x) {
    const Parts parts = Form::at(x);
    return parts.cdf + x * parts.slope;
}

template <typename Form>
struct Table {
    static constexpr int COUNT = 1 << 16;
    bf16 values[COUNT];
    float derivatives[COUNT];
    Table() {
        for (int first = 0; first < COUNT; first += 16) {
            const v16 x = (v16)((first + lanes()) << 16);
            put(values + first, value<Form>(x));
            put(derivatives + first, derivative<Form>(x));
        }
    }
    static const Table &known() {
        static const Table table;
        return table;
    }
};

constexpr int64_t PIECE = 4096;

// `f(first, last)` for pieces of n places; small arrays are not worth waking other threads for.
template <typename F>
void pieces(int64_t n, F f) {
#pragma omp parallel for schedule(static) if (n > 4 * PIECE)
    for (int64_t first = 0; first < n; first += PIECE) f(first, std::min(n, first + PIECE));
}

template <typename Form>
void forward(const float *x, float *out, int64_t n) {
    pieces(n, [=](int64_t i, int64_t last) {
        for (; i + 16 <= last; i += 16) put(out + i, value<Form>(get(x + i)));
        put(out + i, value<Form>(get(x + i, last - i)), last - i);
    });
}
template <typename Form>
void forward(const bf16 *x, bf16 *out, int64_t n) {
    const bf16 *values = Table<Form>::known().values;
    pieces(n, [=](int64_t i, int64_t last) {
        for (; i < last; i++) out[i] = values[x[i].bits];
    });
}

template <typename Form>
void backward(const float *grad, const float *x, float *out, int64_t n) {
    pieces(n, [=](int64_t i, int64_t last) {
        for (; i + 16 <= last; i += 16) put(out + i, get(grad + i) * derivative<Form>(get(x + i)));
        put(out + i, get(grad + i, last - i) * derivative<Form>(get(x + i, last - i)), last - i);
    });
}
template <typename Form>
void backward(const bf16 *grad, const bf16 *x, bf16 *out, int64_t n) {
    const float *derivatives = Table<Form>::known().derivatives;
    pieces(n, [=](int64_t first, int64_t last) {
        // Found one by one and multiplied sixteen at a time.
        float found[PIECE];
        for (int64_t i = first; i < last; i++) found[i - first] = derivatives[x[i].bits];
        int64_t i = first;
        for (; i + 16 <= last; i += 16) put(out + i, get(grad + i) * get(found + i - first));
        for (; i < last; i++) store(out[i], load(grad[i]) * found[i - first]);
    });
}

}  // namespace

extern "C" {
void gelu_none_f32(const float *x, float *out, int64_t n) { forward<Exact>(x, out, n); }
void gelu_none_bf16(const bf16 *x, bf16 *out, int64_t n) { forward<Exact>(x, out, n); }
void gelu_tanh_f32(const float *x, float *out, int64_t n) { forward<Tanh>(x, out, n); }
void gelu_tanh_bf16(const bf16 *x, bf16 *out, int64_t n) { forward<Tanh>(x, out, n); }

void gelu_backward_none_f32(const float *grad, const float *x, float *out, int64_t n) {
    backward<Exact>(grad, x, out, n);
}
void gelu_backward_none_bf16(const bf16 *grad, const bf16 *x, bf16 *out, int64_t n) {
    backward<Exact>(grad, x, out, n);
}
void gelu_backward_tanh_f32(const float *grad, const float *x, float *out, int64_t n) {
    backward<Tanh>(grad, x, out, n);
}
void gelu_backward_tanh_bf16(const bf16 *grad, const bf16 *x, bf16 *out, int64_t n) {
    backward<Tanh>(grad, x, out, n);
}
}
