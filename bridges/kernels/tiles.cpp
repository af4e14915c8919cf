// Attention of bf16 by matrix tiles (AMX): a product of 16 rows of 32 halves with 16 columns of 32 is one instruction,
// which sums in fp32. Probabilities and their gradients are rounded to bf16 before they are multiplied with anything.
//
// Scores are formed with the keys as rows, so that a vector holds one key's scores with sixteen queries: what a softmax
// adds up lies in one lane. A tile's second factor comes with two rows in each line, their halves in turn ("pairs").
#include "tiles.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "turn.h"

namespace {

constexpr int64_t BLOCK = 32;  // queries, and keys, of one step: two tiles each way
constexpr int64_t LINE = 64;   // bytes of a tile's row

// Threads may use tiles once their process has asked for them.
bool granted() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;
    static const bool yes = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
    return yes;
}

// All eight tiles of a thread at their full size, for as long as this lives.
struct Tiles {
    struct alignas(64) {
        uint8_t palette = 1, rest[15] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    } shape;
    Tiles() {
        std::fill(shape.bytes, shape.bytes + 8, LINE);
        std::fill(shape.rows, shape.rows + 8, 16);
        asm volatile("ldtilecfg %0" ::"m"(shape));
    }
    ~Tiles() { asm volatile("tilerelease"); }
};

template <int T>
inline void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
inline void read(const void *from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline void write(void *to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
// SUM += rows · pairs
template <int SUM, int ROWS, int PAIRS>
inline void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(ROWS), "i"(PAIRS));
}

// Thirty-two halves: those of `a`, then those of `b`.
inline __m512i halves(v16 a, v16 b) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a); }

// The same in turn.
inline __m512i in_turn(v16 a, v16 b) {
    u32h order;
    for (int i = 0; i < 32; i++) order[i] = uint16_t(i % 2 * 16 + i / 2);
    return _mm512_permutexvar_epi16((__m512i)order, halves(a, b));
}
inline void put_line(void *to, __m512i x) { _mm512_store_si512(to, x); }

// Those of sixteen queries that may see a key which comes `late` after the first of them.
inline __mmask16 seeing(int64_t late) { return __mmask16(late <= 0 ? 0xffff : late >= 16 ? 0 : 0xffff << late); }

// 2^x to about two units in the last place; 0 far below, NaN stays NaN.
inline v16 exp2_of(v16 x) {
    // The second operand is what comes back where there is a NaN.
    const __m512 y = _mm512_max_ps(_mm512_set1_ps(-200.0f), (__m512)x);
    const __m512 n = _mm512_roundscale_ps(y, 0);
    const v16 f = (v16)_mm512_sub_ps(y, n);
    v16 p = v16{} + 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (v16)_mm512_scalef_ps((__m512)p, n);
}
constexpr float LOG2E = 1.44269504088896341f;

struct Shape {
    int64_t batch, heads, n, d, np, dk, dp, group;

    // Whole blocks of tokens; channels to whole lines as rows and to whole tiles as columns.
    Shape(int64_t batch, int64_t heads, int64_t n, int64_t d)
        : batch(batch), heads(heads), n(n), d(d), np((n + BLOCK - 1) / BLOCK * BLOCK), dk((d + 31) / 32 * 32),
          dp((d + 15) / 16 * 16), group(std::max<int64_t>(1, std::min(heads, 256 / d))) {}
    int64_t groups() const { return (heads + group - 1) / group; }
    int64_t size() const { return np * dk; }  // halves of one head's array
    int64_t row() const { return 2 * dk; }    // bytes of its rows
};

// From [n, heads, d] to [heads of a group, np, dk].
void gather(const bf16 *from, bf16 *to, const Shape &s, int64_t count) {
    constexpr int64_t AHEAD = 24;  // tokens: they lie too far apart for the processor to foresee
    for (int64_t j = 0; j < s.np; j++) {
        for (int64_t c = 0; c < count * s.d; c += 32) __builtin_prefetch(from + (j + AHEAD) * s.heads * s.d + c);
        for (int64_t h = 0; h < count; h++) {
            bf16 *row = to + h * s.size() + j * s.dk;
            const bf16 *given = from + (j * s.heads + h) * s.d;
            for (int64_t c = 0; c < s.dk; c += 16) {
                const int64_t lanes = j < s.n ? std::clamp<int64_t>(s.d - c, 0, 16) : 0;
                const __m256i x = _mm256_maskz_loadu_epi16(uint16_t((1 << lanes) - 1), given + c);
                _mm256_store_si256(reinterpret_cast<__m256i *>(row + c), x);
            }
        }
    }
}

// Sixteen rows of 32 halves, two of them to a lane, with rows and lanes exchanged.
void turn(const bf16 *from, int64_t stride, bf16 *to, int64_t stride_to) {
    v16 r[16];
    for (int i = 0; i < 16; i++) r[i] = get(reinterpret_cast<const float *>(from + i * stride));
    transpose(r);
    for (int i = 0; i < 16; i++) put(reinterpret_cast<float *>(to + i * stride_to), r[i]);
}

// Pairs of channels: [np / 16, dk / 2, 16 tokens, 2].
void channel_pairs(const bf16 *rows, bf16 *to, const Shape &s) {
    for (int64_t j = 0; j < s.np; j += 16)
        for (int64_t c = 0; c < s.dk; c += 32) turn(rows + j * s.dk + c, s.dk, to + j * s.dk + c * 16, 32);
}

// Pairs of tokens: [np / 2, dk, 2].
void token_pairs(const bf16 *rows, bf16 *to, const Shape &s) {
    for (int64_t j = 0; j < s.np; j += 2)
        for (int64_t c = 0; c < s.dk; c += 32) {
            const auto *a = reinterpret_cast<const u32hu *>(rows + j * s.dk + c);
            const auto *b = reinterpret_cast<const u32hu *>(rows + (j + 1) * s.dk + c);
            v16 low, high;
            join(*a, *b, low, high);
            put(reinterpret_cast<float *>(to + j * s.dk + 2 * c), low);
            put(reinterpret_cast<float *>(to + j * s.dk + 2 * c + 32), high);
        }
}

// Channels as rows, [dp, np], from pairs of tokens.
void channels(const bf16 *pairs, bf16 *to, const Shape &s) {
    for (int64_t j = 0; j < s.np; j += BLOCK)
        for (int64_t c = 0; c < s.dp; c += 16) turn(pairs + j * s.dk + 2 * c, 2 * s.dk, to + c * s.np + j, s.np);
}

// x · yᵀ of 32 rows of x with 32 tokens of y, given as pairs of channels, into [32, 32].
void scores(const bf16 *x, const bf16 *y, float *to, const Shape &s) {
    zero<0>(), zero<1>(), zero<2>(), zero<3>();
    for (int64_t c = 0; c < s.dk; c += 32) {
        read<4>(x + c, s.row());
        read<5>(x + 16 * s.dk + c, s.row());
        read<6>(y + c * 16, LINE);
        read<7>(y + 16 * s.dk + c * 16, LINE);
        multiply<0, 4, 6>();
        multiply<1, 4, 7>();
        multiply<2, 5, 6>();
        multiply<3, 5, 7>();
    }
    write<0>(to, 2 * LINE);
    write<1>(to + 16, 2 * LINE);
    write<2>(to + 16 * BLOCK, 2 * LINE);
    write<3>(to + 16 * BLOCK + 16, 2 * LINE);
}

// Sixteen tokens' sums with channels as rows, each times its token's factor, into [tokens, heads, d].
void put_turned(const float *sums, int64_t stride, v16 factor, bf16 *to, const Shape &s, int64_t first, int64_t c) {
    v16 r[16];
    for (int i = 0; i < 16; i++) r[i] = get(sums + i * stride) * factor;
    transpose(r);
    const int64_t tokens = std::min<int64_t>(16, s.n - first), lanes = std::min<int64_t>(16, s.d - c);
    for (int64_t i = 0; i < tokens; i++) {
        bf16 *x = to + (first + i) * s.heads * s.d + c;
        lanes == 16 ? put(x, r[i]) : put(x, r[i], lanes);
    }
}

void forward_head(const bf16 *k, const bf16 *queries, const bf16 *values, const float *sink, bf16 *out, float *lse,
                  const Shape &s, float scale, float *work) {
    alignas(64) float sums[2][16][16];
    for (int64_t i = 0; i < s.n; i += BLOCK) {
        v16 most[2] = {v16{} - INFINITY, v16{} - INFINITY}, whole[2] = {}, share[2];
        for (int64_t j = 0; j <= i; j += BLOCK) {
            float *block = work + j * BLOCK;
            scores(k + j * s.dk, queries + i * s.dk, block, s);
            for (int64_t r = 0; r < BLOCK; r++)
                for (int64_t half = 0; half < 2; half++) {
                    const __m512 x = (__m512)get(block + r * BLOCK + 16 * half), before = (__m512)most[half];
                    // A NaN among them counts for nothing here; it comes out of the sums.
                    const __mmask16 seen = j == i ? seeing(r - 16 * half) : 0xffff;
                    most[half] = (v16)_mm512_mask_max_ps(before, seen, x, before);
                }
        }
        // Scaled below as in the backward, in one rounding with the difference: large scores need that.
        for (v16 &x : most) x *= scale * LOG2E;
        for (int64_t j = 0; j <= i; j += BLOCK)
            for (int64_t r = 0; r < BLOCK; r += 2) {
                float *at = work + (j + r) * BLOCK;
                v16 p[2][2];
                for (int64_t key = 0; key < 2; key++)
                    for (int64_t half = 0; half < 2; half++) {
                        v16 x = exp2_of(get(at + key * BLOCK + 16 * half) * (scale * LOG2E) - most[half]);
                        if (j == i) x = (v16)_mm512_maskz_mov_ps(seeing(r + key - 16 * half), (__m512)x);
                        whole[half] += x;
                        p[key][half] = x;
                    }
                // In place: a line of pairs for each half of the queries where both keys' scores were.
                for (int64_t half = 0; half < 2; half++) put_line(at + 16 * half, in_turn(p[0][half], p[1][half]));
            }
        for (int64_t half = 0; half < 2; half++) {
            // Both terms relative to the larger exponent; what the values are weighted with is p times `share`.
            const v16 top = most[half] * (1 / LOG2E), high = !sink ? top : where(top < *sink, v16{} + *sink, top);
            share[half] = exp16(top - high);
            const v16 total = whole[half] * share[half] + (sink ? exp16(*sink - high) : v16{});
            share[half] = share[half] / total;
            for (int64_t q = 0; q < std::min<int64_t>(16, s.n - i - 16 * half); q++)
                lse[i + 16 * half + q] = high[q] + std::log(total[q]);
        }
        for (int64_t c = 0; c < s.d; c += 16) {
            zero<0>(), zero<1>();
            for (int64_t j = 0; j <= i; j += BLOCK) {
                read<4>(values + c * s.np + j, 2 * s.np);
                read<6>(work + j * BLOCK, 4 * LINE);
                read<7>(work + j * BLOCK + 16, 4 * LINE);
                multiply<0, 4, 6>();
                multiply<1, 4, 7>();
            }
            write<0>(sums[0], LINE);
            write<1>(sums[1], LINE);
            for (int64_t half = 0; half < 2; half++)
                put_turned(sums[half][0], 16, share[half], out, s, i + 16 * half, c);
        }
    }
}

// What the backward of one head reads: rows, pairs of channels, pairs of tokens and channels as rows.
struct Given {
    const bf16 *k, *v, *queries, *grads, *query_pairs, *grad_pairs, *keys;
    const float *level, *delta;
};

void backward_head(const Given &x, bf16 *dq, bf16 *dk, bf16 *dv, const Shape &s, float scale, float *work) {
    float *sums = work;                                               // of dq, [dp, np]
    bf16 *probs = reinterpret_cast<bf16 *>(sums + s.dp * s.np);       // of 32 keys, [32, np]
    bf16 *dscores = probs + BLOCK * s.np;                             // the same
    alignas(64) float score[BLOCK][BLOCK], dprob[BLOCK][BLOCK], of_keys[4][16][16];
    alignas(64) bf16 pairs[2][16][32];                                // dscores of 32 queries, in pairs of keys
    const int64_t row = 2 * s.np;
    for (int64_t j = 0; j < s.n; j += BLOCK) {
        for (int64_t i = j; i < s.n; i += BLOCK) {
            scores(x.k + j * s.dk, x.queries + i * s.dk, score[0], s);
            scores(x.v + j * s.dk, x.grads + i * s.dk, dprob[0], s);
            const v16 level[2] = {get(x.level + i) * LOG2E, get(x.level + i + 16) * LOG2E};
            const v16 delta[2] = {get(x.delta + i), get(x.delta + i + 16)};
            for (int64_t r = 0; r < BLOCK; r += 2) {
                v16 p[2][2], ds[2][2];
                for (int64_t key = 0; key < 2; key++)
                    for (int64_t half = 0; half < 2; half++) {
                        v16 prob = exp2_of(get(score[r + key] + 16 * half) * (scale * LOG2E) - level[half]);
                        if (i == j) prob = (v16)_mm512_maskz_mov_ps(seeing(r + key - 16 * half), (__m512)prob);
                        p[key][half] = prob;
                        ds[key][half] = prob * (get(dprob[r + key] + 16 * half) - delta[half]);
                    }
                for (int64_t key = 0; key < 2; key++) {
                    put_line(probs + (r + key) * s.np + i, halves(p[key][0], p[key][1]));
                    put_line(dscores + (r + key) * s.np + i, halves(ds[key][0], ds[key][1]));
                }
                for (int64_t half = 0; half < 2; half++)
                    put_line(pairs[half][r / 2], in_turn(ds[0][half], ds[1][half]));
            }
            read<6>(pairs[0], LINE);
            read<7>(pairs[1], LINE);
            for (int64_t c = 0; c < s.d; c += 16) {
                float *to = sums + c * s.np + i;
                if (j == 0)
                    zero<0>(), zero<1>();
                else
                    read<0>(to, 2 * row), read<1>(to + 16, 2 * row);
                read<4>(x.keys + c * s.np + j, row);
                multiply<0, 4, 6>();
                multiply<1, 4, 7>();
                write<0>(to, 2 * row);
                write<1>(to + 16, 2 * row);
            }
        }
        for (int64_t c = 0; c < s.d; c += 16) {
            zero<0>(), zero<1>(), zero<2>(), zero<3>();
            for (int64_t i = j; i < s.n; i += BLOCK) {
                read<4>(probs + i, row);
                read<5>(probs + 16 * s.np + i, row);
                read<6>(x.grad_pairs + i * s.dk + 2 * c, 2 * s.row());
                multiply<0, 4, 6>();
                multiply<1, 5, 6>();
                read<4>(dscores + i, row);
                read<5>(dscores + 16 * s.np + i, row);
                read<7>(x.query_pairs + i * s.dk + 2 * c, 2 * s.row());
                multiply<2, 4, 7>();
                multiply<3, 5, 7>();
            }
            write<0>(of_keys[0], LINE);
            write<1>(of_keys[1], LINE);
            write<2>(of_keys[2], LINE);
            write<3>(of_keys[3], LINE);
            const int64_t lanes = std::min<int64_t>(16, s.d - c);
            for (int64_t r = 0; r < std::min(BLOCK, s.n - j); r++) {
                const int64_t at = (j + r) * s.heads * s.d + c;
                const v16 of_value = get(of_keys[r / 16][r % 16]), of_key = get(of_keys[2 + r / 16][r % 16]) * scale;
                lanes == 16 ? put(dv + at, of_value) : put(dv + at, of_value, lanes);
                lanes == 16 ? put(dk + at, of_key) : put(dk + at, of_key, lanes);
            }
        }
    }
    for (int64_t i = 0; i < s.n; i += 16)
        for (int64_t c = 0; c < s.d; c += 16) put_turned(sums + c * s.np + i, s.np, v16{} + scale, dq, s, i, c);
}

// `f(space, head, offset, count)` for every group of heads: `bytes` of its thread, the group's first head counted over
// the batch, where it begins in [B, T, heads, D], and how many heads it has.
template <typename F>
void each_group(const Shape &s, int64_t bytes, F f) {
#pragma omp parallel
    {
        const Tiles tiles;
        const std::unique_ptr<char[]> space(new char[bytes + 63]);
        char *room = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(space.get()) + 63) / 64 * 64);
#pragma omp for schedule(static)
        for (int64_t g = 0; g < s.batch * s.groups(); g++) {
            const int64_t b = g / s.groups(), first = g % s.groups() * s.group;
            f(room, b * s.heads + first, (b * s.n * s.heads + first) * s.d, std::min(s.group, s.heads - first));
        }
    }
}

}  // namespace

bool forward_by_tiles(const bf16 *q, const bf16 *k, const bf16 *v, const float *sink, bf16 *out, float *lse,
                      int64_t batch, int64_t heads, int64_t n, int64_t d, float scale) {
    if (n < BLOCK || !granted()) return false;
    const Shape s(batch, heads, n, d);
    const int64_t whole = s.group * s.size();
    const int64_t bytes = 2 * (3 * whole + 3 * s.size()) + 4 * BLOCK * s.np;
    each_group(s, bytes, [&](char *room, int64_t head, int64_t at, int64_t count) {
        bf16 *qs = reinterpret_cast<bf16 *>(room), *ks = qs + whole, *vs = ks + whole;
        bf16 *queries = vs + whole, *pairs = queries + s.size(), *values = pairs + s.size();
        float *work = reinterpret_cast<float *>(values + s.size());
        gather(q + at, qs, s, count);
        gather(k + at, ks, s, count);
        gather(v + at, vs, s, count);
        for (int64_t h = 0; h < count; h++) {
            const int64_t a = h * s.size();
            channel_pairs(qs + a, queries, s);
            token_pairs(vs + a, pairs, s);
            channels(pairs, values, s);
            forward_head(ks + a, queries, values, sink ? sink + (head + h) % heads : nullptr, out + at + h * d,
                         lse + (head + h) * n, s, scale, work);
        }
    });
    return true;
}

bool backward_by_tiles(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *out, const bf16 *grad, const float *lse,
                       const float *sink, bf16 *dq, bf16 *dk, bf16 *dv, float *dsink, int64_t batch, int64_t heads,
                       int64_t n, int64_t d, float scale) {
    if (n < BLOCK || !granted()) return false;
    const Shape s(batch, heads, n, d);
    const int64_t whole = s.group * s.size();
    const int64_t bytes = 2 * (5 * whole + 6 * s.size()) + 4 * (2 + s.dp) * s.np + 4 * BLOCK * s.np;
    each_group(s, bytes, [&](char *room, int64_t head, int64_t at, int64_t count) {
        bf16 *qs = reinterpret_cast<bf16 *>(room), *ks = qs + whole, *vs = ks + whole, *outs = vs + whole;
        bf16 *gs = outs + whole, *queries = gs + whole, *grads = queries + s.size(), *query_pairs = grads + s.size();
        bf16 *grad_pairs = query_pairs + s.size(), *key_pairs = grad_pairs + s.size(), *keys = key_pairs + s.size();
        float *level = reinterpret_cast<float *>(keys + s.size()), *delta = level + s.np, *work = delta + s.np;
        const bf16 *given[] = {q, k, v, out, grad};
        for (int i = 0; i < 5; i++) gather(given[i] + at, qs + i * whole, s, count);
        for (int64_t h = 0; h < count; h++) {
            const int64_t a = h * s.size();
            const float *mine = sink ? sink + (head + h) % heads : nullptr;
            for (int64_t i = 0; i < s.np; i++) {
                v16 sum = {};
                for (int64_t c = 0; c < s.dk; c += 16) sum += get(gs + a + i * s.dk + c) * get(outs + a + i * s.dk + c);
                delta[i] = total(sum);
                level[i] = i < n ? lse[(head + h) * n + i] : 0.0f;
            }
            // The sink's value is zero: all its gradient comes through the softmax.
            for (int64_t i = 0; mine && i < s.np; i += 16)
                dsink[head + h] -= total(exp16(*mine - get(level + i)) * get(delta + i));
            channel_pairs(qs + a, queries, s);
            channel_pairs(gs + a, grads, s);
            token_pairs(qs + a, query_pairs, s);
            token_pairs(gs + a, grad_pairs, s);
            token_pairs(ks + a, key_pairs, s);
            channels(key_pairs, keys, s);
            const int64_t to = at + h * d;
            backward_head({ks + a, vs + a, queries, grads, query_pairs, grad_pairs, keys, level, delta}, dq + to, dk + to,
                          dv + to, s, scale, work);
        }
    });
    return true;
}
#else
bool forward_by_tiles(const bf16 *, const bf16 *, const bf16 *, const float *, bf16 *, float *, int64_t, int64_t,
                      int64_t, int64_t, float) {
    return false;
}
bool backward_by_tiles(const bf16 *, const bf16 *, const bf16 *, const bf16 *, const bf16 *, const float *,
                       const float *, bf16 *, bf16 *, bf16 *, float *, int64_t, int64_t, int64_t, int64_t, float) {
    return false;
}
#endif
