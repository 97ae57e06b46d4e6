// Tasks of unequal size, divided among the threads as these become free.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include <torch/csrc/stable/ops.h>

namespace sparsetorch {

// Calls run(task) for each; on this thread alone inside of another parallel region.
template <typename Run>
inline void run_tasks(int64_t tasks, const Run& run) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      for (int64_t task = next++; task < tasks; task = next++) run(task);
    }
  });
}

}  // namespace sparsetorch
