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

// Tokens of a tile, and the tiles of a block. One tile's sums would be too few to hide what an addition takes.
constexpr int64_t TILE = 32, TILES = 2;

// One channel of a tile of tokens, as they are stored: what two vectors of floats are made from.
template <typename T>
struct alignas(64) Column;

template <>
struct Column<float> {
    v16 half[2];
    void get(v16 *x) const { x[0] = half[0], x[1] = half[1]; }
    // The token of the tile that lane `i` of vector `v` belongs to.
    static int64_t token(int64_t v, int64_t i) { return 16 * v + i; }
};

// Two tokens to a lane, so that half as much is read.
template <>
struct Column<bf16> {
    u16x pairs;
    void get(v16 *x) const { x[0] = (v16)(pairs << 16), x[1] = (v16)(pairs & 0xffff0000u); }
    static int64_t token(int64_t v, int64_t i) { return 2 * i + v; }
};

// A sum with nothing, for which the compiler need not add: 0 - 0 is 0, and -0 - 0 is -0.
inline v16 all(float x) { return x - v16{}; }

// The tokens of one block. Those that are missing count as zero.
template <typename T>
struct Block {
    const T *x;
    int64_t count, width;

    int64_t tiles() const { return (count + TILE - 1) / TILE; }
    Block tile(int64_t t) const { return {x + t * TILE * width, std::min(TILE, count - t * TILE), width}; }

    // Sixteen channels from `j` on of sixteen tokens from `t` on, a vector for each token.
    void corner(v16 *r, int64_t t, int64_t j) const {
        const int64_t lanes = std::min<int64_t>(16, width - j);
        for (int64_t i = 0; i < 16; i++) {
            r[i] = v16{};
            if (t + i >= count) continue;
            const T *from = x + (t + i) * width + j;
            r[i] = lanes == 16 ? get(from) : get(from, lanes);
        }
    }

    // The lanes whose channel of the sixteen from `j` on is not zero in every token.
    i16x used(int64_t j) const {
        v16 r[16];
        i16x any = {};
        for (int64_t t = 0; t < count; t += 16) {
            corner(r, t, j);
            for (int64_t i = 0; i < 16; i++) any |= r[i] != 0.0f;
        }
        return any;
    }
};

// All channels of a tile, those of one and the same tile `stride` columns apart.
void gather(const Block<float> &tile, Column<float> *columns, int64_t stride) {
    v16 r[16];
    for (int64_t half = 0; half < 2; half++)
        for (int64_t j = 0; j < tile.width; j += 16) {
            tile.corner(r, 16 * half, j);
            transpose(r);
            for (int64_t c = 0; c < std::min<int64_t>(16, tile.width - j); c++) columns[(j + c) * stride].half[half] = r[c];
        }
}

void gather(const Block<bf16> &tile, Column<bf16> *columns, int64_t stride) {
    v16 low[16], high[16];
    for (int64_t j = 0; j < tile.width; j += 32) {
        const int64_t lanes = std::min<int64_t>(32, tile.width - j);
        for (int64_t pair = 0; pair < 16; pair++) {
            u32h row[2] = {};
            for (int64_t t = 2 * pair; t < std::min(tile.count, 2 * pair + 2); t++) {
                const bf16 *from = tile.x + t * tile.width + j;
                if (lanes == 32)
                    row[t % 2] = *reinterpret_cast<const u32hu *>(from);
                else
                    std::memcpy(&row[t % 2], from, lanes * sizeof *from);
            }
            join(row[0], row[1], low[pair], high[pair]);
        }
        transpose(low);
        transpose(high);
        for (int64_t c = 0; c < lanes; c++) columns[(j + c) * stride].pairs = (u16x)(c < 16 ? low[c] : high[c - 16]);
    }
}

// Thirty-two channels of a tile, a vector for each, into out[token][channel]; lane `i` is the token `token(i)`. So many at
// a time, since a line of memory that is written in two goes would have left the cache before the second.
template <typename T, typename F>
void scatter(v16 *r, T *out, int64_t count, int64_t stride, int64_t lanes, F token) {
    transpose(r);
    transpose(r + 16);
    for (int64_t i = 0; i < 16; i++) {
        if (token(i) >= count) continue;
        T *to = out + token(i) * stride;
        for (int64_t c = 0; c < lanes; c += 16)
            if (lanes - c >= 16)
                put(to + c, r[c + i]);
            else
                put(to + c, r[c + i], lanes - c);
    }
}

// The nonzeros of a matrix, row after row.
struct Rows {
    const int64_t *start;
    const int32_t *index;
    const float *value;
};

// A block of N tiles through all rows of a matrix, which reads the nonzeros of each.
template <int N, typename T>
void by_rows(const Block<T> &block, T *out, const Rows &w, const float *bias, int64_t outputs, Column<T> *columns) {
    for (int64_t t = 0; t < N; t++) gather(block.tile(t), columns + t, N);
    for (int64_t o = 0; o < outputs; o += 32) {
        const int64_t lanes = std::min<int64_t>(32, outputs - o);
        v16 sums[2 * N][32] = {};
        for (int64_t r = 0; r < lanes; r++) {
            v16 sum[2 * N], x[2 * N];
            for (int64_t v = 0; v < 2 * N; v++) sum[v] = all(bias ? bias[o + r] : 0.0f);
            for (int64_t e = w.start[o + r]; e < w.start[o + r + 1]; e++) {
                const Column<T> *column = columns + int64_t(w.index[e]) * N;
                const v16 weight = all(w.value[e]);
                for (int64_t t = 0; t < N; t++) column[t].get(x + 2 * t);
                for (int64_t v = 0; v < 2 * N; v++) sum[v] += weight * x[v];
            }
            for (int64_t v = 0; v < 2 * N; v++) sums[v][r] = sum[v];
        }
        for (int64_t v = 0; v < 2 * N; v++)
            scatter(sums[v], out + v / 2 * TILE * outputs + o, block.count - v / 2 * TILE, outputs, lanes,
                    [v](int64_t i) { return Column<T>::token(v % 2, i); });
    }
}

template <typename T>
void rows_of(const Block<T> &block, T *out, const Rows &w, const float *bias, int64_t outputs,
             std::vector<Column<T>> &columns) {
    columns.resize(TILES * block.width);
    if (block.tiles() == 1)
        by_rows<1>(block, out, w, bias, outputs, columns.data());
    else
        by_rows<TILES>(block, out, w, bias, outputs, columns.data());
}

template <typename T>
void product(const T *x, T *out, const Rows &w, const float *bias, int64_t n, int64_t in, int64_t outputs) {
    constexpr int64_t BLOCK = TILE * TILES;
#pragma omp parallel
    {
        std::vector<Column<T>> columns;
#pragma omp for schedule(dynamic, 1)
        for (int64_t first = 0; first < n; first += BLOCK)
            rows_of(Block<T>{x + first * in, std::min(BLOCK, n - first), in}, out + first * outputs, w, bias, outputs,
                    columns);
    }
}

// A tile through the rows of those channels that are used; each adds to the sums of the columns it touches.
template <typename T>
void by_columns(const Block<T> &tile, T *out, const Rows &w, const i16x *used, int64_t columns, Column<float> *sums) {
    std::fill(sums, sums + columns, Column<float>{});
    for (int64_t j = 0; j < tile.width; j += 16) {
        const i16x lanes = used[j / 16];
        if (!fold(lanes, [](auto a, auto b) { return a | b; })) continue;
        v16 r[2][16];
        for (int64_t v = 0; v < 2; v++) {
            tile.corner(r[v], 16 * v, j);
            transpose(r[v]);
        }
        for (int64_t c = 0; c < 16; c++) {
            if (!lanes[c]) continue;
            for (int64_t e = w.start[j + c]; e < w.start[j + c + 1]; e++) {
                Column<float> &sum = sums[w.index[e]];
                const v16 weight = all(w.value[e]);
                for (int64_t v = 0; v < 2; v++) sum.half[v] += weight * r[v][c];
            }
        }
    }
    for (int64_t o = 0; o < columns; o += 32) {
        const int64_t lanes = std::min<int64_t>(32, columns - o);
        v16 r[2][32] = {};
        for (int64_t c = 0; c < lanes; c++)
            for (int64_t v = 0; v < 2; v++) r[v][c] = sums[o + c].half[v];
        for (int64_t v = 0; v < 2; v++)
            scatter(r[v], out + o, tile.count, columns, lanes, [v](int64_t i) { return 16 * v + i; });
    }
}

// The other way through a matrix: y = g W. Where most channels of a block are zero in all of its tokens, as behind gates
// that are mostly closed, only the rows of the others are gone through.
template <typename T>
void back(const T *g, T *out, const Rows &w, const Rows &transposed, int64_t n, int64_t rows, int64_t columns) {
    constexpr int64_t BLOCK = TILE * TILES;
    const int64_t groups = (rows + 15) / 16;
#pragma omp parallel
    {
        std::vector<Column<T>> turned;
        std::vector<Column<float>> sums;
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
                rows_of(block, to, transposed, nullptr, columns, turned);
                continue;
            }
            sums.resize(columns);
            for (int64_t t = 0; t < block.tiles(); t++)
                by_columns(block.tile(t), to + t * TILE * columns, w, used.data(), columns, sums.data());
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
