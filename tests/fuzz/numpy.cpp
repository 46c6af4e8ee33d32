// SPDX-License-Identifier: MIT
// Any bytes as a .npy file, as an .npz file, and as arrays of one whose directory and checksums are
// right. All values are read, and what is written of an array is read as the same again.

#include <linnet/linnet.hpp>
#include <linnet/numpy.hpp>

#include <string>

namespace ln = linnet;

namespace fuzz::numpy {

namespace {

void use(const ln::npy_array& array) {
  if (array.description().empty()) __builtin_trap();
  const auto reals = ln::detail::npy_values<float>(array, "f");
  const auto numbers = ln::detail::npy_values<std::int64_t>(array, "f");
  if (reals && numbers) __builtin_trap();
  if (reals && std::ssize(*reals) != array.size()) __builtin_trap();
  if (numbers && std::ssize(*numbers) != array.size()) __builtin_trap();
  if (!ln::detail::check_npy(array, "f")) __builtin_trap();
  std::string file = ln::detail::npy_prefix(array);
  if (file.size() % 64 != 0) __builtin_trap();
  file.append(reinterpret_cast<const char*>(array.data.data()), array.data.size());
  const auto again = ln::parse_npy(std::as_bytes(std::span(file)));
  if (!again || again->array().type != array.type ||
      !std::ranges::equal(again->array().shape(), array.shape()) ||
      !std::ranges::equal(again->array().data, array.data))
    __builtin_trap();
}

void use_npz(std::span<const std::byte> file) {
  const auto read = ln::parse_npz(file);
  if (!read) {
    if (read.error().message().empty()) __builtin_trap();
    return;
  }
  for (const ln::npy_array& array : read->arrays()) {
    if (read->find(array.name) != &array) __builtin_trap();
    use(array);
  }
}

/// An archive of two arrays that share the bytes: the first has as many as the first byte says.
std::string archive_of(std::string_view data) {
  const std::size_t cut = data.empty() ? 0 : static_cast<unsigned char>(data[0]) * 4u;
  const std::string_view parts[] = {data.substr(0, cut), data.substr((std::min)(cut, data.size()))};
  ln::detail::zip_record directory, all;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string name = i == 0 ? "b.npy" : "a.npy";
    const std::string_view part = i == 0 && !parts[i].empty() ? parts[i].substr(1) : parts[i];
    const std::uint32_t sum = ln::detail::crc32(0, std::as_bytes(std::span(part)));
    const auto at = static_cast<std::uint32_t>(all.text.size()),
               size = static_cast<std::uint32_t>(part.size());
    ln::detail::add_zip_member(all.add(ln::detail::zip_member_mark), name, sum, size);
    (all.text += name) += part;
    directory.add(ln::detail::zip_entry_mark).add(std::uint16_t{20});
    ln::detail::add_zip_member(directory, name, sum, size);
    directory.text += std::string(10, '\0');
    directory.add(at).text += name;
  }
  const auto begin = static_cast<std::uint32_t>(all.text.size());
  all.text += directory.text;
  all.add(ln::detail::zip_end_mark).add(0).add(std::uint16_t{2}).add(std::uint16_t{2});
  all.add(static_cast<std::uint32_t>(directory.text.size())).add(begin).add(std::uint16_t{0});
  return all.text;
}

}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span bytes(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  if (data[0] % 3 == 0) {
    if (const auto read = ln::parse_npy(bytes))
      use(read->array());
    else if (read.error().message().empty())
      __builtin_trap();
  } else if (data[0] % 3 == 1) {
    use_npz(bytes);
  } else {
    const std::string file =
        archive_of({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    use_npz(std::as_bytes(std::span(file)));
  }
  return 0;
}

}  // namespace fuzz::numpy
