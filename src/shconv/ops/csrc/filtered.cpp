// The C interface: the filtered convolution Y_n = conv(X_n, W * M_n) and its gradients, float32, one group.
// Returns 0, or 1 when memory ran out; arrays as compiled.py describes them.
#include "amx.h"
#include "gather.h"
#include "scatter.h"
#include "statistics.h"
#include "weight.h"

namespace {

struct Arguments {  // in the order compiled.py passes them
    int64_t N, D, H, W, C, Ho, Wo, Sh, Sw, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
    int64_t x_last, y_last;  // 1: channels_last, 0: contiguous
    int64_t threads;
};

enum Route { IMAGES = 0, TAPS = 1 };

Images images(const float* data, int64_t C, int64_t H, int64_t W, int64_t stride_h, int64_t stride_w, bool last) {
    const int64_t channel = last ? 1 : H * W, point = last ? C : 1;
    return {(float*)data, (int)C, (int)H, (int)W, (int)stride_h, (int)stride_w, C * H * W, channel, point};
}

Images images_x(const Arguments& a, const float* x) {
    return images(x, a.D, a.H, a.W, a.stride_h, a.stride_w, a.x_last);
}

Images images_Y(const Arguments& a, const float* Y) { return images(Y, a.C, a.Ho, a.Wo, 1, 1, a.y_last); }

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

std::vector<Tap> taps(const Arguments& a) {
    std::vector<Tap> taps;
    for (int i = 0; i < a.Sh; i++)
        for (int j = 0; j < a.Sw; j++) {
            const int64_t h = i * a.dil_h - a.pad_h, w = j * a.dil_w - a.pad_w;
            const int64_t dh = floor_divide(h, a.stride_h), dw = floor_divide(w, a.stride_w);
            const int phase = (int)((h - dh * a.stride_h) * a.stride_w + w - dw * a.stride_w);
            taps.push_back({(int)(i * a.Sw + j), phase, 0, (int)dh, (int)dw});
        }
    return taps;
}

}  // namespace

extern "C" int shconv_forward(const Arguments* a, GompParallel gomp, int route, const float* x, const float* weight,
                              const float* M, float* Y) try {
    const int T = (int)(a->Sh * a->Sw);
    const Threads threads{gomp, (int)a->threads};
    const Pass pass{images_x(*a, x), images_Y(*a, Y), taps(*a), weight, a->D * T, T, M, a->N, T, threads};
    route == TAPS ? scatter::run(pass, nullptr, nullptr) : gather::run(pass);
    return 0;
} catch (...) {
    return 1;
}

// Gradients of x and, route TAPS only, of M (dM may be null); dX has the layout of x.
extern "C" int shconv_backward_input(const Arguments* a, GompParallel gomp, int route, const float* dY, const float* x,
                                     const float* weight, const float* M, float* dX, float* dM) try {
    const int T = (int)(a->Sh * a->Sw);
    std::vector<Tap> adjoint = taps(*a);
    for (Tap& t : adjoint) std::swap(t.from, t.to), t.dh = -t.dh, t.dw = -t.dw;
    const Images X = images_x(*a, x);
    const Threads threads{gomp, (int)a->threads};
    const Pass pass{images_Y(*a, dY), images_x(*a, dX), adjoint, weight, T, a->D * T, M, a->N, T, threads};
    route == TAPS ? scatter::run(pass, dM ? &X : nullptr, dM) : gather::run(pass);
    return 0;
} catch (...) {
    return 1;
}

// Gradient of the weight (C, D, T) and, route IMAGES only, of M; each may be null.
extern "C" int shconv_backward_weight(const Arguments* a, GompParallel gomp, int route, const float* dY, const float* x,
                                      const float* weight, const float* M, float* dW, float* dM) try {
    const Threads threads{gomp, (int)a->threads};
    const weight::Problem problem{images_x(*a, x), images_Y(*a, dY), taps(*a), weight, M, dW, dM, a->N, threads};
    route == TAPS ? weight::taps(problem) : weight::images(problem);
    return 0;
} catch (...) {
    return 1;
}
