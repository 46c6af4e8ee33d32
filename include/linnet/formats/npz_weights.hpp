// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Weights as .npz files: each tensor is an array under its dotted name. Opt-in, through
/// linnet/numpy.hpp.

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/formats/npz.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A compile-time error for weights whose tensors are not arrays of NumPy's reals.
template <class M, class T>
constexpr bool fits_npz() {
  using S = typename weights<M, T>::storage;
  if constexpr (!std::is_same_v<S, storage::f32> && !std::is_same_v<S, storage::f64> &&
                !std::is_same_v<S, storage::f16>)
    static_assert(never<M>,
                  "linnet: .npz files hold weights in f32, f64 or f16; save others by "
                  "save_safetensors()");
  else
    return true;
  return false;
}

/// The array of a tensor, without its values: [rows, columns], or [n] for a vector.
inline npy_array npy_of(const leaf& tensor) {
  npy_array made{.name = tensor.name, .type = tensor.type};
  made.dimensions = tensor.vector ? 1 : 2;
  made.extents = {tensor.rows, tensor.columns};
  made.data = {tensor.data, static_cast<std::size_t>(tensor.size() * size_of(tensor.type))};
  return made;
}

/// load_npz() into tensors of any model.
inline result<void> fill_from_npz(const std::vector<leaf>& leaves, const npz& file,
                                  nonfinite values) {
  for (const leaf& tensor : leaves) {
    const npy_array expected = npy_of(tensor), *const found = file.find(tensor.name);
    const auto wrong = [&](errc code, std::string_view wanted, std::string_view got) {
      return failure(code, file.where(), tensor.name, wanted, got);
    };
    if (!found || !is_real(found->type) || !std::ranges::equal(found->shape(), expected.shape()))
      return wrong(found ? errc::mismatch : errc::missing,
                   expected.description() + " or another real type (the model type)",
                   found ? found->description() : std::string("no such array"));
    if (values == nonfinite::refuse && !all_finite(found->type, found->data.data(), found->size()))
      return wrong(errc::invalid, "finite numbers", "a NaN or an infinity");
  }
  for (const npy_array& array : file.arrays())
    if (std::ranges::none_of(leaves, [&](const leaf& l) { return l.name == array.name; }))
      return failure(errc::mismatch, file.where(), printable(array.name),
                     "only tensors of the model type", array.description());
  for (const leaf& tensor : leaves) {
    const npy_array& from = *file.find(tensor.name);
    placement at{tensor.name, tensor.rows, tensor.columns, tensor.vector};
    at.transposed = from.fortran;  // an element of the file is [column, row]
    if (from.fortran) at.columns = tensor.rows;
    copy_in(tensor, at, from.type, from.data.data());
  }
  return {};
}

}  // namespace detail

/// Saves all weights as an .npz file: one array for each tensor, under its name. The same weights
/// always give the same bytes. Errors: those of write_npz(), and the error of `w` if it is not
/// valid().
template <class M, class T>
result<void> save_npz(const weights<M, T>& w, const std::string& path) LINNET_TRY {
  if (!w.valid()) return w.error();
  std::vector<npy_array> arrays;
  if constexpr (detail::fits_npz<M, T>())
    for (const detail::leaf& tensor : detail::leaves_of(w))
      arrays.push_back(detail::npy_of(tensor));
  return write_npz(path, arrays);
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Loads all weights from a parsed .npz file, converting between F16, F32 and F64; either order
/// will do. Every tensor of the model must be there in its shape, and nothing else; `w` is
/// untouched unless all of it fits. The file says nothing of the model beyond names and shapes.
/// Errors: errc::missing, errc::mismatch, errc::out_of_memory, and errc::invalid where `values` are
/// to be finite.
template <class M, class T>
result<void> load_npz(weights<M, T>& w, const npz& file,
                      nonfinite values = nonfinite::keep) LINNET_TRY {
  if (!w.valid()) return w.error();
  if constexpr (detail::fits_npz<M, T>())
    return detail::fill_from_npz(detail::leaves_of(w), file, values);
  return {};
}
LINNET_OR_OUT_OF_MEMORY(file.where())
/// Loads weights from the bytes of an .npz file; `where` names it in errors. Errors: as above, and
/// those of parse_npz().
template <class M, class T>
result<void> load_npz(weights<M, T>& w, std::span<const std::byte> bytes,
                      const std::string& where = "npz",
                      nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = parse_npz(bytes, where);
  return file ? load_npz(w, *file, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(where)
/// Loads weights from an .npz file. Errors: as above, and those of read_npz().
template <class M, class T>
result<void> load_npz(weights<M, T>& w, const std::string& path,
                      nonfinite values = nonfinite::keep) LINNET_TRY {
  const auto file = read_npz(path);
  return file ? load_npz(w, *file, values) : result<void>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
