// Mean and population variance of every channel of every image, in one visit of the channel while it is in the cache,
// and their gradient. Two passes over the cached channel, not sums of squares: no digits are lost to a large mean.
#pragma once
#include <algorithm>
#include "parallel.h"
#include "vector.h"

namespace statistics {

struct Arguments {  // in the order statistics.py passes them
    int64_t N, D, P;  // images (N, D, P pixels)
    int64_t last;     // 1: channels_last, 0: contiguous
    int64_t threads;
};

inline float total(V v) {
    float sum = 0;
    for (int i = 0; i < VL; i++) sum += v[i];
    return sum;
}

// Sum of f(x[0]), ..., f(x[n - 1]); f takes a vector.
template <class F>
inline float sum(const float* x, int64_t n, const F& f) {
    V part[4] = {};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int j = 0; j < 4; j++) part[j] += f(load(x + i + j * VL));
    for (; i + VL <= n; i += VL) part[0] += f(load(x + i));
    float rest = 0;
    for (; i < n; i++) rest += f(V{} + x[i])[0];
    return total((part[0] + part[1]) + (part[2] + part[3])) + rest;
}

inline void plane(const float* x, int64_t P, float* mean, float* variance) {
    const float mu = sum(x, P, [](V v) { return v; }) / P;
    *mean = mu;
    *variance = sum(x, P, [mu](V v) { return (v - mu) * (v - mu); }) / P;
}

// total[d] = mean of f(x[p * D + d], d) over the P pixels of a channels_last image; summed in blocks, so that rounding
// errors do not grow with P.
template <class F>
inline void average(const float* x, int64_t P, int64_t D, float* total, const F& f) {
    constexpr int64_t BLOCK = 64;
    float* part = scratch(0, D);
    std::fill(total, total + D, 0.f);
    for (int64_t start = 0; start < P; start += BLOCK) {
        std::fill(part, part + D, 0.f);
        for (int64_t p = start; p < std::min(P, start + BLOCK); p++)
            for (int64_t d = 0; d < D; d++) part[d] += f(x[p * D + d], d);
        for (int64_t d = 0; d < D; d++) total[d] += part[d];
    }
    for (int64_t d = 0; d < D; d++) total[d] /= P;
}

inline void image(const float* x, int64_t P, int64_t D, float* mean, float* variance) {
    average(x, P, D, mean, [](float v, int64_t) { return v; });
    average(x, P, D, variance, [mean](float v, int64_t d) { return (v - mean[d]) * (v - mean[d]); });
}

}  // namespace statistics

extern "C" int shconv_mean_variance(const statistics::Arguments* a, GompParallel gomp, const float* x, float* mean, float* variance) try {
    const int64_t D = a->D, P = a->P;
    parallel({gomp, (int)a->threads}, a->N, [&](int64_t n) {
        const float* from = x + n * D * P;
        if (a->last) return statistics::image(from, P, D, mean + n * D, variance + n * D);
        for (int64_t d = 0; d < D; d++) statistics::plane(from + d * P, P, mean + n * D + d, variance + n * D + d);
    });
    return 0;
} catch (...) {
    return 1;
}

// dx = (dmean + 2 dvariance (x - mean)) / P
extern "C" int shconv_mean_variance_backward(const statistics::Arguments* a, GompParallel gomp, const float* x, const float* mean,
                                             const float* dmean, const float* dvariance, float* dx) try {
    const int64_t D = a->D, P = a->P;
    parallel({gomp, (int)a->threads}, a->N, [&](int64_t n) {
        const float* mu = mean + n * D;
        float* slope = scratch(0, 2 * D);
        float* level = slope + D;
        for (int64_t d = 0; d < D; d++) slope[d] = 2 * dvariance[n * D + d] / P, level[d] = dmean[n * D + d] / P;
        const float* from = x + n * D * P;
        float* to = dx + n * D * P;
        if (a->last) {
            for (int64_t p = 0; p < P; p++)
                for (int64_t d = 0; d < D; d++) to[p * D + d] = level[d] + slope[d] * (from[p * D + d] - mu[d]);
        } else {
            for (int64_t d = 0; d < D; d++)
                for (int64_t p = 0; p < P; p++) to[d * P + p] = level[d] + slope[d] * (from[d * P + p] - mu[d]);
        }
    });
    return 0;
} catch (...) {
    return 1;
}
