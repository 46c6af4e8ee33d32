// SPDX-License-Identifier: MIT
#pragma once
// What the Python package has of a model beside its C interface. Each unit that the package
// compiles includes this header once, and exports linnet_python().

#include <linnet/c_interface.hpp>
#include <linnet/compress/quantize.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/rwkv.hpp>

LINNET_NAMESPACE_BEGIN

/// Number of the table below: python/linnet/_api.py has the same, and both grow where it changes.
inline constexpr std::uint32_t python_layout = 1;

/// Functions of a model for the Python package, in the order of its ctypes.Structure.
struct python_table {
  std::uint32_t layout;
  const linnet_api* api;
  std::int64_t parameters, bytes;  ///< trainable numbers, and bytes of the weights as stored
  /// Writes lines of a key and a value, at most `room` bytes; returns how many there are.
  std::size_t (*describe)(char* to, std::size_t room);
  /// Summed nats of tokens and labels [batch, length], and how many labels count. `logits`, unless
  /// null, has room for [batch, length, vocabulary].
  linnet_code (*score)(linnet_model* model, const std::int32_t* tokens, const std::int32_t* labels,
                       std::size_t batch, std::size_t length, float* logits, double* nats,
                       std::int64_t* counted);
  /// Writes packed weights, which run.
  linnet_code (*save_packed)(linnet_model* model, const char* path);
  /// Makes weights of this type from an .npz file of the type before, and writes them as a file
  /// that open_file() takes. Null where no type is before.
  linnet_code (*make)(const void* bytes, std::size_t size, const char* path);
};

namespace detail {

template <class M>
struct python_functions {
  using calls = c_functions<M>;
  using handle = typename calls::handle;

  static std::size_t describe(char* to, std::size_t room) LINNET_TRY {
    std::string text = "format linnet\nstorage " + storage::name_of<storage_of<M, float>>() + '\n';
    for (const key_value& one : metadata_of<M>()) text += one.key + ' ' + one.value + '\n';
    std::copy_n(text.data(), (std::min)(text.size(), room), to);
    return text.size();
  }
  LINNET_WITHOUT_MEMORY(return 0)

  static linnet_code score(linnet_model* model, const std::int32_t* tokens,
                           const std::int32_t* labels, std::size_t batch, std::size_t length,
                           float* logits, double* nats, std::int64_t* counted) {
    handle* h = nullptr;
    if (const auto code = calls::ready(model, "score: model is null or another's", h);
        code != LINNET_OK)
      return code;
    if (batch > std::size_t{INT32_MAX} || length > std::size_t{INT32_MAX})
      return c_say(LINNET_INVALID, "score: batch or length is beyond any limit");
    const auto rows = static_cast<index>(batch), columns = static_cast<index>(length);
    auto judge =
        evaluator<M>::open(h->panels, {.batch = rows,
                                       .target = columns,
                                       .threads = (std::max)(h->options.threads, std::int32_t{1})});
    if (!judge) return c_failed(judge.error());
    std::span<float> to;
    if (logits != nullptr) to = {logits, batch * length * static_cast<std::size_t>(M::vocabulary)};
    const loss_sum sum =
        judge->loss({.tokens = tokens, .labels = labels, .batch = rows, .length = columns}, to);
    if (!judge->last_refusal().empty()) return c_refused(judge->last_refusal());
    *nats = sum.nats;
    *counted = sum.tokens;
    return c_say(LINNET_OK, "");
  }

  static linnet_code save_packed(linnet_model* model, const char* path) LINNET_TRY {
    handle* h = nullptr;
    if (const auto code = calls::ready(model, "save_packed: model is null or another's", h);
        code != LINNET_OK)
      return code;
    return c_done(linnet::save_packed(h->panels, path));
  }
  LINNET_WITHOUT_MEMORY(return c_failed(out_of_memory("save_packed")))
};

/// Loads weights of `Before`, gives them to `change` and writes what that returns.
template <class Before, class Change>
linnet_code python_make(const void* bytes, std::size_t size, const char* path,
                        Change&& change) LINNET_TRY {
  weights<Before> before;
  if (auto done = load_npz(before, std::span(static_cast<const std::byte*>(bytes), size)); !done)
    return c_failed(done.error());
  const auto after = change(before);
  if (!after.valid()) return c_failed(after.error());
  if constexpr (std::is_same_v<typename std::remove_cvref_t<decltype(after)>::storage,
                               storage::f32>)
    return c_done(save_npz(after, path));
  else
    return c_done(linnet::save_packed(linnet::pack(after), path));
}
LINNET_WITHOUT_MEMORY(return c_failed(out_of_memory("compress")))

}  // namespace detail

/// The table of model `M`. A unit keeps it as a static of its own: loaders would share a variable
/// of one name among libraries.
template <class M>
python_table python_table_of(decltype(python_table::make) make = nullptr) {
  using functions = detail::python_functions<M>;
  return {
      python_layout,       c_interface<M>(LINNET_ABI), M::parameters(),        weight_bytes<M>(),
      functions::describe, functions::score,           functions::save_packed, make};
}

LINNET_NAMESPACE_END
