// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// NumPy's .npz files: several named arrays, each a .npy file in a zip archive, stored as it is.
/// Opt-in, through linnet/numpy.hpp.
///
/// The archive is that of PKWARE's APPNOTE.TXT. A header stands before each member. Behind all of
/// them is a directory, and behind that a record that says where the directory begins.

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/utf8.hpp>
#include <linnet/formats/npy.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Sizes of the parts of a zip archive without their names, and how they begin.
inline constexpr std::size_t zip_member = 30, zip_entry = 46, zip_end = 22;
inline constexpr std::uint32_t zip_member_mark = 0x04034b50, zip_entry_mark = 0x02014b50,
                               zip_end_mark = 0x06054b50;
inline constexpr std::uint64_t most_zip_bytes = 0xfffffffe;
inline constexpr std::size_t most_zip_entries = 65534;

inline constexpr std::array<std::uint32_t, 256> crc32_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t x = i;
    for (int bit = 0; bit < 8; ++bit) x = x >> 1 ^ (x & 1 ? 0xedb88320u : 0u);
    table[i] = x;
  }
  return table;
}();
/// Checksum of a zip member, in parts: begins with 0.
inline std::uint32_t crc32(std::uint32_t so_far, std::span<const std::byte> bytes) {
  so_far = ~so_far;
  const std::uint32_t* const table = crc32_table.data();
  for (const std::byte* at = bytes.data(); at != bytes.data() + bytes.size(); ++at)
    so_far = so_far >> 8 ^ table[(so_far ^ static_cast<std::uint32_t>(*at)) & 255];
  return ~so_far;
}

/// Goes through the directory of a zip archive and parses its members.
class npz_parser {
 public:
  npz_parser(std::span<const std::byte> file, std::vector<npy_array>& to, const std::string& where)
      : file_(file), to_(to), where_(where) {}

  LINNET_COLD result<void> parse() {
    std::size_t end = 0;
    if (!find_end(end))
      return fail("end of the archive", "its record in the last bytes: an .npz file, not cut off",
                  "none");
    const std::size_t count = number<std::uint16_t>(end + 10),
                      bytes = number<std::uint32_t>(end + 12),
                      begin = number<std::uint32_t>(end + 16);
    if (count > most_zip_entries || bytes > most_zip_bytes || begin > most_zip_bytes)
      return fail("end of the archive", "a file below 4 GB and 65,535 arrays: save them as .npy",
                  "a ZIP64 archive", errc::unsupported);
    if (number<std::uint32_t>(end + 4) != 0 || number<std::uint16_t>(end + 8) != count)
      return fail("end of the archive", "one file", "a part of several", errc::unsupported);
    if (bytes > end || begin != end - bytes)
      return fail("beginning of the directory",
                  "its " + std::to_string(bytes) + " bytes to end at " + std::to_string(end),
                  "a beginning at " + std::to_string(begin));
    if (count > bytes / zip_entry)
      return fail("number of arrays",
                  "at most " + std::to_string(bytes / zip_entry) + ", what fits in the directory",
                  std::to_string(count));
    to_.reserve(count);
    std::size_t at = begin, members_end = 0;
    for (std::size_t i = 0; i < count; ++i)
      if (auto done = entry(at, begin, end, members_end); !done) return done;
    if (at != end)
      return fail("directory", std::to_string(count) + " arrays, as the end says",
                  "bytes behind them");
    std::sort(to_.begin(), to_.end(), [](auto& a, auto& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < to_.size(); ++i)
      if (to_[i].name == to_[i - 1].name)
        return fail(printable(to_[i].name), "each name once", "this one twice");
    return {};
  }

 private:
  std::span<const std::byte> file_;
  std::vector<npy_array>& to_;
  const std::string& where_;

  result<void> fail(std::string_view what, std::string_view expected, std::string_view got,
                    errc code = errc::malformed) const {
    return failure(code, where_, what, expected, got);
  }
  template <class T>
  T number(std::size_t at) const {
    return load_as<T>(file_.data() + at);
  }
  std::string_view text(std::size_t at, std::size_t size) const {
    return {reinterpret_cast<const char*>(file_.data()) + at, size};
  }
  /// Looks for the last record from the end back, behind which a comment may stand.
  bool find_end(std::size_t& end) const {
    if (file_.size() < zip_end) return false;
    const std::size_t last = file_.size() - zip_end, most = (std::min)(last, std::size_t{65535});
    for (std::size_t comment = 0; comment <= most; ++comment)
      if (number<std::uint32_t>(last - comment) == zip_end_mark &&
          number<std::uint16_t>(last - comment + 20) == comment) {
        end = last - comment;
        return true;
      }
    return false;
  }

  /// Reads the entry at `at` of the directory, which is in [begin, end), and its member.
  result<void> entry(std::size_t& at, std::size_t begin, std::size_t end,
                     std::size_t& members_end) {
    if (end - at < zip_entry || number<std::uint32_t>(at) != zip_entry_mark)
      return fail("directory", "an entry at " + std::to_string(at), "another");
    const unsigned flags = number<std::uint16_t>(at + 8), method = number<std::uint16_t>(at + 10);
    const std::uint32_t sum = number<std::uint32_t>(at + 16);
    const std::size_t packed = number<std::uint32_t>(at + 20),
                      size = number<std::uint32_t>(at + 24),
                      name_size = number<std::uint16_t>(at + 28),
                      more = name_size + number<std::uint16_t>(at + 30) +
                             number<std::uint16_t>(at + 32),
                      member = number<std::uint32_t>(at + 42);
    if (more > end - at - zip_entry)
      return fail("directory", "names within it", "one behind its end");
    const std::string_view name = text(at + zip_entry, name_size);
    const std::string shown = printable(name);
    at += zip_entry + more;
    if (!name.ends_with(".npy"))
      return fail(shown, "names that end in .npy, as those of arrays", "another");
    if ((flags & 1) != 0) return fail(shown, "no encryption", "some", errc::unsupported);
    if (method != 0)
      return fail(shown, "a stored array: write it by numpy.savez, not savez_compressed",
                  method == 8 ? std::string("a deflated one")
                              : "compression by method " + std::to_string(method),
                  errc::unsupported);
    if (packed != size || size > most_zip_bytes || member > most_zip_bytes)
      return fail(shown, "one size below 4 GB", "others");
    // In the order of the directory, and in no part of another: a file is no larger than it seems.
    if (member < members_end || member > begin || begin - member < zip_member ||
        number<std::uint32_t>(member) != zip_member_mark)
      return fail(shown,
                  "a member from " + std::to_string(members_end) + " on, before the directory",
                  "none at " + std::to_string(member));
    const std::size_t own_size = number<std::uint16_t>(member + 26),
                      before = zip_member + own_size + number<std::uint16_t>(member + 28);
    if (before > begin - member || size > begin - member - before)
      return fail(shown, "values before the directory", "more");
    if (text(member + zip_member, own_size) != name || number<std::uint16_t>(member + 8) != 0)
      return fail(shown, "the same name and method at the member", "others");
    const auto bytes = file_.subspan(member + before, size);
    if (crc32(0, bytes) != sum)
      return fail(shown, "the checksum of the directory", "another: the file is damaged");
    members_end = member + before + size;
    npy_array& made = to_.emplace_back();
    made.name = name.substr(0, name.size() - 4);
    return parse_npy_array(bytes, made, where_);
  }
};

/// Writes the numbers of zip records, little-endian.
struct zip_record {
  std::string text{};
  template <class T>
  zip_record& add(T number) {
    text.append(reinterpret_cast<const char*>(&number), sizeof number);
    return *this;
  }
};

/// Adds fields that members and their entries in the directory have in common: versions, flags,
/// method, time, checksum, sizes and the length of the name.
inline void add_zip_member(zip_record& to, std::string_view name, std::uint32_t sum,
                           std::uint32_t size) {
  const bool ascii = std::all_of(name.begin(), name.end(), [](char c) { return (c & 128) == 0; });
  to.add<std::uint16_t>(20).add<std::uint16_t>(ascii ? 0 : 0x800).add<std::uint16_t>(0);
  to.add<std::uint32_t>(0x00210000);  // the first of January 1980: the same arrays, the same bytes
  to.add(sum).add(size).add(size).add(static_cast<std::uint16_t>(name.size()));
  to.add<std::uint16_t>(0);
}

}  // namespace detail

/// A parsed .npz file. It views the bytes that it was parsed from, or owns them if it was read from
/// a path. Movable.
class npz {
 public:
  /// The arrays, sorted by name.
  std::span<const npy_array> arrays() const { return arrays_; }
  /// The array of that name, or null.
  const npy_array* find(std::string_view name) const {
    const auto at =
        std::lower_bound(arrays_.begin(), arrays_.end(), name,
                         [](const npy_array& a, std::string_view b) { return a.name < b; });
    return at != arrays_.end() && at->name == name ? &*at : nullptr;
  }
  /// All values of an array, as npy::values() gives them. Errors: those of it, and errc::missing.
  template <class T>
  result<std::vector<T>> values(std::string_view name) const LINNET_TRY {
    const npy_array* const from = find(name);
    if (!from)
      return detail::failure(errc::missing, where_, detail::printable(name),
                             "an array of this name", "none");
    return detail::npy_values<T>(*from, where_);
  }
  LINNET_OR_OUT_OF_MEMORY(where_)
  /// Name of the file in error messages.
  const std::string& where() const { return where_; }

 private:
  friend result<npz> parse_npz(lasting_span<const std::byte>, const std::string&);
  friend result<npz> read_npz(const std::string&);
  memory_block owned_;
  std::string where_;
  std::vector<npy_array> arrays_;
};

/// Parses an .npz file held in memory, which must outlive the result: stored arrays as numpy.savez
/// writes them, below 4 GB. Checked: the directory, each member's place, name and checksum, and
/// each array as parse_npy() does. Errors: errc::malformed, errc::unsupported (compressed or
/// encrypted members, ZIP64), errc::out_of_memory.
inline result<npz> parse_npz(lasting_span<const std::byte> file,
                             const std::string& where = "npz") LINNET_TRY {
  npz parsed;
  parsed.where_ = where;
  if (!detail::has_memory_to_read(file.size())) return detail::out_of_memory(where);
  if (auto done = detail::npz_parser(file, parsed.arrays_, where).parse(); !done)
    return done.error();
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Maps and parses an .npz file, which must not shrink meanwhile. Errors: those of map_file() and
/// parse_npz().
inline result<npz> read_npz(const std::string& path) LINNET_TRY {
  auto file = map_file(path);
  if (!file) return file.error();
  auto parsed = parse_npz(std::span(static_cast<const std::byte*>(file->data()),
                                    static_cast<std::size_t>(file->size())),
                          path);
  if (parsed) parsed->owned_ = *std::move(file);
  return parsed;
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Writes arrays as an .npz file, stored, in the order given; the same arrays always give the same
/// bytes. Nothing is written that parse_npz() refuses: names are UTF-8 and each stands once.
/// Errors: errc::invalid (also 4 GB and more), errc::io.
inline result<void> write_npz(const std::string& path,
                              std::span<const npy_array> arrays) LINNET_TRY {
  const auto invalid = [&](std::string_view what, std::string_view expected, std::string_view got) {
    return detail::failure(errc::invalid, path, what, expected, got);
  };
  std::vector<std::string_view> names;
  std::uint64_t bytes = detail::zip_end;
  for (const npy_array& array : arrays) {
    if (auto fit = detail::check_npy(array, path); !fit) return fit;
    if (array.name.size() > 65531 || !detail::is_utf8(array.name))
      return invalid(detail::printable(array.name), "a name of at most 65531 bytes of UTF-8",
                     "another");
    names.push_back(array.name);
    bytes += detail::zip_member + detail::zip_entry + 2 * (array.name.size() + 4) +
             detail::npy_prefix(array).size() + array.data.size();
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    return invalid(detail::printable(*twice), "each name once", "this one twice");
  if (bytes > detail::most_zip_bytes || arrays.size() > detail::most_zip_entries)
    return invalid("arrays", "below 4 GB and 65,535 arrays: write_npy() each",
                   std::to_string(bytes) + " bytes");

  detail::file_writer file(path);
  const auto write = [&](std::string_view text) { file.write(std::as_bytes(std::span(text))); };
  detail::zip_record directory;
  std::uint32_t at = 0;
  for (const npy_array& array : arrays) {
    const std::string name = array.name + ".npy", prefix = detail::npy_prefix(array);
    const std::uint32_t sum =
        detail::crc32(detail::crc32(0, std::as_bytes(std::span(prefix))), array.data);
    const auto size = static_cast<std::uint32_t>(prefix.size() + array.data.size());
    detail::zip_record member;
    detail::add_zip_member(member.add(detail::zip_member_mark), name, sum, size);
    write(member.text);
    write(name);
    write(prefix);
    file.write(array.data);
    directory.add(detail::zip_entry_mark).add<std::uint16_t>(3 << 8 | 20);  // as Unix does
    detail::add_zip_member(directory, name, sum, size);
    directory.add<std::uint16_t>(0).add<std::uint16_t>(0).add<std::uint16_t>(0);
    directory.add<std::uint32_t>(0600u << 16).add(at).text += name;
    at += static_cast<std::uint32_t>(member.text.size() + name.size()) + size;
  }
  const auto count = static_cast<std::uint16_t>(arrays.size());
  detail::zip_record end;
  end.add(detail::zip_end_mark).add<std::uint32_t>(0).add(count).add(count);
  end.add(static_cast<std::uint32_t>(directory.text.size())).add(at).add<std::uint16_t>(0);
  write(directory.text);
  write(end.text);
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
