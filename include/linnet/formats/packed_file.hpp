// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Packed weights in files and arrays, run where they lie: mapped read-only, or constants of the
/// program. Numbers are little-endian:
///
///     8 bytes  "linnetPK"
///     4        0x01020304 in the byte order of the panels
///     4        version; all versions have these 16 bytes
///     8        size of the header: 32 bytes and the text, filled up with zeros to a multiple of 64
///     8        size of the panels
///     text     what the model type says of itself: lines of a key, a space and a value
///     ...      the panels, to the end of the file
///
/// The model type decides every byte before the panels, so whatever differs is refused.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <linnet/core/view.hpp>
#include <linnet/file/mapped_file.hpp>
#include <linnet/model/metadata.hpp>
#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::string_view packed_magic = "linnetPK";
inline constexpr std::uint32_t packed_order = 0x01020304, packed_version = 2;

/// The first bytes of a packed file.
struct packed_head {
  char magic[8];
  std::uint32_t order, version;
  std::uint64_t header, panels;  ///< sizes
};
static_assert(sizeof(packed_head) == 32);

/// A number of 64 bits that differs where two sequences of texts and numbers do (FNV-1a).
struct layout_digest {
  std::uint64_t value = 0xcbf29ce484222325;

  void add(std::uint64_t number) {
    for (int i = 0; i < 8; ++i) value = (value ^ (number >> 8 * i & 255)) * 0x100000001b3;
  }
  void add(std::string_view text) {
    add(text.size());
    for (const char c : text) add(static_cast<std::uint64_t>(static_cast<unsigned char>(c)));
  }
  void add(const parameter_path& at) {
    if (at.parent) add(*at.parent);
    add(at.name);
    add(static_cast<std::uint64_t>(at.number));
  }
  template <class S>
  void add_storage() {
    add(std::string_view(S::name));
    add(static_cast<std::uint64_t>(S::group));
  }
  template <class T, class S>
  void add(const ops::packed_matrix<T, S>&) {
    add_storage<S>();
  }
  template <class T>
  void add(T* const&) {
    add_storage<std::conditional_t<std::is_same_v<std::remove_const_t<T>, double>, storage::f64,
                                   storage::f32>>();
  }
};

/// Calls f(key, value) with the texts of a packed file of `M`, in their order.
template <class M, class T, class F>
void describe_packed(F&& f) {
  using S = storage_of<M, T>;
  M::describe([&](const char* key, const auto& value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string_view>)
      f(key, std::string_view(value));
    else
      f(key, std::string_view(number_text(static_cast<double>(value))));
  });
  if constexpr (requires { S::mixes; }) {
    f("storage", std::string_view(S::name()));
  } else {
    f("storage", std::string_view(S::name));
    if (S::group > 0)
      f("storage_group", std::string_view(number_text(static_cast<double>(S::group))));
  }
  f("panel_width", std::string_view(number_text(static_cast<double>(ops::panel_width))));
  // Names, sizes and storage of all tensors: models from outside may say little of themselves.
  layout_digest digest;
  typename packed<M, T>::tree_type tree{};
  const auto add = [&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    digest.add(at);
    digest.add(static_cast<std::uint64_t>(info.rows));
    digest.add(static_cast<std::uint64_t>(info.columns));
    digest.add(leaf);
  };
  each_leaf(add, tree_of<M, form::packed<T, storage_of<M, T>>>{tree});
  char digits[16];
  for (int i = 0; i < 16; ++i) digits[i] = "0123456789abcdef"[digest.value >> (60 - 4 * i) & 15];
  f("tensors", std::string_view(digits, sizeof digits));
}

/// Compares the text of a packed file with what a model type says, piece by piece. Allocates for
/// words only.
class packed_text_reader {
 public:
  packed_text_reader(std::string_view text, const std::string& where) : all_(text), where_(where) {}

  /// The next key and value of the model type.
  void operator()(std::string_view key, std::string_view value) {
    if (failure_) return;
    const std::string_view rest = all_.substr(at_);
    if (begins(rest, key) && rest.substr(key.size() + 1).starts_with(value) &&
        rest.substr(key.size() + 1 + value.size()).starts_with('\n')) {
      at_ += key.size() + value.size() + 2;
      return;
    }
    const std::string type = printable(value) + " (the model type)";
    if (begins(rest, key))
      refuse(errc::mismatch, key, type, printable(line_of(rest).substr(key.size() + 1)));
    else if (const auto [other, said] = halves(line_of(rest)); comes_later(key) && !other.empty())
      refuse(errc::mismatch, other, "nothing (the model type)", printable(said));
    else
      refuse(errc::mismatch, key, type, "nothing");
  }
  /// Ends the text: nothing but zeros may follow, up to the next multiple of 64 bytes.
  std::optional<error> finish() {
    const std::string_view rest = all_.substr(at_);
    const index size = static_cast<index>(sizeof(packed_head) + at_);
    if (failure_) return failure_;
    if (const auto [key, value] = halves(line_of(rest)); !key.empty() && key[0] != '\0')
      refuse(errc::mismatch, key, "nothing (the model type)", printable(value));
    else if (rest.find_first_not_of('\0') != rest.npos)
      refuse(errc::malformed, "header", "zeros behind its text", "other bytes");
    else if (round_up(size, alignment) != static_cast<index>(sizeof(packed_head) + all_.size()))
      refuse(errc::malformed, "header size", std::to_string(round_up(size, alignment)),
             std::to_string(sizeof(packed_head) + all_.size()));
    return failure_;
  }

 private:
  std::string_view all_;
  std::size_t at_ = 0;
  const std::string& where_;
  std::optional<error> failure_;

  static bool begins(std::string_view text, std::string_view key) {
    return text.starts_with(key) && text.substr(key.size()).starts_with(' ');
  }
  static std::string_view line_of(std::string_view text) { return text.substr(0, text.find('\n')); }
  static std::pair<std::string_view, std::string_view> halves(std::string_view line) {
    const std::size_t space = line.find(' ');
    if (space == line.npos) return {};
    return {line.substr(0, space), line.substr(space + 1)};
  }
  /// Whether a line behind this one has the key.
  bool comes_later(std::string_view key) const {
    for (std::size_t end = all_.find('\n', at_); end != all_.npos; end = all_.find('\n', end + 1))
      if (begins(all_.substr(end + 1), key)) return true;
    return false;
  }
  void refuse(errc code, std::string_view what, std::string_view expected, std::string_view got) {
    failure_ = detail::failure(code, where_, printable(what), expected, got);
  }
};

/// The text of a packed file without what describes the model, and its head; the sizes are right.
inline result<std::string_view> packed_text(std::span<const std::byte> file,
                                            const std::string& where) LINNET_TRY {
  const auto wrong = [&](errc code, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(code, where, what, expected, got);
  };
  packed_head head{};
  if (file.size() < sizeof head)
    return wrong(errc::malformed, "file size", "at least " + std::to_string(sizeof head) + " bytes",
                 std::to_string(file.size()));
  __builtin_memcpy(&head, file.data(), sizeof head);
  if (std::string_view(head.magic, sizeof head.magic) != packed_magic)
    return wrong(errc::malformed, "", "packed weights, which begin with linnetPK",
                 "another beginning");
  if (head.order != packed_order)
    return wrong(errc::unsupported, "byte order", "this machine's", "another");
  if (head.version != packed_version)
    return wrong(errc::unsupported, "version", std::to_string(packed_version),
                 std::to_string(head.version));
  if (head.header < sizeof head || head.header > file.size() || head.header % alignment != 0)
    return wrong(errc::malformed, "header size",
                 "a multiple of " + std::to_string(alignment) + " within the file",
                 std::to_string(head.header));
  return std::string_view(reinterpret_cast<const char*>(file.data()) + sizeof head,
                          static_cast<std::size_t>(head.header) - sizeof head);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Checks a packed file whose text fitted: its panels reach from the header to its end, aligned.
inline result<void> check_panels(std::span<const std::byte> file, std::size_t header, index panels,
                                 const std::string& where) LINNET_TRY {
  packed_head head{};
  __builtin_memcpy(&head, file.data(), sizeof head);
  if (head.panels != static_cast<std::uint64_t>(panels))
    return detail::failure(errc::malformed, where, "size of the panels", std::to_string(panels),
                           std::to_string(head.panels));
  if (file.size() - header != static_cast<std::size_t>(panels))
    return error{
        errc::malformed, where, "file size",
        std::to_string(header + static_cast<std::size_t>(panels)) + " bytes for this header",
        std::to_string(file.size())};
  return fits_memory(where.c_str(), file.data(), file.size(), "", 0);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Checks the numbers of inputs that corrections name, and places of numbers: products read there.
template <class M, class T>
result<void> check_inputs(std::span<const std::byte> panels, const std::string& where) {
  bool fits = true, placed = true;
  const auto p = packed<M, T>::view(panels);
  p.visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
    if constexpr (requires { leaf.correction.inputs; })
      fits = fits && leaf.correction.fits(info.rows, info.columns);
    if constexpr (requires { leaf.kept; })
      placed = placed && leaf.kept.fits(info.rows, info.columns);
  });
  if (!placed)
    return failure(errc::malformed, where, "panels", "places of as many numbers as a row keeps",
                   "other places");
  if (fits) return {};
  return failure(errc::malformed, where, "panels", "outliers at inputs of their matrix",
                 "another number");
}

/// Compares a packed file with a model type; where its panels begin.
template <class M, class T>
result<index> check_packed(std::span<const std::byte> file, const std::string& where) LINNET_TRY {
  if constexpr (!fits_metadata<true, M>()) {
    return index{0};
  } else {
    const auto text = packed_text(file, where);
    if (!text) return text.error();
    packed_text_reader read(*text, where);
    describe_packed<M, T>(read);
    if (auto failure = read.finish()) return *std::move(failure);
    const std::size_t header = sizeof(packed_head) + text->size();
    if (auto fit = check_panels(file, header, packed<M, T>::bytes(), where); !fit)
      return fit.error();
    if (auto fit = check_inputs<M, T>(file.subspan(header), where); !fit) return fit.error();
    return static_cast<index>(header);
  }
}
LINNET_OR_OUT_OF_MEMORY(where)

}  // namespace detail

/// Saves packed weights, with what their model type says of itself. The same weights always give
/// the same bytes, at every instruction-set level. Errors: errc::io, errc::out_of_memory, and the
/// error of `p` if it is not valid().
template <class M, class T>
result<void> save_packed(const packed<M, T>& p, const std::string& path) LINNET_TRY {
  if constexpr (!detail::fits_metadata<true, M>()) {
    return {};
  } else {
    if (!p.valid()) return p.error();
    std::string header(sizeof(detail::packed_head), '\0');
    detail::describe_packed<M, T>([&](std::string_view key, std::string_view value) {
      ((((header += key) += ' ') += value) += '\n');
    });
    header.resize(static_cast<std::size_t>(round_up(std::ssize(header), alignment)));
    detail::packed_head head{
        {}, detail::packed_order, detail::packed_version, header.size(), p.block().size()};
    std::copy_n(detail::packed_magic.data(), sizeof head.magic, head.magic);
    __builtin_memcpy(header.data(), &head, sizeof head);
    detail::file_writer file(path);
    file.write(std::as_bytes(std::span(header)));
    file.write(p.block());
    return file.commit();
  }
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Packed weights over the bytes of a file of save_packed(), such as a constant array of the
/// program. Nothing is copied: the bytes must outlive the view, and begin at a multiple of
/// `alignment`. Every number and policy of the model type is compared with the file's, and the
/// panels are taken as they are. `where` names the bytes in errors. Errors: errc::mismatch (another
/// model type), errc::malformed, errc::unsupported (version or byte order), errc::invalid (not
/// aligned).
template <class M, class T = float>
result<packed<M, T>> view_packed(lasting_span<const std::byte> bytes,
                                 const std::string& where = "packed weights") LINNET_TRY {
  const auto begin = detail::check_packed<M, T>(bytes, where);
  if (!begin) return begin.error();
  return packed<M, T>(
      memory_block(const_cast<std::byte*>(bytes.data()), std::ssize(bytes), nullptr), *begin);
}
LINNET_OR_OUT_OF_MEMORY(where)
/// @copydoc view_packed()
template <class M, class T = float>
result<packed<M, T>> view_packed(lasting_span<const unsigned char> bytes,
                                 const std::string& where = "packed weights") LINNET_TRY {
  return view_packed<M, T>(lasting_span<const std::byte>(std::as_bytes(bytes)), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Maps packed weights from a file, see map_file(). Pages are read when they are first used, and
/// shared by all programs that map the file. packed::clone() makes a copy that needs no file.
/// Errors: those of map_file() and view_packed().
template <class M, class T = float>
result<packed<M, T>> map_packed(const std::string& path) LINNET_TRY {
  auto file = map_file(path);
  if (!file) return file.error();
  const auto begin = detail::check_packed<M, T>(
      {static_cast<const std::byte*>(file->data()), static_cast<std::size_t>(file->size())}, path);
  if (!begin) return begin.error();
  return packed<M, T>(*std::move(file), *begin);
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
