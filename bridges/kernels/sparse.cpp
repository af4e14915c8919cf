// Products with a sparse matrix: y = x Wᵀ + b for x [n, in] and W [out, in] given by its nonzeros, row after row.
//
// A block of tokens is transposed once, so that a weight meets all tokens of the block as vectors that lie together;
// sums are kept in fp32 whatever the tokens are stored in. The input gradient goes the other way through the matrix.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "half.h"
#include "turn.h"

namespace {

constexpr int64_t VECTORS = 2, BLOCK = 16 * VECTORS;

// The tokens of one block, their transpose, and the way back. Tokens that are missing count as zero.
template <typename T>
struct Block {
    const T *x;
    int64_t count, width;

    // Sixteen channels from `j` on of sixteen tokens from `t` on, a vector for each token.
    void tile(v16 *r, int64_t t, int64_t j) const {
        const int64_t lanes = std::min<int64_t>(16, width - j);
        for (int64_t i = 0; i < 16; i++) {
            r[i] = v16{};
            if (t + i >= count) continue;
            const T *from = x + (t + i) * width + j;
            r[i] = lanes == 16 ? get(from) : get(from, lanes);
        }
    }

    // All channels as [width][BLOCK] floats.
    void gather(float *columns) const {
        v16 r[16];
        for (int64_t t = 0; t < BLOCK; t += 16)
            for (int64_t j = 0; j < width; j += 16) {
                tile(r, t, j);
                transpose(r);
                for (int64_t c = 0; c < std::min<int64_t>(16, width - j); c++) put(columns + (j + c) * BLOCK + t, r[c]);
            }
    }

    // The lanes whose channel of the sixteen from `j` on is not zero in every token.
    i16x used(int64_t j) const {
        v16 r[16];
        i16x any = {};
        for (int64_t t = 0; t < count; t += 16) {
            tile(r, t, j);
            for (int64_t i = 0; i < 16; i++) any |= r[i] != 0.0f;
        }
        return any;
    }
};

// Sixteen channels of a block, a vector for each, into out[token][channel].
template <typename T>
void scatter(v16 (*sums)[16], T *out, int64_t count, int64_t stride, int64_t lanes) {
    for (int64_t t = 0; t < count; t += 16) {
        v16 *r = sums[t / 16];
        transpose(r);
        for (int64_t i = 0; i < 16 && t + i < count; i++) {
            if (lanes == 16)
                put(out + (t + i) * stride, r[i]);
            else
                put(out + (t + i) * stride, r[i], lanes);
        }
    }
}

// The nonzeros of a matrix, row after row.
struct Rows {
    const int64_t *start;
    const int32_t *index;
    const float *value;
};

// A block through all rows of a matrix, which reads the nonzeros of each.
template <typename T>
void by_rows(const Block<T> &block, T *out, const Rows &w, const float *bias, int64_t outputs, float *columns) {
    block.gather(columns);
    for (int64_t o = 0; o < outputs; o += 16) {
        const int64_t lanes = std::min<int64_t>(16, outputs - o);
        v16 sums[VECTORS][16] = {};
        for (int64_t r = 0; r < lanes; r++) {
            v16 sum[VECTORS];
            for (int64_t v = 0; v < VECTORS; v++) sum[v] = v16{} + (bias ? bias[o + r] : 0.0f);
            for (int64_t e = w.start[o + r]; e < w.start[o + r + 1]; e++) {
                const float *column = columns + int64_t(w.index[e]) * BLOCK;
                const v16 weight = v16{} + w.value[e];
                for (int64_t v = 0; v < VECTORS; v++) sum[v] += weight * get(column + 16 * v);
            }
            for (int64_t v = 0; v < VECTORS; v++) sums[v][r] = sum[v];
        }
        scatter(sums, out + o, block.count, outputs, lanes);
    }
}

template <typename T>
void product(const T *x, T *out, const Rows &w, const float *bias, int64_t n, int64_t in, int64_t outputs) {
#pragma omp parallel
    {
        std::vector<float> columns(in * BLOCK);
#pragma omp for schedule(dynamic, 1)
        for (int64_t first = 0; first < n; first += BLOCK)
            by_rows(Block<T>{x + first * in, std::min(BLOCK, n - first), in}, out + first * outputs, w, bias, outputs,
                    columns.data());
    }
}

// The other way through a matrix: y = g W. Where most channels of a block are zero in all of its tokens, as behind gates
// that are mostly closed, only the rows of the others are gone through; each adds to the sums of the columns it touches.
template <typename T>
void back(const T *g, T *out, const Rows &w, const Rows &transposed, int64_t n, int64_t rows, int64_t columns) {
    const int64_t groups = (rows + 15) / 16;
#pragma omp parallel
    {
        std::vector<float> sums(std::max(rows, columns) * BLOCK);
        std::vector<i16x> used(groups);
#pragma omp for schedule(dynamic, 1)
        for (int64_t first = 0; first < n; first += BLOCK) {
            const Block<T> block{g + first * rows, std::min(BLOCK, n - first), rows};
            T *to = out + first * columns;
            int64_t open = 0;
            for (int64_t j = 0; j < groups; j++) {
                used[j] = block.used(16 * j);
                for (int64_t c = 0; c < 16; c++) open -= used[j][c];
            }
            if (4 * open > rows) {
                by_rows(block, to, transposed, nullptr, columns, sums.data());
                continue;
            }
            std::fill(sums.begin(), sums.begin() + columns * BLOCK, 0.0f);
            for (int64_t j = 0; j < groups; j++) {
                int64_t any = 0;
                for (int64_t c = 0; c < 16; c++) any |= used[j][c];
                if (!any) continue;
                v16 r[VECTORS][16];
                for (int64_t v = 0; v < VECTORS; v++) {
                    block.tile(r[v], 16 * v, 16 * j);
                    transpose(r[v]);
                }
                for (int64_t c = 0; c < 16; c++) {
                    if (!used[j][c]) continue;
                    for (int64_t e = w.start[16 * j + c]; e < w.start[16 * j + c + 1]; e++) {
                        float *column = sums.data() + int64_t(w.index[e]) * BLOCK;
                        const v16 weight = v16{} + w.value[e];
                        for (int64_t v = 0; v < VECTORS; v++)
                            put(column + 16 * v, get(column + 16 * v) + weight * r[v][c]);
                    }
                }
            }
            for (int64_t o = 0; o < columns; o += 16) {
                const int64_t lanes = std::min<int64_t>(16, columns - o);
                v16 r[VECTORS][16] = {};
                for (int64_t c = 0; c < lanes; c++)
                    for (int64_t v = 0; v < VECTORS; v++) r[v][c] = get(sums.data() + (o + c) * BLOCK + 16 * v);
                scatter(r, to + o, block.count, columns, lanes);
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
    product(x, out, {start, index, value}, bias, n, in, outputs);
}
void sparse_product_bf16(const bf16 *x, bf16 *out, const int64_t *start, const int32_t *index, const float *value,
                         const float *bias, int64_t n, int64_t in, int64_t outputs) {
    product(x, out, {start, index, value}, bias, n, in, outputs);
}
void sparse_back_f32(const float *g, float *out, const int64_t *start, const int32_t *index, const float *value,
                     const int64_t *start_t, const int32_t *index_t, const float *value_t, int64_t n, int64_t rows,
                     int64_t columns) {
    back(g, out, {start, index, value}, {start_t, index_t, value_t}, n, rows, columns);
}
void sparse_back_bf16(const bf16 *g, bf16 *out, const int64_t *start, const int32_t *index, const float *value,
                      const int64_t *start_t, const int32_t *index_t, const float *value_t, int64_t n, int64_t rows,
                      int64_t columns) {
    back(g, out, {start, index, value}, {start_t, index_t, value_t}, n, rows, columns);
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
