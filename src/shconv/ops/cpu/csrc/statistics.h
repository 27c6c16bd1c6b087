// Mean and population variance of every channel of every image, in one visit of the channel while it is in the cache,
// and their gradient. Two passes over the cached channel, not sums of squares: a mean of 1,000 standard deviations costs
// the standard deviation less than 1e-6 of its value.
// Images are float32 or bfloat16, sums float32.
#pragma once
#include <algorithm>
#include <cstring>

#include "parallel.h"
#include "vector.h"

namespace statistics {

struct Arguments {  // in the order statistics.py passes them
    int64_t N, D, P;  // images (N, D, P pixels)
    int64_t last;     // 1: channels_last, 0: contiguous
    int64_t half;     // 1: x and dx are bfloat16
    int64_t threads;
};

// bfloat16 numbers are the upper halves of float32 numbers.
typedef uint16_t Halves __attribute__((vector_size(VL * 2)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(VL * 2), aligned(2), may_alias));

inline V read(const float* p) { return load(p); }
inline V read(const uint16_t* p) {
    const Halves halves = *(const UnalignedHalves*)p;
    return (V)(__builtin_convertvector(halves, Mask) << 16);
}
inline float one(float v) { return v; }
inline float one(uint16_t v) {
    const uint32_t bits = (uint32_t)v << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}
inline void put(float* to, float v) { *to = v; }
inline void put(uint16_t* to, float v) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    *to = v == v ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
}

inline float total(V v) {
    float sum = 0;
    for (int i = 0; i < VL; i++) sum += v[i];
    return sum;
}

// Sum of f(x[0]), ..., f(x[n - 1]); f takes a vector.
template <class T, class F>
inline float sum(const T* x, int64_t n, const F& f) {
    V part[4] = {};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int j = 0; j < 4; j++) part[j] += f(read(x + i + j * VL));
    for (; i + VL <= n; i += VL) part[0] += f(read(x + i));
    float rest = 0;
    for (; i < n; i++) rest += f(V{} + one(x[i]))[0];
    return total((part[0] + part[1]) + (part[2] + part[3])) + rest;
}

template <class T>
inline void plane(const T* x, int64_t P, float* mean, float* variance) {
    const float mu = sum(x, P, [](V v) { return v; }) / P;
    *mean = mu;
    *variance = sum(x, P, [mu](V v) { return (v - mu) * (v - mu); }) / P;
}

// total[d] = mean of f(x[p * D + d], d) over the P pixels of a channels_last image; summed in blocks, so that rounding
// errors do not grow with P.
template <class T, class F>
inline void average(const T* x, int64_t P, int64_t D, float* total, const F& f) {
    constexpr int64_t BLOCK = 64;
    float* part = scratch(0, D);
    std::fill(total, total + D, 0.f);
    for (int64_t start = 0; start < P; start += BLOCK) {
        std::fill(part, part + D, 0.f);
        for (int64_t p = start; p < std::min(P, start + BLOCK); p++)
            for (int64_t d = 0; d < D; d++) part[d] += f(one(x[p * D + d]), d);
        for (int64_t d = 0; d < D; d++) total[d] += part[d];
    }
    for (int64_t d = 0; d < D; d++) total[d] /= P;
}

template <class T>
inline void image(const T* x, int64_t P, int64_t D, float* mean, float* variance) {
    average(x, P, D, mean, [](float v, int64_t) { return v; });
    average(x, P, D, variance, [mean](float v, int64_t d) { return (v - mean[d]) * (v - mean[d]); });
}

template <class T>
inline void forward(const Arguments& a, GompParallel gomp, const T* x, float* mean, float* variance) {
    const int64_t D = a.D, P = a.P;
    parallel({gomp, (int)a.threads}, a.N, [&](int64_t n) {
        const T* from = x + n * D * P;
        if (a.last) return image(from, P, D, mean + n * D, variance + n * D);
        for (int64_t d = 0; d < D; d++) plane(from + d * P, P, mean + n * D + d, variance + n * D + d);
    });
}

// dx = (dmean + 2 dvariance (x - mean)) / P
template <class T>
inline void backward(const Arguments& a, GompParallel gomp, const T* x, const float* mean, const float* dmean,
                     const float* dvariance, T* dx) {
    const int64_t D = a.D, P = a.P;
    parallel({gomp, (int)a.threads}, a.N, [&](int64_t n) {
        const float* mu = mean + n * D;
        float* slope = scratch(0, 2 * D);
        float* level = slope + D;
        for (int64_t d = 0; d < D; d++) slope[d] = 2 * dvariance[n * D + d] / P, level[d] = dmean[n * D + d] / P;
        const T* from = x + n * D * P;
        T* to = dx + n * D * P;
        if (a.last) {
            for (int64_t p = 0; p < P; p++)
                for (int64_t d = 0; d < D; d++)
                    put(to + p * D + d, level[d] + slope[d] * (one(from[p * D + d]) - mu[d]));
        } else {
            for (int64_t d = 0; d < D; d++)
                for (int64_t p = 0; p < P; p++)
                    put(to + d * P + p, level[d] + slope[d] * (one(from[d * P + p]) - mu[d]));
        }
    });
}

}  // namespace statistics

extern "C" int shconv_mean_variance(const statistics::Arguments* a, GompParallel gomp, const void* x, float* mean,
                                    float* variance) try {
    if (a->half) statistics::forward(*a, gomp, (const uint16_t*)x, mean, variance);
    else statistics::forward(*a, gomp, (const float*)x, mean, variance);
    return 0;
} catch (...) {
    return 1;
}

extern "C" int shconv_mean_variance_backward(const statistics::Arguments* a, GompParallel gomp, const void* x,
                                             const float* mean, const float* dmean, const float* dvariance,
                                             void* dx) try {
    if (a->half) statistics::backward(*a, gomp, (const uint16_t*)x, mean, dmean, dvariance, (uint16_t*)dx);
    else statistics::backward(*a, gomp, (const float*)x, mean, dmean, dvariance, (float*)dx);
    return 0;
} catch (...) {
    return 1;
}
