// Values put into another order: memory traffic only, for any type of 2, 4, 8 or 16 bytes.
#pragma once

#include "tensors.h"

namespace sparsetorch {

struct SixteenBytes {
  uint64_t half[2];
};

// Calls f(T{}) with a type of so many bytes.
template <typename F>
void dispatch_size(int64_t bytes, F&& f) {
  switch (bytes) {
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    case 8: return f(uint64_t{});
    case 16: return f(SixteenBytes{});
    default: STD_TORCH_CHECK(false, "values must have 2, 4, 8 or 16 bytes");
  }
}

// values (batch, n) and a permutation (n,): out[b, e] = values[b, perm[e]], or with `inverse`
// out[b, perm[e]] = values[b, e].
inline Tensor permute(const Tensor& values, const Tensor& perm, bool inverse) {
  const int64_t n = perm.numel();
  const Operand from(values, values, 2, n);
  const Tensor order = as_contiguous(perm);
  STD_TORCH_CHECK(order.is_cpu() && order.dim() == 1, "perm must be one row on the CPU");
  Tensor out = make_output(values, {values.size(0), n});
  const int64_t batch = values.size(0);
  dispatch_index(order, [&]<typename P>(P) {
    dispatch_size(values.element_size(), [&]<typename T>(T) {
      const P* const place = order.const_data_ptr<P>();
      const T* const source = static_cast<const T*>(from.tensor.data_ptr());
      T* const target = static_cast<T*>(out.data_ptr());
      torch::stable::parallel_for(0, n, 32768, [&](int64_t begin, int64_t end) {
        for (int64_t b = 0; b < batch; ++b) {
          const T* const v = source + b * n;
          T* const o = target + b * n;
          if (inverse) {
            for (int64_t e = begin; e < end; ++e) o[place[e]] = v[e];
          } else {
            for (int64_t e = begin; e < end; ++e) o[e] = v[place[e]];
          }
        }
      });
    });
  });
  return out;
}

}  // namespace sparsetorch
