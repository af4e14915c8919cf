// The transpose of a matrix of bf16: [rows, columns] to [columns, rows].
#include <algorithm>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "turn.h"

namespace {

constexpr int64_t TILE = 32;

// A whole line of memory past the caches: lines that lie a power of two apart would push each other out of them.
inline void put_line(bf16 *to, v16 x) {
#ifdef __AVX512F__
    if (reinterpret_cast<uintptr_t>(to) % 64 == 0) {
        _mm512_stream_ps(reinterpret_cast<float *>(to), (__m512)x);
        return;
    }
#endif
    std::memcpy(to, &x, sizeof x);
}

void whole_tile(const bf16 *x, bf16 *out, int64_t rows, int64_t columns) {
    v16 low[16], high[16];
    for (int64_t pair = 0; pair < TILE / 2; pair++) {
        const u32hu *a = reinterpret_cast<const u32hu *>(x + 2 * pair * columns);
        const u32hu *b = reinterpret_cast<const u32hu *>(x + (2 * pair + 1) * columns);
        join(*a, *b, low[pair], high[pair]);
    }
    transpose(low);
    transpose(high);
    for (int64_t c = 0; c < TILE; c++) put_line(out + c * rows, c < 16 ? low[c] : high[c - 16]);
}

}  // namespace

extern "C" void transpose_bf16(const bf16 *x, bf16 *out, int64_t rows, int64_t columns) {
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r += TILE)
            for (int64_t c = 0; c < columns; c += TILE) {
                if (r + TILE <= rows && c + TILE <= columns) {
                    whole_tile(x + r * columns + c, out + c * rows + r, rows, columns);
                    continue;
                }
                for (int64_t i = r; i < std::min(rows, r + TILE); i++)
                    for (int64_t j = c; j < std::min(columns, c + TILE); j++) out[j * rows + i] = x[i * columns + j];
            }
#ifdef __AVX512F__
        // Other threads see what went past the caches.
        _mm_sfence();
#endif
    }
}
