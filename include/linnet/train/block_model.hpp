// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A block of a model by itself: as a model of its own, copied as it is stored, and packed.

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <linnet/nn/sharing.hpp>
#include <linnet/storage/fake_quantized.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// One block as a model, of which weights, gradients and optimizers can be.
template <class Layer, class Storage = storage::f32>
struct block_model {
  using storage = Storage;
  template <class Other>
  using with_storage = block_model<Layer, Other>;
  template <class Form>
  using params = typename Layer::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Layer::visit(f, at, p...);
  }
  /// Channels inside of the block; its ends are other blocks' as well.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index stream = c.open(Layer::in);
    c.fix(stream, "the stream between blocks");
    describe_channels<Layer>(c.between(stream, stream), p);
  }
};

/// The layer of a stack whose blocks are of one type and have parameters of their own.
template <class Stack>
struct block_of_stack {};
template <class Layer, index N, index First, index All>
struct block_of_stack<repeat<Layer, N, First, All, own_parameters<Layer, N, First, All>>> {
  using type = Layer;
};
/// The part of a model that has its blocks.
template <class M>
struct body_of {
  using type = M;
};
template <class M>
requires requires { typename M::body; }
struct body_of<M> {
  using type = typename M::body;
};
template <class M>
concept has_lone_blocks = requires {
  typename block_of_stack<typename body_of<M>::type::blocks>::type;
};

/// Copies a tensor as it is stored.
template <class Leaf>
void copy_stored(const tensor_info& info, const Leaf& from, const Leaf& to) {
  if constexpr (std::is_pointer_v<Leaf>) {
    std::copy_n(from, info.size(), to);
  } else {
    using S = typename Leaf::storage;
    const index groups = row_scales<S>(info.columns);
    std::copy_n(from.data, info.rows * row_values<S>(info.columns), to.data);
    if constexpr (S::scaled) std::copy_n(from.scales, info.rows * groups, to.scales);
    if constexpr (S::centred) std::copy_n(from.zeros, info.rows * groups, to.zeros);
    [[maybe_unused]] const auto copy = [](auto source, auto target, index rows, index columns) {
      const void* parts[8] = {};
      std::size_t i = 0;
      source.visit(rows, columns,
                   [&](const char*, auto*& values, index, index) { parts[i++] = values; });
      i = 0;
      target.visit(rows, columns, [&](const char*, auto*& values, index r, index c) {
        __builtin_memcpy(values, parts[i++], static_cast<std::size_t>(r * c) * sizeof *values);
      });
    };
    if constexpr (has_levels<S>) copy(from.levels, to.levels, info.rows, groups);
    if constexpr (is_corrected<S>) copy(from.correction, to.correction, info.rows, info.columns);
  }
}

/// Packs what the codes of a block stand for, as numbers.
template <class Layer, class Codes, class Packed>
void pack_codes(const ops::execution& on, const Codes& codes, Packed& to) {
  Layer::visit(
      [&](const parameter_path&, const tensor_info& info, auto& panels, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          ops::copy(on, info.size(), static_cast<const float*>(from), const_cast<float*>(panels));
        } else {
          using fake = typename std::remove_cvref_t<decltype(panels)>::storage;
          auto* const numbers = const_cast<float*>(panels.rows);
          on.threads.each(info.rows, [&](index r) {
            for (index j = 0; j < info.columns; ++j)
              numbers[r * info.columns + j] = static_cast<float>(from.at(r, j, info.columns));
          });
          ops::pack(on, info.rows, info.columns, matrix_ref<fake>{numbers}, panels);
        }
      },
      parameter_path{}, to, codes);
}

}  // namespace detail

LINNET_NAMESPACE_END
