// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Packed weights from GGUF files, tensor by tensor.

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <linnet/formats/gguf_model.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Counts the bytes of the largest tensor.
struct finds_largest_leaf {
  index& bytes;

  template <class Leaf>
  constexpr void operator()(const parameter_path&, const tensor_info& info, Leaf& leaf) const {
    arena counter;
    place(counter, info, leaf);
    bytes = (std::max)(bytes, counter.peak());
  }
};
/// Lets each tensor begin where the memory does.
struct places_leaves_alike {
  void* memory;
  index size;

  template <class Leaf>
  constexpr void operator()(const parameter_path&, const tensor_info& info, Leaf& leaf) const {
    arena all(memory, size);
    place(all, info, leaf);
  }
};
/// Reads each tensor of a file into the memory of one, which it then packs.
struct packs_gguf_leaves {
  const std::vector<file_part>& parts;
  const std::vector<const gguf_tensor*>& found;
  std::vector<float>& row;
  std::size_t& next;

  template <class To, class From>
  void operator()(const parameter_path& at, const tensor_info& info, To& to,
                  const From& from) const {
    arena counter;
    From counted{};
    place(counter, info, counted);
    // Rows that the file lacks are zeros, not those of the tensor before.
    const std::size_t i = next++;
    __builtin_memset(first_byte(from), 0, static_cast<std::size_t>(counter.peak()));
    copy_in(parts[i].tensor, parts[i].at, *found[i], row);
    packs_leaves{ops::execution{}}(at, info, to, from);
  }

 private:
  template <class S>
  static void* first_byte(const matrix_ref<S>& leaf) {
    return leaf.data;
  }
  template <class T>
  static void* first_byte(T* const& leaf) {
    return leaf;
  }
};

}  // namespace detail

/// Packs the weights of a parsed GGUF file, as load_gguf() reads them, for sessions and evaluators.
/// The result is that of pack(). Beside it there is memory for the model's largest tensor, not for
/// all. Errors: those of load_gguf().
template <class M, class T = float>
result<packed<M, T>> pack_gguf(const gguf& file, nonfinite values = nonfinite::keep) LINNET_TRY {
  using S = storage_of<M, T>;
  if constexpr (!detail::fits_gguf<M, S>()) {
    return packed<M, T>{};
  } else {
    using canonical = form::canonical<T, S>;
    if (auto fits = detail::check_gguf_facts<M>(file); !fits) return fits.error();
    typename M::template params<canonical> tree{};
    index bytes = 0;
    const detail::finds_largest_leaf largest{bytes};
    detail::each_leaf(largest, detail::tree_of<M, canonical>{tree});
    const memory_block memory(bytes);
    if (!memory.data()) return detail::out_of_memory("pack_gguf", bytes);
    const detail::places_leaves_alike alike{memory.data(), memory.size()};
    detail::each_leaf(alike, detail::tree_of<M, canonical>{tree});
    std::vector<detail::leaf> tensors;
    const detail::lists_leaves<T> list{tensors};
    detail::each_leaf(list, detail::tree_of<M, canonical, true>{tree});
    const auto parts = detail::gguf_parts_of<M>(std::move(tensors));
    const auto found = detail::find_gguf_parts(file, parts, gguf_architecture_of<M>(), values);
    if (!found) return found.error();
    packed<M, T> made;
    if (!made.valid()) return made.error();
    std::vector<float> row;
    std::size_t next = 0;
    const detail::packs_gguf_leaves packs{parts, *found, row, next};
    detail::each_leaf(packs, detail::tree_in(made), detail::tree_of<M, canonical, true>{tree});
    return made;
  }
}
LINNET_OR_OUT_OF_MEMORY(file.where())
/// Packs the weights of a GGUF file, which is mapped. Errors: as above, and those of read_gguf().
template <class M, class T = float>
result<packed<M, T>> pack_gguf(const std::string& path,
                               nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = read_gguf(path);
  return file ? pack_gguf<M, T>(*file, values) : result<packed<M, T>>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
