// Causal attention with an optional sink, forward and backward, in fp32 whatever the inputs are; bf16 goes by matrix tiles
// where there are some (tiles.cpp).
//
// Arrays are [B, T, heads, D], as a linear map leaves them; lse is [B, heads, T]. Scores are scale * q.k. The forward
// leaves the log-sum-exp of every query, the sink's logit counted in, and the backward takes p = exp(score - lse) from it.
// Heads are worked on in groups whose rows fill whole cache lines: a group's arrays are copied to fp32, padded, and lie in
// the second cache.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "half.h"
#include "tiles.h"
#include "turn.h"

namespace {

constexpr int ROWS = 8;  // queries worked on together, so that a loaded key serves several and none waits for the last sum

// A NaN among them counts for nothing here; it comes out of the sums.
float largest(const float *x, int64_t n) {
    v16 lanes = v16{} - INFINITY;
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        const v16 y = get(x + j);
        lanes = where(y > lanes, y, lanes);
    }
    float most = ::largest(lanes);
    for (; j < n; j++) most = std::max(most, x[j]);
    return most;
}

// How the arrays of a call are laid out: n rows of all heads, of which `group` neighbours are taken together.
struct Shape {
    int64_t batch, heads, n, d, np, dp, group;

    Shape(int64_t batch, int64_t heads, int64_t n, int64_t d)
        : batch(batch), heads(heads), n(n), d(d), np((n + 15) / 16 * 16), dp((d + 15) / 16 * 16),
          group(std::max<int64_t>(1, std::min(heads, 64 / d))) {}
    int64_t groups() const { return (heads + group - 1) / group; }
    int64_t size() const { return np * dp; }  // of one head's array
};

// From [n, heads, d] to [heads of a group, np, dp], and back.
template <typename T>
void gather(const T *from, float *to, const Shape &s, int64_t count) {
    for (int64_t j = 0; j < s.n; j++)
        for (int64_t h = 0; h < count; h++)
            for (int64_t c = 0; c < s.d; c += 16) {
                const T *x = from + (j * s.heads + h) * s.d + c;
                put(to + h * s.size() + j * s.dp + c, s.d - c < 16 ? get(x, s.d - c) : get(x));
            }
    for (int64_t h = 0; h < count; h++)
        std::fill(to + h * s.size() + s.n * s.dp, to + (h + 1) * s.size(), 0.0f);
}
template <typename T>
void scatter(const float *from, T *to, const Shape &s, int64_t count) {
    for (int64_t j = 0; j < s.n; j++)
        for (int64_t h = 0; h < count; h++)
            for (int64_t c = 0; c < s.d; c += 16) {
                T *x = to + (j * s.heads + h) * s.d + c;
                const v16 y = get(from + h * s.size() + j * s.dp + c);
                s.d - c < 16 ? put(x, y, s.d - c) : put(x, y);
            }
}
void transpose(const float *from, float *to, const Shape &s) {
    v16 tile[16];
    for (int64_t j = 0; j < s.np; j += 16)
        for (int64_t c = 0; c < s.d; c += 16) {
            for (int64_t i = 0; i < 16; i++) tile[i] = get(from + (j + i) * s.dp + c);
            ::transpose(tile);
            for (int64_t i = 0; i < std::min<int64_t>(16, s.d - c); i++) put(to + (c + i) * s.np + j, tile[i]);
        }
}

// sums[r] += x[r * dp + c] * key for every row: the scores of sixteen keys.
inline void rows_times(v16 (&sums)[ROWS], const float *x, int64_t dp, v16 key) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) sums[r] += x[r * dp] * key;
}

void backward_head(const float *q, const float *k, const float *v, const float *out, const float *grad,
                   const float *lse, const float *sink, float *dq, float *dk, float *dv, float *dsink, const Shape &shape,
                   float scale, float *work) {
    const int64_t n = shape.n, d = shape.d, np = shape.np, dp = shape.dp;
    float *kt = work, *vt = kt + d * np, *p = vt + d * np, *s = p + ROWS * np;
    std::fill(dk, dk + shape.size(), 0.0f);
    std::fill(dv, dv + shape.size(), 0.0f);
    transpose(k, kt, shape);
    transpose(v, vt, shape);
    for (int64_t i0 = 0; i0 < n; i0 += ROWS) {
        const int64_t rows = std::min<int64_t>(ROWS, n - i0), last = i0 + rows;
        const int64_t width = (last + 15) / 16 * 16;
        const float *qr = q + i0 * dp, *gr = grad + i0 * dp, *outs = out + i0 * dp;
        float delta[16] = {0}, level[16] = {0};
        for (int64_t r = 0; r < rows; r++) {
            v16 sum = {};
            for (int64_t c = 0; c < dp; c += 16) sum += get(gr + r * dp + c) * get(outs + r * dp + c);
            level[r] = lse[i0 + r];
            delta[r] = total(sum);
        }
        // The sink's value is zero: all its gradient comes through the softmax.
        if (sink) *dsink -= total(exp16(*sink - get(level)) * get(delta));
        for (int64_t j = 0; j < width; j += 16) {
            v16 scores[ROWS] = {}, dprobs[ROWS] = {};
            for (int64_t c = 0; c < d; c++) {
                rows_times(scores, qr + c, dp, get(kt + c * np + j));
                rows_times(dprobs, gr + c, dp, get(vt + c * np + j));
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                const v16 prob = keep_upto(exp16(scores[r] * scale - level[r]), i0 + r - j);
                put(p + r * np + j, prob);
                put(s + r * np + j, prob * (dprobs[r] - delta[r]) * scale);
            }
        }
        for (int64_t c = 0; c < dp; c += 16) {
            v16 query[ROWS], given[ROWS], sums[ROWS] = {};
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                query[r] = get(qr + r * dp + c);
                given[r] = get(gr + r * dp + c);
            }
            for (int64_t j = 0; j < last; j++) {
                const v16 key = get(k + j * dp + c);
                v16 of_key = get(dk + j * dp + c), of_value = get(dv + j * dp + c);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++) {
                    const float dscore = s[r * np + j];
                    sums[r] += dscore * key;
                    of_key += dscore * query[r];
                    of_value += p[r * np + j] * given[r];
                }
                put(dk + j * dp + c, of_key);
                put(dv + j * dp + c, of_value);
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) put(dq + (i0 + r) * dp + c, sums[r]);
        }
    }
}

void forward_head(const float *q, const float *k, const float *v, const float *sink, float *out, float *lse,
                  const Shape &shape, float scale, float *work) {
    const int64_t n = shape.n, d = shape.d, np = shape.np, dp = shape.dp;
    float *kt = work, *p = kt + d * np;
    transpose(k, kt, shape);
    for (int64_t i0 = 0; i0 < n; i0 += ROWS) {
        const int64_t rows = std::min<int64_t>(ROWS, n - i0), last = i0 + rows;
        const int64_t width = (last + 15) / 16 * 16;
        for (int64_t j = 0; j < width; j += 16) {
            v16 scores[ROWS] = {};
            for (int64_t c = 0; c < d; c++) rows_times(scores, q + i0 * dp + c, dp, get(kt + c * np + j));
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) put(p + r * np + j, scores[r]);
        }
        float tops[16] = {0}, sum[16] = {0};
        for (int64_t r = 0; r < rows; r++) {
            float *score = p + r * np;
            const int64_t i = i0 + r;
            // Scaled below as in the backward, in one rounding with the difference: large scores need that.
            const float most = largest(score, i + 1) * scale;
            v16 sums = {};
            for (int64_t j = 0; j < width; j += 16) {
                const v16 e = keep_upto(exp16(get(score + j) * scale - most), i - j);
                put(score + j, e);
                sums += e;
            }
            tops[r] = most;
            sum[r] = total(sums);
        }
        // Both terms relative to the larger exponent; what the values are weighted with is p times `share`.
        const v16 top = get(tops), high = !sink ? top : where(top < *sink, v16{} + *sink, top);
        v16 share = exp16(top - high);
        const v16 whole = get(sum) * share + (sink ? exp16(*sink - high) : v16{});
        share = share / whole;
        for (int64_t r = 0; r < rows; r++) lse[i0 + r] = high[r] + std::log(whole[r]);
        for (int64_t c = 0; c < dp; c += 16) {
            v16 sums[ROWS] = {};
            for (int64_t j = 0; j < last; j++) rows_times(sums, p + j, np, get(v + j * dp + c));
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) put(out + (i0 + r) * dp + c, sums[r] * share[r]);
        }
    }
}

float *aligned(std::vector<float> &space) {
    return reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(space.data()) + 63) / 64 * 64);
}

// `f(space, head, offset, count)` for every group of heads: the room of its thread, the group's first head counted over the
// batch, where it begins in [B, T, heads, D], and how many heads it has. The room holds `arrays` arrays of a group and,
// `times` over, one head's array transposed and ROWS rows of scores.
template <typename F>
void each_group(const Shape &s, int64_t arrays, int64_t times, F f) {
#pragma omp parallel
    {
        std::vector<float> space(arrays * s.group * s.size() + times * (s.d + ROWS) * s.np + 16);
#pragma omp for schedule(static)
        for (int64_t g = 0; g < s.batch * s.groups(); g++) {
            const int64_t b = g / s.groups(), first = g % s.groups() * s.group;
            f(aligned(space), b * s.heads + first, (b * s.n * s.heads + first) * s.d, std::min(s.group, s.heads - first));
        }
    }
}

template <typename T>
void forward(const T *q, const T *k, const T *v, const float *sink, T *out, float *lse, const Shape &s, float scale) {
    const int64_t whole = s.group * s.size();
    each_group(s, 4, 1, [&](float *qs, int64_t head, int64_t at, int64_t count) {
        float *ks = qs + whole, *vs = ks + whole, *outs = vs + whole, *work = outs + whole;
        gather(q + at, qs, s, count);
        gather(k + at, ks, s, count);
        gather(v + at, vs, s, count);
        for (int64_t h = head; h < head + count; h++) {
            const int64_t a = (h - head) * s.size();
            forward_head(qs + a, ks + a, vs + a, sink ? sink + h % s.heads : nullptr, outs + a, lse + h * s.n, s, scale,
                         work);
        }
        scatter(outs, out + at, s, count);
    });
}

template <typename T>
void backward(const T *q, const T *k, const T *v, const T *out, const T *grad, const float *lse, const float *sink,
              T *dq, T *dk, T *dv, float *dsink, const Shape &s, float scale) {
    const int64_t whole = s.group * s.size();
    each_group(s, 8, 2, [&](float *qs, int64_t head, int64_t at, int64_t count) {
        float *ks = qs + whole, *vs = ks + whole, *outs = vs + whole, *grads = outs + whole;
        float *dqs = grads + whole, *dks = dqs + whole, *dvs = dks + whole, *work = dvs + whole;
        const T *given[] = {q, k, v, out, grad};
        for (int i = 0; i < 5; i++) gather(given[i] + at, qs + i * whole, s, count);
        for (int64_t h = head; h < head + count; h++) {
            const int64_t a = (h - head) * s.size();
            backward_head(qs + a, ks + a, vs + a, outs + a, grads + a, lse + h * s.n,
                          sink ? sink + h % s.heads : nullptr, dqs + a, dks + a, dvs + a, dsink + h, s, scale, work);
        }
        scatter(dqs, dq + at, s, count);
        scatter(dks, dk + at, s, count);
        scatter(dvs, dv + at, s, count);
    });
}

}  // namespace

extern "C" {
void attention_forward_f32(const float *q, const float *k, const float *v, const float *sink, float *out, float *lse,
                           int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    forward(q, k, v, sink, out, lse, Shape(batch, heads, n, d), scale);
}
void attention_forward_bf16(const bf16 *q, const bf16 *k, const bf16 *v, const float *sink, bf16 *out, float *lse,
                            int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    if (!forward_by_tiles(q, k, v, sink, out, lse, batch, heads, n, d, scale))
        forward(q, k, v, sink, out, lse, Shape(batch, heads, n, d), scale);
}
// dsink [B, heads] begins at zero; it is not touched without a sink.
void attention_backward_f32(const float *q, const float *k, const float *v, const float *out, const float *grad,
                            const float *lse, const float *sink, float *dq, float *dk, float *dv, float *dsink,
                            int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    backward(q, k, v, out, grad, lse, sink, dq, dk, dv, dsink, Shape(batch, heads, n, d), scale);
}
void attention_backward_bf16(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *out, const bf16 *grad,
                             const float *lse, const float *sink, bf16 *dq, bf16 *dk, bf16 *dv, float *dsink,
                             int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    if (!backward_by_tiles(q, k, v, out, grad, lse, sink, dq, dk, dv, dsink, batch, heads, n, d, scale))
        backward(q, k, v, out, grad, lse, sink, dq, dk, dv, dsink, Shape(batch, heads, n, d), scale);
}
}
