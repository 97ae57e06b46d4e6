// Tensors as the kernels take them: checked, contiguous, kept alive while a kernel runs.
#pragma once

#include <optional>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "csr.h"
#include "scalar.h"

namespace sparsetorch {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// Calls f(I{}) with the C++ type of the indices.
template <typename F>
void dispatch_index(const Tensor& index, F&& f) {
  const ScalarType type = index.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Int || type == ScalarType::Long,
                  "indices must be int32 or int64");
  type == ScalarType::Long ? f(int64_t{}) : f(int32_t{});
}

// The tensor itself where it is contiguous: to ask PyTorch for a copy costs a call by name.
inline Tensor as_contiguous(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// The tensors of a CSR pattern. Rows and columns may be numbered in int32 where entries, which crow
// and perm count, need int64.
struct Pattern {
  Tensor crow, col;
  MaybeTensor perm;

  Pattern(const Tensor& crow_, const Tensor& col_, const MaybeTensor& perm_)
      : crow(as_contiguous(crow_)), col(as_contiguous(col_)) {
    if (perm_) perm = as_contiguous(*perm_);
    STD_TORCH_CHECK(crow.is_cpu() && col.is_cpu(), "the pattern must be on the CPU");
    STD_TORCH_CHECK(crow.scalar_type() == col.scalar_type() || crow.scalar_type() == ScalarType::Long,
                    "crow must have the dtype of col, or be int64");
    STD_TORCH_CHECK(crow.dim() == 1 && crow.numel() > 0 && col.dim() == 1,
                    "crow must have one more entry than there are rows");
    if (perm) {
      STD_TORCH_CHECK(perm->scalar_type() == crow.scalar_type() && perm->numel() == col.numel(),
                      "perm must have the shape of col and the dtype of crow");
    }
  }

  template <typename I, typename P = I>
  Csr<I, P> view() const {
    return {crow.const_data_ptr<P>(), col.const_data_ptr<I>(),
            perm ? perm->const_data_ptr<P>() : nullptr, crow.numel() - 1, col.numel()};
  }
};

// Calls f(I{}, P{}) with the C++ types of the columns and of the row pointers.
template <typename F>
void dispatch_pattern(const Pattern& pattern, F&& f) {
  const bool mixed = pattern.crow.scalar_type() != pattern.col.scalar_type();
  dispatch_index(pattern.col, [&]<typename I>(I) { mixed ? f(I{}, int64_t{}) : f(I{}, I{}); });
}

// Calls f(I{}) where rows, columns and entries are all counted in one type, as `layout.uniform`
// has them: kernels of many variants are compiled for two types of indices, not three.
template <typename F>
void dispatch_uniform(const Pattern& pattern, F&& f) {
  STD_TORCH_CHECK(pattern.crow.scalar_type() == pattern.col.scalar_type(),
                  "crow and col must have one dtype");
  dispatch_index(pattern.col, f);
}

// Calls f(T{}) with the C++ type of real values.
template <typename F>
void dispatch_real(const Tensor& values, F&& f) {
  const ScalarType type = values.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                  "values must be float32 or float64");
  type == ScalarType::Double ? f(double{}) : f(float{});
}

// Calls f(T{}) with the C++ type of real or complex values.
template <typename F>
void dispatch_field(const Tensor& values, F&& f) {
  const ScalarType type = values.scalar_type();
  if (type == ScalarType::ComplexDouble) return f(Complex<double>{});
  if (type == ScalarType::ComplexFloat) return f(Complex<float>{});
  dispatch_real(values, f);
}

// Calls f(T{}, I{}, P{}), T being the C++ type of the values.
template <typename F>
void dispatch(const Tensor& values, const Pattern& pattern, F&& f) {
  dispatch_field(values, [&](auto t) {
    dispatch_pattern(pattern, [&](auto i, auto p) { f(t, i, p); });
  });
}

// A dense operand (batch, first[, second]).
struct Operand {
  Tensor tensor;
  int64_t batch;
  int64_t step;  // from one batch to the next; 0 where the only one serves all

  Operand(const Tensor& t, const Tensor& like, int64_t dim, int64_t first, int64_t second = 1)
      : tensor(as_contiguous(t)), batch(t.size(0)), step(first * second) {
    STD_TORCH_CHECK(t.is_cpu() && t.scalar_type() == like.scalar_type() && t.dim() == dim &&
                        t.size(1) == first && (dim == 2 || t.size(2) == second),
                    "an operand does not fit the pattern");
    if (batch == 1) step = 0;
  }

  template <typename T>
  const T* data() const {
    return tensor.const_data_ptr<T>();
  }
};

// A batch of products: so many results, each the sum of so many products.
struct Batch {
  int64_t results;
  int64_t terms;

  Batch(const Operand& p, const Operand& q, bool reduce) {
    STD_TORCH_CHECK(p.batch == q.batch || p.batch == 1 || q.batch == 1,
                    "the batch sizes do not broadcast");
    const int64_t size = p.batch == 1 ? q.batch : p.batch;
    results = reduce ? 1 : size;
    terms = reduce ? size : 1;
  }
};

// A result (batch, first[, second]). Large ones ask for huge pages: the kernel writes all of
// it once, and page faults of 4 KiB each would cost more than the arithmetic.
inline Tensor make_output(const Tensor& like, std::vector<int64_t> sizes) {
  Tensor out = torch::stable::new_empty(like, sizes);
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(out.data_ptr());
  const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge;
  const uintptr_t last = (begin + out.numel() * out.element_size()) / kHuge * kHuge;
  if (first + 4 * kHuge <= last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: may fail
  }
#endif
  return out;
}

}  // namespace sparsetorch
