// Launches compiled kernels one after the other, by what launcher.py wrote down about them. Plain C in all but name; the
// driver's functions are given, so that nothing is linked with CUDA.
//
// A program is words of 64 bits: how many kernels, then for each
//   function, grid x, y, z, threads, bytes of shared memory, how many parameters, and for each parameter one of
//   0, value                                                          a number, its bytes in the word
//   1, slot, offset                                                   an address
//   2, slot, offset, dtype, rank, swizzle, fill, small, sizes, strides, box
//                                                                     a tensor map (CUtensorMap), by value; sizes and
//                                                                     box have rank words, strides (bytes) one less
// launcher.py keeps to MOST_PARAMETERS and MOST_MAPS. Addresses are those of the slots plus the offsets.

#include <stdint.h>

enum { MOST_PARAMETERS = 128, MOST_MAPS = 8, MOST_RANK = 5 };

typedef int (*Launch)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters,
                      void** extra);
typedef int (*Encode)(void* map, int dtype, uint32_t rank, void* address, const uint64_t* sizes,
                      const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave, int swizzle,
                      int promotion, int fill);

struct Driver {
    Launch launch;                                // cuLaunchKernel
    Encode encode;                                // cuTensorMapEncodeTiled; null where no program has maps
    int (*current)(void** context);               // cuCtxGetCurrent
    int (*retain)(void** context, int device);    // cuDevicePrimaryCtxRetain
    int (*set)(void* context);                    // cuCtxSetCurrent
};

struct Map {
    alignas(128) uint64_t words[16];
};

// A thread that has not computed on a card yet has no context.
static int enter(const Driver* driver, int device) {
    void* context = nullptr;
    int failed = driver->current(&context);
    if (failed || context) return failed;
    if ((failed = driver->retain(&context, device))) return failed;
    return driver->set(context);
}

static int encode(const Driver* driver, Map* map, const int64_t* words, uint64_t address) {
    const int rank = (int)words[1];
    const int64_t *sizes = words + 5, *strides = sizes + rank, *box = strides + rank - 1;
    uint64_t extent[MOST_RANK], step[MOST_RANK] = {0};
    uint32_t side[MOST_RANK], each[MOST_RANK];
    for (int i = 0; i < rank; ++i) {
        extent[i] = (uint64_t)sizes[i];
        side[i] = (uint32_t)box[i];
        each[i] = 1;
        if (i + 1 < rank) step[i] = (uint64_t)strides[i];
    }
    const int no_interleave = 0, promotion_128 = 2;
    const int failed = driver->encode(map, (int)words[0], (uint32_t)rank, (void*)address, extent, step, side, each,
                                      no_interleave, (int)words[2], promotion_128, (int)words[3]);
    if (words[4]) map->words[1] &= ~(1ull << 21);  // what CUTLASS and Triton mend for older drivers
    return failed;
}

// 0, or the driver's code for what failed.
extern "C" int shconv_launch(const Driver* driver, int device, const int64_t* words, const uint64_t* slots,
                             void* stream) {
    int failed = enter(driver, device);
    uint64_t cells[MOST_PARAMETERS];
    void* parameters[MOST_PARAMETERS];
    Map maps[MOST_MAPS];
    for (int64_t kernels = *words++; kernels > 0 && !failed; --kernels) {
        const int64_t* head = words;
        words += 7;
        int used = 0;
        for (int64_t i = 0; i < head[6] && !failed; ++i) {
            parameters[i] = &cells[i];
            if (words[0] == 0) {
                cells[i] = (uint64_t)words[1];
                words += 2;
                continue;
            }
            cells[i] = slots[words[1]] + (uint64_t)words[2];
            if (words[0] == 1) {
                words += 3;
                continue;
            }
            parameters[i] = &maps[used];
            failed = encode(driver, &maps[used++], words + 3, cells[i]);
            words += 8 + 3 * words[4] - 1;
        }
        if (!failed)
            failed = driver->launch((void*)head[0], (unsigned)head[1], (unsigned)head[2], (unsigned)head[3],
                                    (unsigned)head[4], 1, 1, (unsigned)head[5], stream, parameters, nullptr);
    }
    return failed;
}
