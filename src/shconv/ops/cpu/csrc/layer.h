// A whole layer in one call of the library: statistics, the hypernetwork T and the filtered convolution; and all its
// gradients. T is small: one task has one image, whose map has the same bits in any batch. float32, one group.
#pragma once
#include <cmath>

#include "arguments.h"
#include "statistics.h"

namespace layer {

struct Numbers {        // in the order layer.py passes them
    int64_t K, F;       // hidden neurons; inputs: D for each statistic
    int64_t mean, std;  // where W1's columns of each begin; -1: it is not looked at
    double eps;
};

struct Theta : Numbers {
    const float *W1, *b1, *W2, *b2;  // (K, F), (K), (T, K), (T)
};

inline float dot(const float* a, const float* b, int64_t n) {
    V part[2] = {};
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL)
        for (int j = 0; j < 2; j++) part[j] += load(a + i + j * VL) * load(b + i + j * VL);
    float rest = 0;
    for (; i < n; i++) rest += a[i] * b[i];
    return statistics::total(part[0] + part[1]) + rest;
}

inline void add(float* to, float factor, const float* from, int64_t n) {  // to += factor * from
    for (int64_t i = 0; i < n; i++) to[i] += factor * from[i];
}

// Images to a task: where W1 does not stay in a cache, as many as meet it in few visits.
inline int64_t together(const Arguments& a, Threads threads, const Theta& t) {
    return t.K * t.F <= 1 << 15 ? 1 : (a.N + threads.count - 1) / threads.count;
}

// Calls body(first image, last image) for groups of images.
template <class Body>
void in_groups(const Arguments& a, Threads threads, const Theta& t, const Body& body) {
    const int64_t size = together(a, threads, t);
    parallel(threads, (a.N + size - 1) / size, [&](int64_t task) {
        body(task * size, std::min(a.N, (task + 1) * size));
    });
}

// M (N, T) of x, and what the way back needs: seen (N, 2, D) = [mu, sigma], hidden (N, K) after the ReLU.
inline void maps(const Arguments& a, Threads threads, const Theta& t, const float* x, float* M, float* seen,
                 float* hidden) {
    const int64_t D = a.D, P = a.H * a.W, T = a.Sh * a.Sw;
    in_groups(a, threads, t, [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; n++) {
            float *mu = seen + n * 2 * D, *sigma = mu + D;
            const float* from = x + n * D * P;
            if (a.x_last) statistics::image(from, P, D, mu, sigma);
            else
                for (int64_t d = 0; d < D; d++) statistics::plane(from + d * P, P, mu + d, sigma + d);
            for (int64_t d = 0; d < D; d++) sigma[d] = std::sqrt(sigma[d] + (float)t.eps);
        }
        for (int64_t k = 0; k < t.K; k++) {
            const float* row = t.W1 + k * t.F;
            for (int64_t n = first; n < last; n++) {
                const float *mu = seen + n * 2 * D, *sigma = mu + D;
                float z = t.b1[k];
                if (t.mean >= 0) z += dot(row + t.mean, mu, D);
                if (t.std >= 0) z += dot(row + t.std, sigma, D);
                hidden[n * t.K + k] = z < 0 ? 0 : z;  // a NaN stays one
            }
        }
        for (int64_t i = first * T; i < last * T; i++) {
            const float logit = dot(t.W2 + i % T * t.K, hidden + i / T * t.K, t.K) + t.b2[i % T];
            M[i] = 1 / (1 + std::exp(-logit));
        }
    });
}

inline void add_bias(const Arguments& a, Threads threads, const float* bias, float* Y) {
    const int64_t C = a.C, P = a.Ho * a.Wo;
    parallel(threads, a.N, [&](int64_t n) {
        float* to = Y + n * C * P;
        if (a.y_last)
            for (int64_t p = 0; p < P; p++) add(to + p * C, 1, bias, C);
        else
            for (int64_t c = 0; c < C; c++)
                for (int64_t p = 0; p < P; p++) to[c * P + p] += bias[c];
    });
}

inline void bias_gradient(const Arguments& a, const float* dY, float* db) {
    const int64_t C = a.C, P = a.Ho * a.Wo;
    std::fill(db, db + C, 0.f);
    std::vector<float> part(C);  // of an image, so that rounding errors do not grow with all pixels
    for (int64_t n = 0; n < a.N; n++) {
        const float* from = dY + n * C * P;
        if (a.y_last) {
            std::fill(part.begin(), part.end(), 0.f);
            for (int64_t p = 0; p < P; p++) add(part.data(), 1, from + p * C, C);
            for (int64_t c = 0; c < C; c++) db[c] += part[c];
        } else {
            for (int64_t c = 0; c < C; c++) db[c] += statistics::sum(from + c * P, P, [](V v) { return v; });
        }
    }
}

// The gradients of both linear layers' outputs; where dX is wanted, the statistics' part is added to it.
inline void maps_backward(const Arguments& a, Threads threads, const Theta& t, const float* x, const float* M,
                          const float* seen, const float* hidden, const float* dM, float* dlogits, float* dz,
                          float* dX) {
    const int64_t D = a.D, P = a.H * a.W, T = a.Sh * a.Sw;
    in_groups(a, threads, t, [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; n++) {
            const float* h = hidden + n * t.K;
            float* back = dz + n * t.K;
            std::fill(back, back + t.K, 0.f);
            for (int64_t i = n * T; i < (n + 1) * T; i++) {
                dlogits[i] = dM[i] * (1 - M[i]) * M[i];
                add(back, dlogits[i], t.W2 + (i - n * T) * t.K, t.K);
            }
            for (int64_t k = 0; k < t.K; k++)
                if (h[k] <= 0) back[k] = 0;
        }
        if (!dX) return;
        float* const levels = scratch(0, 2 * D * (last - first));  // of an image: D levels, D slopes
        std::fill(levels, levels + 2 * D * (last - first), 0.f);
        for (int64_t k = 0; k < t.K; k++)
            for (int64_t n = first; n < last; n++) {
                const float back = dz[n * t.K + k];
                float* level = levels + 2 * D * (n - first);
                if (back == 0) continue;
                if (t.mean >= 0) add(level, back, t.W1 + k * t.F + t.mean, D);
                if (t.std >= 0) add(level + D, back, t.W1 + k * t.F + t.std, D);
            }
        for (int64_t n = first; n < last; n++) {
            const float *mu = seen + n * 2 * D, *sigma = mu + D, *from = x + n * D * P;
            float *level = levels + 2 * D * (n - first), *slope = level + D, *to = dX + n * D * P;
            for (int64_t d = 0; d < D; d++) level[d] /= P, slope[d] /= sigma[d] * P;
            if (a.x_last) {
                for (int64_t p = 0; p < P; p++)
                    for (int64_t d = 0; d < D; d++)
                        to[p * D + d] += level[d] + slope[d] * (from[p * D + d] - mu[d]);
            } else {
                for (int64_t d = 0; d < D; d++)
                    for (int64_t p = 0; p < P; p++)
                        to[d * P + p] += level[d] + slope[d] * (from[d * P + p] - mu[d]);
            }
        }
    });
}

// dW1 (K, F), db1 (K), dW2 (T, K), db2 (T): sums over the images in their order.
inline void theta_gradient(const Arguments& a, Threads threads, const Theta& t, const float* seen,
                           const float* hidden, const float* dlogits, const float* dz, float* const theta[4]) {
    const int64_t D = a.D, T = a.Sh * a.Sw;
    parallel(threads, t.K + T, [&](int64_t row) {
        const bool first = row < t.K;
        const int64_t r = first ? row : row - t.K, width = first ? t.F : t.K;
        float* weights = theta[first ? 0 : 2] + r * width;
        float bias = 0;
        std::fill(weights, weights + width, 0.f);
        for (int64_t n = 0; n < a.N; n++) {
            const float factor = first ? dz[n * t.K + r] : dlogits[n * T + r];
            bias += factor;
            if (factor == 0) continue;
            if (!first) add(weights, factor, hidden + n * t.K, t.K);
            if (first && t.mean >= 0) add(weights + t.mean, factor, seen + n * 2 * D, D);
            if (first && t.std >= 0) add(weights + t.std, factor, seen + n * 2 * D + D, D);
        }
        theta[first ? 1 : 3][r] = bias;
    });
}

}  // namespace layer
