// The C interface: the filtered convolution Y_n = conv(X_n, W * M_n) and its gradients, float32, one group.
// Returns 0, or 1 when memory ran out; arrays as compiled.py describes them.
#include "amx.h"
#include "arguments.h"
#include "channels.h"
#include "gather.h"
#include "scatter.h"
#include "statistics.h"
#include "weight.h"

namespace {

enum Route { IMAGES = 0, TAPS = 1 };

Images images(const float* data, int64_t C, int64_t H, int64_t W, int64_t stride_h, int64_t stride_w, bool last) {
    const int64_t channel = last ? 1 : H * W, point = last ? C : 1;
    return {(float*)data, (int)C, (int)H, (int)W, (int)stride_h, (int)stride_w, C * H * W, channel, point};
}

Images images_x(const Arguments& a, const float* x) {
    return images(x, a.D, a.H, a.W, a.stride_h, a.stride_w, a.x_last);
}

Images images_Y(const Arguments& a, const float* Y) { return images(Y, a.C, a.Ho, a.Wo, 1, 1, a.y_last); }

// In the weight, from one channel of x to the next and from one tap to the next.
int64_t next_channel(const Arguments& a) { return a.weight_last ? 1 : a.Sh * a.Sw; }

int64_t next_tap(const Arguments& a) { return a.weight_last ? a.D : 1; }

void run(const Pass& pass, int route, const Images* X, float* dM) {
    if (pass.destination.point > 1) channels::run(pass, route == TAPS, X, dM);
    else if (route == TAPS) scatter::run(pass, X, dM);
    else gather::run(pass);
}

}  // namespace

extern "C" int shconv_forward(const Arguments* a, GompParallel gomp, int route, const float* x, const float* weight,
                              const float* M, float* Y) try {
    const int T = (int)(a->Sh * a->Sw);
    const Threads threads{gomp, (int)a->threads};
    const Pass pass{images_x(*a, x), images_Y(*a, Y), a->taps(), weight, a->D * T, next_channel(*a), next_tap(*a),
                    M, a->N, T, threads};
    run(pass, route, nullptr, nullptr);
    return 0;
} catch (...) {
    return 1;
}

// Gradients of x and, route TAPS only, of M (dM may be null); dX has the layout of x.
extern "C" int shconv_backward_input(const Arguments* a, GompParallel gomp, int route, const float* dY, const float* x,
                                     const float* weight, const float* M, float* dX, float* dM) try {
    const int T = (int)(a->Sh * a->Sw);
    const Images X = images_x(*a, x);
    const Threads threads{gomp, (int)a->threads};
    const Pass pass{images_Y(*a, dY), images_x(*a, dX), a->adjoint_taps(), weight, next_channel(*a), a->D * T,
                    next_tap(*a), M, a->N, T, threads};
    run(pass, route, dM ? &X : nullptr, dM);
    return 0;
} catch (...) {
    return 1;
}

// Gradient of the weight, in its layout, and, route IMAGES only, of M; each may be null.
extern "C" int shconv_backward_weight(const Arguments* a, GompParallel gomp, int route, const float* dY, const float* x,
                                      const float* weight, const float* M, float* dW, float* dM) try {
    const Threads threads{gomp, (int)a->threads};
    const weight::Problem problem{images_x(*a, x), images_Y(*a, dY), a->taps(), weight, M, dW, dM, next_channel(*a),
                                  next_tap(*a), a->N, threads};
    route == TAPS ? weight::taps(problem) : weight::images(problem);
    return 0;
} catch (...) {
    return 1;
}
