// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Files of named sections with checksums: a strict reader that trusts nothing in the file, and a
/// writer. Opt-in, through linnet/checkpoint.hpp. Numbers are little-endian and not aligned:
///
///     8 bytes  "linnetCP"
///     4        version; all versions have these 16 bytes, the table and its checksum
///     4        size of the table
///     table    number of entries of metadata, number of sections (4 bytes each); for each entry
///              its key and value, for each section its name, size and XXH3 checksum (8 bytes
///              each); a text is its size (4 bytes) and its bytes
///     8        XXH3 checksum of all before
///     ...      the sections' bytes, one after another, to the end of the file

#include <algorithm>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include <linnet/core/key_value.hpp>
#include <linnet/core/view.hpp>
#include <linnet/file/durable_file.hpp>
#include <linnet/formats/tensor.hpp>
#include <linnet/model/metadata.hpp>

LINNET_NAMESPACE_BEGIN

/// A named section: some bytes under a name.
struct section {
  std::string name;
  std::span<const std::byte> bytes{};
};

namespace detail {

inline constexpr std::string_view sections_magic = "linnetCP";
inline constexpr std::uint32_t sections_version = 1;
inline constexpr std::size_t longest_sections_table = 1 << 20;

inline std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

/// A digest of the names and shapes of a model's tensors.
template <class M>
std::string tensors_digest() {
  std::string tensors;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    tensors += at.str() + ' ' + std::to_string(info.rows) + ' ' + std::to_string(info.columns);
    tensors += '\n';
  });
  return std::to_string(checksum(std::as_bytes(std::span(tensors))));
}

/// A parsed file of sections: its statements and its sections. The sections' bytes are the file's.
struct section_file {
  std::vector<key_value> metadata;
  std::vector<section> sections;

  const section* find(std::string_view name) const {
    const auto at = std::ranges::find(sections, name, &section::name);
    return at != sections.end() ? &*at : nullptr;
  }
};

/// Reads values from the front of some bytes, as long as there are enough.
struct section_reader {
  std::span<const std::byte> rest;
  bool good = true;

  std::span<const std::byte> bytes(std::uint64_t n) {
    good = good && n <= rest.size();
    if (!good) return {};
    const auto taken = rest.first(static_cast<std::size_t>(n));
    rest = rest.subspan(taken.size());
    return taken;
  }
  template <class T>
  T number() {
    const auto from = bytes(sizeof(T));
    return good ? load_as<T>(from.data()) : T{};
  }
  std::string text() {
    const auto from = bytes(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }
};

/// Parses a file of sections and verifies every byte of it. `where` names it in errors. Errors:
/// errc::malformed, errc::unsupported (another version).
inline result<section_file> parse_sections(lasting_span<const std::byte> bytes,
                                           const std::string& where) LINNET_TRY {
  const auto wrong = [&](const std::string& what, std::string_view expected, std::string_view got) {
    return detail::failure(errc::malformed, where, printable(what), expected, got);
  };
  section_reader file{bytes};
  const auto magic = file.bytes(sections_magic.size());
  if (!std::ranges::equal(magic, std::as_bytes(std::span(sections_magic))))
    return wrong("", "a checkpoint, which begins with linnetCP", "another beginning");
  const auto version = file.number<std::uint32_t>();
  const std::uint64_t table_size = file.number<std::uint32_t>();
  section_reader table{file.bytes(table_size)};
  const auto head = bytes.first(bytes.size() - file.rest.size());
  const auto sum = file.number<std::uint64_t>();
  if (!file.good || table_size > longest_sections_table)
    return wrong("header", "a table and its checksum", "another size or the end of the file");
  if (sum != checksum(head)) return wrong("header", "bytes of its checksum", "others");
  if (version != sections_version)
    return detail::failure(errc::unsupported, where, "version", std::to_string(sections_version),
                           std::to_string(version));

  // Every entry and section takes some bytes of the table, so these loops end.
  section_file all;
  const auto entries = table.number<std::uint32_t>(), sections = table.number<std::uint32_t>();
  for (std::uint32_t i = 0; i < entries && table.good; ++i) {
    std::string key = table.text();
    all.metadata.push_back({std::move(key), table.text()});
  }
  for (std::uint32_t i = 0; i < sections && table.good; ++i) {
    section next{table.text()};
    const auto size = table.number<std::uint64_t>(), expected = table.number<std::uint64_t>();
    if (!table.good) break;
    next.bytes = file.bytes(size);
    if (!file.good)
      return wrong(next.name, std::to_string(size) + " bytes",
                   std::to_string(file.rest.size()) + " up to the end of the file");
    if (checksum(next.bytes) != expected)
      return wrong(next.name, "bytes of its checksum", "others");
    all.sections.push_back(std::move(next));
  }
  if (!table.good || !table.rest.empty())
    return wrong("header", "as many entries and sections as it says", "others");
  if (!file.rest.empty())
    return wrong("", "the end of the file after the last section",
                 std::to_string(file.rest.size()) + " bytes more");
  std::vector<std::string_view> names;
  for (const section& one : all.sections) names.push_back(one.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end())
    return wrong(std::string(*twice), "one section of this name", "two");
  return all;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Head of a file of sections: everything before the sections' bytes.
inline std::string checkpoint_file_head(const std::vector<key_value>& metadata,
                                        const std::vector<section>& sections) {
  std::string head(sections_magic);
  const auto number = [&](auto value) {
    head.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto text = [&](const std::string& value) {
    number(static_cast<std::uint32_t>(value.size()));
    head += value;
  };
  number(sections_version);
  const std::size_t size_at = head.size();
  number(std::uint32_t{0});
  const std::size_t table_at = head.size();
  number(static_cast<std::uint32_t>(metadata.size()));
  number(static_cast<std::uint32_t>(sections.size()));
  for (const key_value& one : metadata) {
    text(one.key);
    text(one.value);
  }
  for (const section& one : sections) {
    text(one.name);
    number(std::uint64_t{one.bytes.size()});
    number(checksum(one.bytes));
  }
  const auto size = static_cast<std::uint32_t>(head.size() - table_at);
  __builtin_memcpy(head.data() + size_at, &size, sizeof size);
  number(checksum(std::as_bytes(std::span(head))));
  return head;
}

/// Writes a file of sections; the previous file is kept as previous_of(path). Errors: errc::io,
/// errc::invalid (names that are too many or not unique).
inline result<void> write_checkpoint_file(const std::string& path,
                                          const std::vector<key_value>& metadata,
                                          const std::vector<section>& sections) LINNET_TRY {
  for (std::size_t i = 0; i < sections.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (sections[i].name == sections[j].name)
        return detail::failure(errc::invalid, path, printable(sections[i].name),
                               "one section of this name", "two");
  const std::string head = checkpoint_file_head(metadata, sections);
  if (head.size() > longest_sections_table)
    return detail::failure(errc::invalid, path, "names of sections",
                           "at most " + std::to_string(longest_sections_table) + " bytes",
                           std::to_string(head.size()));
  file_writer file(path, true);
  file.write(std::as_bytes(std::span(head)));
  for (const section& one : sections) file.write(one.bytes);
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

}  // namespace detail

LINNET_NAMESPACE_END
