// Products with a sparse matrix: y = x Wᵀ + b for x [n, in] and W [out, in] given by its nonzeros, row after row.
//
// A block of tokens is transposed once, so that a weight meets all tokens of the block as vectors that lie together;
// sums are kept in fp32 whatever the tokens are stored in. The input gradient is the same product with Wᵀ.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "half.h"

namespace {

constexpr int64_t VECTORS = 4, BLOCK = 16 * VECTORS;

inline v16 shuffle(v16 a, v16 b, i16x order) { return __builtin_shuffle(a, b, order); }

// Sixteen vectors of sixteen lanes, transposed in four rounds of exchanging what lies `step` apart.
template <int STEP>
inline void exchange(v16 *r) {
    i16x low, high;
    for (int lane = 0; lane < 16; lane++) {
        low[lane] = (lane & STEP) ? 16 + lane - STEP : lane;
        high[lane] = (lane & STEP) ? 16 + lane : lane + STEP;
    }
    for (int i = 0; i < 16; i++)
        if (!(i & STEP)) {
            const v16 a = r[i], b = r[i + STEP];
            r[i] = shuffle(a, b, low);
            r[i + STEP] = shuffle(a, b, high);
        }
}

inline void transpose(v16 *r) {
    exchange<1>(r);
    exchange<2>(r);
    exchange<4>(r);
    exchange<8>(r);
}

// Tokens `first` to `first + count` of x as [in][BLOCK] floats; tokens that are missing count as zero.
template <typename T>
void gather(const T *x, float *columns, int64_t count, int64_t in) {
    v16 r[16];
    for (int64_t t = 0; t < BLOCK; t += 16)
        for (int64_t j = 0; j < in; j += 16) {
            const int64_t width = std::min<int64_t>(16, in - j);
            for (int64_t i = 0; i < 16; i++) {
                r[i] = v16{};
                if (t + i >= count) continue;
                const T *from = x + (t + i) * in + j;
                r[i] = width == 16 ? get(from) : get(from, width);
            }
            transpose(r);
            for (int64_t c = 0; c < width; c++) put(columns + (j + c) * BLOCK + t, r[c]);
        }
}

// Sixteen outputs of a block, [16][BLOCK] floats, into out[token][output].
template <typename T>
void scatter(const float *rows, T *out, int64_t count, int64_t stride, int64_t width) {
    v16 r[16];
    for (int64_t t = 0; t < count; t += 16) {
        for (int64_t o = 0; o < 16; o++) r[o] = o < width ? get(rows + o * BLOCK + t) : v16{};
        transpose(r);
        for (int64_t i = 0; i < 16 && t + i < count; i++) {
            T *to = out + (t + i) * stride;
            if (width == 16)
                put(to, r[i]);
            else
                for (int64_t c = 0; c < width; c++) store(to[c], r[i][c]);
        }
    }
}

template <typename T>
void product(const T *x, T *out, const int64_t *start, const int32_t *index, const float *value, const float *bias,
             int64_t n, int64_t in, int64_t outputs) {
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel
    {
        std::vector<float> columns(in * BLOCK), rows(16 * BLOCK);
#pragma omp for schedule(dynamic, 1)
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t first = b * BLOCK, count = std::min(BLOCK, n - first);
            gather(x + first * in, columns.data(), count, in);
            for (int64_t o = 0; o < outputs; o += 16) {
                const int64_t width = std::min<int64_t>(16, outputs - o);
                for (int64_t r = 0; r < width; r++) {
                    v16 sum[VECTORS];
                    for (int64_t v = 0; v < VECTORS; v++) sum[v] = v16{} + (bias ? bias[o + r] : 0.0f);
                    for (int64_t e = start[o + r]; e < start[o + r + 1]; e++) {
                        const float *column = columns.data() + int64_t(index[e]) * BLOCK;
                        const v16 weight = v16{} + value[e];
                        for (int64_t v = 0; v < VECTORS; v++) sum[v] += weight * get(column + 16 * v);
                    }
                    for (int64_t v = 0; v < VECTORS; v++) put(rows.data() + r * BLOCK + 16 * v, sum[v]);
                }
                scatter(rows.data(), out + first * outputs + o, count, outputs, width);
            }
        }
    }
}

// Strips of columns for the threads, so that every sum has one order. Some hundred rows are added up by themselves first:
// one long sum in fp32 would lose the small terms.
template <typename T>
void column_sums(const T *x, float *out, int64_t n, int64_t columns) {
    constexpr int64_t STRIP = 256, RUN = 128;
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < columns; c += STRIP) {
        const int64_t width = std::min(STRIP, columns - c);
        float sums[STRIP] = {0};
        for (int64_t r = 0; r < n; r += RUN) {
            float run[STRIP] = {0};
            for (int64_t e = r; e < std::min(n, r + RUN); e++)
                for (int64_t k = 0; k < width; k++) run[k] += load(x[e * columns + c + k]);
            for (int64_t k = 0; k < width; k++) sums[k] += run[k];
        }
        std::copy(sums, sums + width, out + c);
    }
}

}  // namespace

extern "C" {
void sparse_product_f32(const float *x, float *out, const int64_t *start, const int32_t *index, const float *value,
                        const float *bias, int64_t n, int64_t in, int64_t outputs) {
    product(x, out, start, index, value, bias, n, in, outputs);
}
void sparse_product_bf16(const bf16 *x, bf16 *out, const int64_t *start, const int32_t *index, const float *value,
                         const float *bias, int64_t n, int64_t in, int64_t outputs) {
    product(x, out, start, index, value, bias, n, in, outputs);
}

// Sums of each column of x [n, columns], in fp32.
void column_sums_f32(const float *x, float *out, int64_t n, int64_t columns) { column_sums(x, out, n, columns); }
void column_sums_bf16(const bf16 *x, float *out, int64_t n, int64_t columns) { column_sums(x, out, n, columns); }

// How many nonzeros each row of w [rows, columns] has, into count[0 … rows).
void sparse_count(const float *w, int64_t *count, int64_t rows, int64_t columns) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        int32_t found = 0;
        for (int64_t c = 0; c < columns; c++) found += w[r * columns + c] != 0.0f;
        count[r] = found;
    }
}

// The nonzeros of each row in order, from start[row] on; rounded to bf16 where asked for.
void sparse_fill(const float *w, const int64_t *start, int32_t *index, float *value, int64_t rows, int64_t columns,
                 int64_t round) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        int64_t e = start[r];
        for (int64_t c = 0; c < columns; c += 16) {
            const int64_t stop = std::min(columns, c + 16);
            for (int64_t k = c; k < stop; k++) {
                const float x = w[r * columns + k];
                if (x == 0.0f) continue;
                bf16 short_;
                store(short_, x);
                index[e] = int32_t(k);
                value[e++] = round ? load(short_) : x;
            }
        }
    }
}

// The same nonzeros column after column; `start` holds where each column begins and is moved to where it ends.
void sparse_transpose(const int64_t *from, const int32_t *index, const float *value, int64_t rows, int64_t *start,
                      int32_t *index_out, float *value_out) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = from[r]; e < from[r + 1]; e++) {
            const int64_t to = start[index[e]]++;
            index_out[to] = int32_t(r);
            value_out[to] = value[e];
        }
}
}
