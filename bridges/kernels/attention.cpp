// Causal attention with an optional sink, forward and backward, in fp32 whatever the inputs are.
//
// Arrays are [B, T, heads, D], as a linear map leaves them; lse is [B, heads, T]. Scores are scale * q.k. The forward
// leaves the log-sum-exp of every query, the sink's logit counted in, and the backward takes p = exp(score - lse) from it.
// Keys and values of one head are kept transposed and padded, so that everything fits the first two caches.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vector.h"

namespace {

constexpr int ROWS = 4;  // queries worked on together, so that a loaded key serves several

// A NaN among them counts for nothing here; it comes out of the sums.
float largest(const float *x, int64_t n) {
    v16 lanes = v16{} - INFINITY;
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        const v16 y = get(x + j);
        lanes = y > lanes ? y : lanes;
    }
    float most = -INFINITY;
    for (int lane = 0; lane < 16; lane++) most = std::max(most, lanes[lane]);
    for (; j < n; j++) most = std::max(most, x[j]);
    return most;
}

template <typename T>
void backward_head(const T *q, const T *k, const T *v, const T *out, const T *grad, const float *lse, const float *sink,
                   T *dq, T *dk, T *dv, float *dsink, int64_t n, int64_t d, int64_t stride, float scale, float *work) {
    const int64_t np = (n + 15) / 16 * 16, dp = (d + 15) / 16 * 16;
    float *kt = work, *vt = kt + d * np, *kr = vt + d * np, *dks = kr + np * dp, *dvs = dks + np * dp;
    float *qr = dvs + np * dp, *gr = qr + ROWS * dp, *p = gr + ROWS * dp, *s = p + ROWS * np;
    std::memset(kr, 0, sizeof(float) * 3 * np * dp);  // kr, dks, dvs
    std::memset(kt, 0, sizeof(float) * 2 * d * np);   // kt, vt
    for (int64_t j = 0; j < n; j++)
        for (int64_t c = 0; c < d; c++) {
            const float key = load(k[j * stride + c]);
            kt[c * np + j] = key;
            kr[j * dp + c] = key;
            vt[c * np + j] = load(v[j * stride + c]);
        }
    for (int64_t i0 = 0; i0 < n; i0 += ROWS) {
        const int64_t rows = n - i0 < ROWS ? n - i0 : ROWS, last = i0 + rows;
        const int64_t width = (last + 15) / 16 * 16;
        std::memset(qr, 0, sizeof(float) * 2 * ROWS * dp);
        float delta[ROWS] = {0}, level[ROWS] = {0};
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = (i0 + r) * stride;
            level[r] = lse[i0 + r];
            for (int64_t c = 0; c < d; c++) {
                qr[r * dp + c] = load(q[at + c]);
                gr[r * dp + c] = load(grad[at + c]);
                delta[r] += gr[r * dp + c] * load(out[at + c]);
            }
            // The sink's value is zero: all its gradient comes through the softmax.
            if (sink) *dsink -= std::exp(*sink - level[r]) * delta[r];
        }
        for (int64_t j = 0; j < width; j += 16) {
            // Named, not an array: the compiler then keeps all eight sums in registers.
            v16 s0 = {}, s1 = {}, s2 = {}, s3 = {}, g0 = {}, g1 = {}, g2 = {}, g3 = {};
            for (int64_t c = 0; c < d; c++) {
                const v16 key = get(kt + c * np + j), value = get(vt + c * np + j);
                s0 += qr[c] * key;
                s1 += qr[dp + c] * key;
                s2 += qr[2 * dp + c] * key;
                s3 += qr[3 * dp + c] * key;
                g0 += gr[c] * value;
                g1 += gr[dp + c] * value;
                g2 += gr[2 * dp + c] * value;
                g3 += gr[3 * dp + c] * value;
            }
            const auto row = [&](int r, v16 score, v16 dprob) {
                const v16 prob = keep_upto(exp16(score * scale - level[r]), i0 + r - j);
                put(p + r * np + j, prob);
                put(s + r * np + j, prob * (dprob - delta[r]) * scale);
            };
            row(0, s0, g0);
            row(1, s1, g1);
            row(2, s2, g2);
            row(3, s3, g3);
        }
        for (int64_t c = 0; c < dp; c += 16) {
            const v16 q0 = get(qr + c), q1 = get(qr + dp + c), q2 = get(qr + 2 * dp + c), q3 = get(qr + 3 * dp + c);
            const v16 o0 = get(gr + c), o1 = get(gr + dp + c), o2 = get(gr + 2 * dp + c), o3 = get(gr + 3 * dp + c);
            v16 t0 = {}, t1 = {}, t2 = {}, t3 = {};
            for (int64_t j = 0; j < last; j++) {
                const v16 key = get(kr + j * dp + c);
                const float d0 = s[j], d1 = s[np + j], d2 = s[2 * np + j], d3 = s[3 * np + j];
                t0 += d0 * key;
                t1 += d1 * key;
                t2 += d2 * key;
                t3 += d3 * key;
                put(dks + j * dp + c, get(dks + j * dp + c) + (d0 * q0 + d1 * q1) + (d2 * q2 + d3 * q3));
                put(dvs + j * dp + c, get(dvs + j * dp + c) + (p[j] * o0 + p[np + j] * o1) +
                                          (p[2 * np + j] * o2 + p[3 * np + j] * o3));
            }
            const v16 sum[ROWS] = {t0, t1, t2, t3};
            for (int64_t r = 0; r < rows; r++)
                for (int64_t e = 0; e < 16 && c + e < d; e++) store(dq[(i0 + r) * stride + c + e], sum[r][e]);
        }
    }
    for (int64_t j = 0; j < n; j++)
        for (int64_t c = 0; c < d; c++) {
            store(dk[j * stride + c], dks[j * dp + c]);
            store(dv[j * stride + c], dvs[j * dp + c]);
        }
}

template <typename T>
void forward_head(const T *q, const T *k, const T *v, const float *sink, T *out, float *lse, int64_t n, int64_t d,
                  int64_t stride, float scale, float *work) {
    const int64_t np = (n + 15) / 16 * 16, dp = (d + 15) / 16 * 16;
    float *kt = work, *vr = kt + d * np, *qr = vr + np * dp, *p = qr + ROWS * dp;
    std::memset(kt, 0, sizeof(float) * (d * np + np * dp));  // kt, vr
    for (int64_t j = 0; j < n; j++)
        for (int64_t c = 0; c < d; c++) {
            kt[c * np + j] = load(k[j * stride + c]);
            vr[j * dp + c] = load(v[j * stride + c]);
        }
    for (int64_t i0 = 0; i0 < n; i0 += ROWS) {
        const int64_t rows = n - i0 < ROWS ? n - i0 : ROWS, last = i0 + rows;
        const int64_t width = (last + 15) / 16 * 16;
        std::memset(qr, 0, sizeof(float) * ROWS * dp);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < d; c++) qr[r * dp + c] = load(q[(i0 + r) * stride + c]);
        for (int64_t j = 0; j < width; j += 16) {
            v16 s0 = {}, s1 = {}, s2 = {}, s3 = {};
            for (int64_t c = 0; c < d; c++) {
                const v16 key = get(kt + c * np + j);
                s0 += qr[c] * key;
                s1 += qr[dp + c] * key;
                s2 += qr[2 * dp + c] * key;
                s3 += qr[3 * dp + c] * key;
            }
            put(p + j, s0);
            put(p + np + j, s1);
            put(p + 2 * np + j, s2);
            put(p + 3 * np + j, s3);
        }
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
            float sum = 0;
            for (int lane = 0; lane < 16; lane++) sum += sums[lane];
            float level = most + std::log(sum);
            if (sink) {
                const float high = std::max(level, *sink), low = std::min(level, *sink);
                level = high + std::log1p(std::exp(low - high));
            }
            lse[i] = level;
            const v16 share = v16{} + std::exp(most - level);
            for (int64_t j = 0; j < width; j += 16) put(score + j, get(score + j) * share);
        }
        for (int64_t c = 0; c < dp; c += 16) {
            v16 o0 = {}, o1 = {}, o2 = {}, o3 = {};
            for (int64_t j = 0; j < last; j++) {
                const v16 value = get(vr + j * dp + c);
                o0 += p[j] * value;
                o1 += p[np + j] * value;
                o2 += p[2 * np + j] * value;
                o3 += p[3 * np + j] * value;
            }
            const v16 sum[ROWS] = {o0, o1, o2, o3};
            for (int64_t r = 0; r < rows; r++)
                for (int64_t e = 0; e < 16 && c + e < d; e++) store(out[(i0 + r) * stride + c + e], sum[r][e]);
        }
    }
}

float *aligned(std::vector<float> &space) {
    return reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(space.data()) + 63) / 64 * 64);
}

template <typename T>
void forward(const T *q, const T *k, const T *v, const float *sink, T *out, float *lse, int64_t batch, int64_t heads,
             int64_t n, int64_t d, float scale) {
    const int64_t np = (n + 15) / 16 * 16, dp = (d + 15) / 16 * 16;
#pragma omp parallel
    {
        std::vector<float> space(d * np + np * dp + ROWS * dp + ROWS * np + 16);
        float *work = aligned(space);
#pragma omp for schedule(static)
        for (int64_t h = 0; h < batch * heads; h++) {
            const int64_t at = (h / heads * n * heads + h % heads) * d;
            forward_head(q + at, k + at, v + at, sink ? sink + h % heads : nullptr, out + at, lse + h * n, n, d,
                         heads * d, scale, work);
        }
    }
}

template <typename T>
void backward(const T *q, const T *k, const T *v, const T *out, const T *grad, const float *lse, const float *sink,
              T *dq, T *dk, T *dv, float *dsink, int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    const int64_t np = (n + 15) / 16 * 16, dp = (d + 15) / 16 * 16;
    const int64_t size = 2 * d * np + 3 * np * dp + 2 * ROWS * dp + 2 * ROWS * np;
#pragma omp parallel
    {
        std::vector<float> space(size + 16);
        float *work = aligned(space);
#pragma omp for schedule(static)
        for (int64_t h = 0; h < batch * heads; h++) {
            const int64_t at = (h / heads * n * heads + h % heads) * d;
            backward_head(q + at, k + at, v + at, out + at, grad + at, lse + h * n, sink ? sink + h % heads : nullptr,
                          dq + at, dk + at, dv + at, dsink + h, n, d, heads * d, scale, work);
        }
    }
}

}  // namespace

extern "C" {
void attention_forward_f32(const float *q, const float *k, const float *v, const float *sink, float *out, float *lse,
                           int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    forward(q, k, v, sink, out, lse, batch, heads, n, d, scale);
}
void attention_forward_bf16(const bf16 *q, const bf16 *k, const bf16 *v, const float *sink, bf16 *out, float *lse,
                            int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    forward(q, k, v, sink, out, lse, batch, heads, n, d, scale);
}
// dsink [B, heads] begins at zero; it is not touched without a sink.
void attention_backward_f32(const float *q, const float *k, const float *v, const float *out, const float *grad,
                            const float *lse, const float *sink, float *dq, float *dk, float *dv, float *dsink,
                            int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    backward(q, k, v, out, grad, lse, sink, dq, dk, dv, dsink, batch, heads, n, d, scale);
}
void attention_backward_bf16(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *out, const bf16 *grad,
                             const float *lse, const float *sink, bf16 *dq, bf16 *dk, bf16 *dv, float *dsink,
                             int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    backward(q, k, v, out, grad, lse, sink, dq, dk, dv, dsink, batch, heads, n, d, scale);
}
}
