// One pass of a filtered convolution over one tensor into another: forward (x -> Y) or its adjoint (dY -> dX).
// Destination pixel (h, w) of phase `to` reads source pixel (h + dh, w + dw) of phase `from` through tap t.
#pragma once
#include <vector>

#include "parallel.h"
#include "images.h"

struct Tap {
    int t, from, to, dh, dw;
};

struct Pass {
    Images source, destination;
    std::vector<Tap> taps;
    const float* weight;  // element (destination channel, source channel, tap) at the strides below
    int64_t weight_to, weight_from, weight_tap;
    const float* M;  // (N, T)
    int64_t images;
    int T;
    Threads threads;
};

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
