// Threads: the OpenMP pool that torch already runs (its entry point is handed in), else new ones for every call.
// Scratch memory: per thread, kept between calls, because fresh pages cost more than the work on small layers.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

struct Threads {
    GompParallel gomp;
    int count;
};

// Call body(task) for every task; a free thread takes the next one, so no result may depend on who runs what.
template <class Body>
void parallel(Threads threads, int64_t tasks, const Body& body) {
    struct Shared {
        const Body& body;
        int64_t tasks;
        std::atomic<int64_t> next{0};
        std::atomic<bool> failed{false};
    } shared{body, tasks};
    void (*work)(void*) = [](void* pointer) {
        auto& s = *(Shared*)pointer;
        try {
            for (int64_t task; (task = s.next.fetch_add(1, std::memory_order_relaxed)) < s.tasks;) s.body(task);
        } catch (...) {  // nothing may be thrown through the pool
            s.failed = true;
        }
    };
    const int64_t count = threads.count < tasks ? threads.count : tasks;
    if (count <= 1) {
        work(&shared);
    } else if (threads.gomp) {
        threads.gomp(work, &shared, (unsigned)count, 0);
    } else {
        std::vector<std::thread> others;
        for (int64_t i = 1; i < count; i++) others.emplace_back(work, &shared);
        work(&shared);
        for (std::thread& other : others) other.join();
    }
    if (shared.failed) throw std::bad_alloc();
}

// A thread's scratch buffer of that number, at least n floats, 64-byte aligned, contents undefined.
inline float* scratch(int number, int64_t n) {
    struct Buffer {
        void* data = nullptr;
        int64_t size = 0;
        ~Buffer() { std::free(data); }
    };
    static thread_local Buffer buffers[8];
    Buffer& buffer = buffers[number];
    if (buffer.size < n) {
        std::free(buffer.data);
        buffer.data = nullptr;
        buffer.size = 0;
        if (posix_memalign(&buffer.data, 64, n * sizeof(float))) throw std::bad_alloc();
        buffer.size = n;
    }
    return (float*)buffer.data;
}
