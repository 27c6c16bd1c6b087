// What the Python side says of a call, and the taps that follow from it.
#pragma once
#include "pass.h"

struct Arguments {  // in the order library.py passes them
    int64_t N, D, H, W, C, Ho, Wo, Sh, Sw, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
    int64_t x_last, y_last, weight_last;  // 1: channels_last, 0: contiguous
    int64_t threads;

    // From x to Y.
    std::vector<Tap> taps() const {
        const auto floor_divide = [](int64_t a, int64_t b) { return a / b - (a % b < 0); };
        std::vector<Tap> taps;
        for (int i = 0; i < Sh; i++)
            for (int j = 0; j < Sw; j++) {
                const int64_t h = i * dil_h - pad_h, w = j * dil_w - pad_w;
                const int64_t dh = floor_divide(h, stride_h), dw = floor_divide(w, stride_w);
                const int phase = (int)((h - dh * stride_h) * stride_w + w - dw * stride_w);
                taps.push_back({(int)(i * Sw + j), phase, 0, (int)dh, (int)dw});
            }
        return taps;
    }
    // From dY to dX.
    std::vector<Tap> adjoint_taps() const {
        std::vector<Tap> adjoint = taps();
        for (Tap& t : adjoint) std::swap(t.from, t.to), t.dh = -t.dh, t.dw = -t.dw;
        return adjoint;
    }
};

template <class T>
static inline ImagesOf<T> images_x(const Arguments& a, const T* x) {
    return images(x, a.D, a.H, a.W, a.stride_h, a.stride_w, a.x_last);
}

template <class T>
static inline ImagesOf<T> images_Y(const Arguments& a, const T* Y) {
    return images(Y, a.C, a.Ho, a.Wo, 1, 1, a.y_last);
}
