// The vector type of the machine compiled for and the two register-tile products everything is built from.
// A tile is RB rows of NV vectors; both products keep it in registers over their whole reduction.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
constexpr int VL = 16, RB = 8, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int VL = 8, RB = 4, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int VL = 4, RB = 8, REGISTERS = 32;
#else
constexpr int VL = 4, RB = 4, REGISTERS = 16;
#endif
constexpr int NV = 3;

typedef float V __attribute__((vector_size(VL * 4)));
typedef int32_t Mask __attribute__((vector_size(VL * 4)));
typedef float Unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));

static inline V load(const float* p) { return *(const Unaligned*)p; }
static inline void store(float* p, V v) { *(Unaligned*)p = v; }

static inline V all(float value) { return value - V{}; }  // + would be an instruction: -0 + 0 is not -0

// a * b + c, rounded once where the processor can. Of a product and a sum GCC makes one instruction in some loops and
// two in others ("avoid FMA chains"); a pixel's bits must not depend on the height of its tile.
static inline V fma(V a, V b, V c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

// A vector that stays in its register. Without this GCC loads it anew in every product, and on AVX2 loads set the pace.
static inline __attribute__((always_inline)) V held(V v) {
#if defined(__AVX__) && !defined(__AVX512F__)
    asm("" : "+x"(v));
#endif
    return v;
}

template <int nv>
struct Tile {
    V at[RB][nv];

    inline __attribute__((always_inline)) void zero() {
#pragma GCC unroll 8
        for (int r = 0; r < RB; r++)
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++) at[r][v] = V{};
    }

    // at[r][v] += sum over k of A[k][r] * B[k][v]: A packed RB wide, B nv vectors.
    inline __attribute__((always_inline)) void pixels(const float* A, const float* B, int K) {
        for (int k = 0; k < K; k++, B += nv * VL) {
            V b[nv];
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++) b[v] = load(B + v * VL);
#pragma GCC unroll 8
            for (int r = 0; r < RB; r++)
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++) at[r][v] = fma(all(A[k * RB + r]), b[v], at[r][v]);
        }
    }

    // at[r][v] += sum over pixels p of a[r][p * step] * b[v][p * width]: rows of one tensor against vectors of another.
    inline __attribute__((always_inline)) void outer(
        const float* const* a, int64_t at_a, int64_t step, const float* const* b, int64_t at_b, int64_t width,
        int count) {
        const float* rows[RB];
        const float* vectors[nv];
        for (int r = 0; r < RB; r++) rows[r] = a[r] + at_a;
        for (int v = 0; v < nv; v++) vectors[v] = b[v] + at_b;
        int64_t i = 0, j = 0;
        for (int p = 0; p < count; p++, i += step, j += width) {
            V x[nv];
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++) x[v] = held(load(vectors[v] + j));
#pragma GCC unroll 8
            for (int r = 0; r < RB; r++)
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++) at[r][v] = fma(all(rows[r][i]), x[v], at[r][v]);
        }
    }
};
