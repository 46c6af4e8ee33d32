// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Operations of layers as a profile sees them: their time and their work.

#include <type_traits>

#include <linnet/nn/layer.hpp>
#include <linnet/nn/virtual_tokens.hpp>
#include <linnet/ops/language.hpp>
#include <linnet/storage/profiled.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Times an operation of a model stored as `S`; nothing, and no code, in a model without a profile.
template <class S>
using timed = typename profile_of<S>::type::scope;

/// Bytes of the parameters of a layer, matrices stored as `S` and all else in `T`.
template <class Layer, class T, class S>
constexpr index parameter_bytes() {
  index bytes = 0;
  each_tensor<Layer>([&](const parameter_path&, const tensor_info& info) {
    bytes += info.stored() ? matrix_bytes<typename unprofiled_storage<storage::single<S>>::type>(
                                 info.rows, info.columns)
                           : info.size() * static_cast<index>(sizeof(T));
  });
  return bytes;
}

/// Work of a layer on `rows` rows. Forward, it reads parameters and inputs and writes outputs.
/// Backward, two products stand for one. It reads parameters, inputs and the gradient of outputs,
/// and adds to the gradients of parameters and inputs.
template <class Layer, class T, class S>
constexpr operation_cost layer_cost(index rows, direction way = direction::forward) {
  constexpr index word = sizeof(T), stored = parameter_bytes<Layer, T, S>();
  const index flops = Layer::flops(call_shape{.batch = rows, .length = 1});
  if (way == direction::forward) return {flops, stored + word * rows * (Layer::in + Layer::out)};
  return {2 * flops,
          stored + word * (2 * count_parameters<Layer>() + rows * (3 * Layer::in + Layer::out))};
}
/// Work of a pass that reads and writes so many numbers.
template <class T>
constexpr operation_cost pass_cost(index numbers) {
  return {0, numbers * static_cast<index>(sizeof(T))};
}

/// Times a pass over so many numbers.
template <class Profile, class T>
struct pass_scope : Profile::scope {
  pass_scope(const team& threads, operation what, index numbers, direction way = direction::forward)
      : Profile::scope(threads, what, way) {
    this->add(pass_cost<T>(numbers));
  }
};
/// pass_scope of a model stored as `S`; nothing, and no code, in a model without a profile.
template <class S, class T>
using timed_pass = std::conditional_t<is_profiled<S>, pass_scope<typename profile_of<S>::type, T>,
                                      no_profile::scope>;

/// Work of looking up `rows` rows of a table of `width` columns in storage `S`.
template <class T, class S>
constexpr operation_cost lookup_cost(index rows, index width) {
  return {0, rows * (matrix_bytes<typename unprofiled_storage<storage::single<S>>::type>(1, width) +
                     width * static_cast<index>(sizeof(T)))};
}
/// Work of a head on `rows` rows: logits. One that trains also has two products for the derivatives
/// and adds to the gradients of rows and table. The logits themselves need not leave the caches.
template <class T, class S>
constexpr operation_cost head_cost(index rows, index width, index vocabulary, bool trains) {
  constexpr index word = sizeof(T);
  const index flops = 2 * rows * width * vocabulary,
              table = matrix_bytes<typename unprofiled_storage<storage::single<S>>::type>(
                  vocabulary, width);
  if (!trains) return {flops, table + word * rows * (width + vocabulary)};
  return {3 * flops, table + word * (2 * vocabulary * width + 3 * rows * width)};
}
/// Times a layer that is one operation, and notes its work.
template <class Profile, class S, class T, class Layer = void>
struct layer_scope : Profile::scope {
  layer_scope(const team& threads, operation what, index rows, direction way = direction::forward)
      : Profile::scope(threads, what, way) {
    this->add(layer_cost<Layer, T, S>(rows, way));
  }
};
/// Times an operation whose work is not noted here.
template <class Profile, class S, class T>
struct layer_scope<Profile, S, T, void> : Profile::scope {
  layer_scope(const team& threads, operation what, index, direction way = direction::forward)
      : Profile::scope(threads, what, way) {}
};
/// layer_scope of a model stored as `S`; nothing, and no code, in a model without a profile.
template <class S, class T, class Layer>
using timed_layer =
    std::conditional_t<is_profiled<S>, layer_scope<typename profile_of<S>::type, S, T, Layer>,
                       no_profile::scope>;

/// Times a head on `rows` rows, and notes its work.
template <class Profile, class T, class S>
struct head_scope : Profile::scope {
  head_scope(const team& threads, index rows, index width, index vocabulary, bool trains = false)
      : Profile::scope(threads, operation::head) {
    this->add(head_cost<T, S>(rows, width, vocabulary, trains));
  }
};
/// head_scope of a model stored as `S` whose head reads a table stored as `Table`.
template <class S, class T, class Table>
using timed_head =
    std::conditional_t<is_profiled<S>, head_scope<typename profile_of<S>::type, T, Table>,
                       no_profile::scope>;

/// x[rows, d] = the embedding of a call's tokens behind their virtual ones, of a model stored as
/// `S`; timed.
template <class T, class S, class Matrix>
void timed_embed(const context<T>& ctx, index d, const token* tokens, const Matrix& table, T* x) {
  const timed<S> time(ctx.on.threads, operation::embedding);
  if constexpr (is_profiled<S>)
    time.add(lookup_cost<T, storage::at<S, storage::part::embedding>>(
        ctx.batch * (ctx.length - ctx.front), d));
  embed_behind(ctx, d, tokens, table, x);
  put_virtual_rows(ctx, d, x);
}
/// Adds the derivatives of timed_embed(). `dx` is overwritten where there are virtual tokens.
template <class T, class S>
void timed_embed_backward(const context<T>& ctx, index d, const token* tokens, T* dx, T* d_table) {
  const index rows = ctx.batch * (ctx.length - ctx.front);
  const timed_pass<S, T> time(ctx.on.threads, operation::embedding, 3 * rows * d,
                              direction::backward);
  virtual_rows_backward(ctx, d, dx);
  leave_virtual(ctx, d, dx);
  ops::embed_backward(ctx.on, rows, d, tokens, dx, d_table);
}

}  // namespace detail

LINNET_NAMESPACE_END
