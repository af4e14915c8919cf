// Vectors longer than the processor's own: pairs of halves, down to what one register holds. The compiler alone would
// keep a vector that is too long for a register in memory, and work on it there at several times the cost.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

// Bytes of the longest vector that the processor works on at once.
#if defined(__AVX512F__)
constexpr int REGISTER = 64;
#elif defined(__AVX2__)
constexpr int REGISTER = 32;
#else
constexpr int REGISTER = 16;
#endif

// The compiler's own vector, and the same for memory of any alignment; a copy through memcpy would be split in halves
// that stall the load after it.
template <typename T, int BYTES>
struct Native {
    typedef T type __attribute__((vector_size(BYTES)));
    typedef T anywhere __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
};

template <typename T, int BYTES>
struct Pair;

// The vector of so many bytes.
template <typename T, int BYTES, bool FITS = BYTES <= REGISTER>
struct Wide {
    typedef Pair<T, BYTES> type;
};
template <typename T, int BYTES>
struct Wide<T, BYTES, true> {
    typedef typename Native<T, BYTES>::type type;
};

template <typename T, int BYTES>
struct Pair {
    typedef typename Wide<T, BYTES / 2>::type Half;
    Half lo, hi;

    // The same bits.
    template <typename U>
    explicit operator Pair<U, BYTES>() const {
        typedef typename Pair<U, BYTES>::Half Other;
        return {(Other)lo, (Other)hi};
    }
    T operator[](int64_t lane) const {
        T lanes[BYTES / sizeof(T)];
        std::memcpy(lanes, this, BYTES);
        return lanes[lane];
    }
};

// A number beside a vector takes the vector's type, as it does beside one of the compiler's own.
template <typename T>
using Scalar = std::common_type_t<T>;

// Lane by lane, with the result's lanes of another type where it is a mask.
#define BRIDGES_LANEWISE(OP, RESULT)                                                                                  \
    template <typename T, int B>                                                                                      \
    inline Pair<RESULT, B> operator OP(Pair<T, B> a, Pair<T, B> b) {                                                  \
        return {a.lo OP b.lo, a.hi OP b.hi};                                                                          \
    }                                                                                                                 \
    template <typename T, int B>                                                                                      \
    inline Pair<RESULT, B> operator OP(Pair<T, B> a, Scalar<T> b) {                                                   \
        return {a.lo OP b, a.hi OP b};                                                                                \
    }
#define BRIDGES_ARITHMETIC(OP)                                                                                        \
    BRIDGES_LANEWISE(OP, T)                                                                                           \
    template <typename T, int B>                                                                                      \
    inline Pair<T, B> operator OP(Scalar<T> a, Pair<T, B> b) {                                                        \
        return {a OP b.lo, a OP b.hi};                                                                                \
    }                                                                                                                 \
    template <typename T, int B, typename U>                                                                          \
    inline Pair<T, B> &operator OP##=(Pair<T, B> &a, U b) {                                                           \
        return a = a OP b;                                                                                            \
    }
BRIDGES_ARITHMETIC(+)
BRIDGES_ARITHMETIC(-)
BRIDGES_ARITHMETIC(*)
BRIDGES_ARITHMETIC(/)
BRIDGES_ARITHMETIC(&)
BRIDGES_ARITHMETIC(|)
BRIDGES_LANEWISE(<, int32_t)
BRIDGES_LANEWISE(>, int32_t)
BRIDGES_LANEWISE(<=, int32_t)
BRIDGES_LANEWISE(==, int32_t)
BRIDGES_LANEWISE(!=, int32_t)
#undef BRIDGES_ARITHMETIC
#undef BRIDGES_LANEWISE

template <typename T, int B>
inline Pair<T, B> operator<<(Pair<T, B> a, int count) {
    return {a.lo << count, a.hi << count};
}

// Lanes of `a` where the mask's are set, of `b` elsewhere.
template <typename M, typename V>
inline V where(M mask, V a, V b) {
    return mask ? a : b;
}
template <typename T, int B>
inline Pair<T, B> where(Pair<int32_t, B> mask, Pair<T, B> a, Pair<T, B> b) {
    return {where(mask.lo, a.lo, b.lo), where(mask.hi, a.hi, b.hi)};
}

constexpr int32_t NUMBERS[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

template <typename T, typename V>
inline void load_lanes(const T *p, V &x) {
    x = *reinterpret_cast<const typename Native<T, sizeof(V)>::anywhere *>(p);
}
template <typename T, int B>
inline void load_lanes(const T *p, Pair<T, B> &x) {
    load_lanes(p, x.lo);
    load_lanes(p + B / 2 / sizeof(T), x.hi);
}
template <typename T, typename V>
inline void store_lanes(T *p, V x) {
    *reinterpret_cast<typename Native<T, sizeof(V)>::anywhere *>(p) = x;
}
template <typename T, int B>
inline void store_lanes(T *p, Pair<T, B> x) {
    store_lanes(p, x.lo);
    store_lanes(p + B / 2 / sizeof(T), x.hi);
}

// All lanes folded into one, each with the one half a vector on first. Lanes are of four bytes.
template <typename V, typename F>
inline auto fold(V x, F f) {
    constexpr int COUNT = sizeof(V) / 4;
    typename Native<int32_t, sizeof(V)>::type numbers;
    load_lanes(NUMBERS, numbers);
    for (int half = COUNT / 2; half; half /= 2) x = f(x, V(__builtin_shuffle(x, (numbers + half) & (COUNT - 1))));
    return x[0];
}
template <typename T, int B, typename F>
inline T fold(Pair<T, B> x, F f) {
    return fold(f(x.lo, x.hi), f);
}

// Whole numbers in floats, to integers.
template <typename V>
inline auto to_int(V x) {
    return __builtin_convertvector(x, typename Native<int32_t, sizeof(V)>::type);
}
template <int B>
inline Pair<int32_t, B> to_int(Pair<float, B> x) {
    return {to_int(x.lo), to_int(x.hi)};
}
