// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Files as memory: mapped read-only, and written into a program as an array.

#include <cerrno>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

#include <linnet/core/arena.hpp>
#include <linnet/file/file.hpp>

LINNET_NAMESPACE_BEGIN

/// Maps a whole regular file read-only; programs that map one file share its memory. The bytes are
/// those of the file: shorten it meanwhile, and reading them ends the program. A file that is
/// replaced by renaming stays as it was. Without mmap() it is read. Errors: errc::io,
/// errc::malformed (an empty file), errc::out_of_memory.
inline result<memory_block> map_file(const std::string& path) LINNET_TRY {
#if defined(__unix__) || defined(__APPLE__)
  const auto file = detail::open_regular(path);
  if (!file) return file.error();
  if (file->size == 0)
    return detail::failure(errc::malformed, path, "file size", "at least 1 byte", "0");
  void* const at = ::mmap(nullptr, file->size, PROT_READ, MAP_PRIVATE, file->file.get(), 0);
  if (at == MAP_FAILED && errno == ENOMEM) return detail::out_of_memory(path);
  if (at == MAP_FAILED) return detail::file_error(path, "a file that can be mapped");
  return memory_block(at, static_cast<index>(file->size), [](void* data, index size) {
    ::munmap(data, static_cast<std::size_t>(size));
  });
#else
  const auto file = read_file(path);
  if (!file) return file.error();
  if (file->size() == 0)
    return detail::failure(errc::malformed, path, "file size", "at least 1 byte", "0");
  // As long as the file, where own memory of a block would be rounded up.
  const auto size = static_cast<index>(file->size());
  void* const copy = detail::aligned_allocate(static_cast<std::size_t>(round_up(size, alignment)));
  if (copy == nullptr) return detail::out_of_memory(path);
  __builtin_memcpy(copy, file->data(), file->size());
  return memory_block(copy, size, [](void* p, index) { detail::aligned_free(p); });
#endif
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Writes bytes as a C++ header that defines an array `name`, aligned to `alignment`: what
/// view_packed() and the loading functions take, in the program itself. Errors: errc::io, and
/// errc::invalid for a name that is no identifier.
inline result<void> write_array(const std::string& path, std::string_view name,
                                std::span<const std::byte> bytes) LINNET_TRY {
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  bool named = !name.empty() && letter(name[0]);
  for (const char c : name) named = named && (letter(c) || (c >= '0' && c <= '9'));
  if (!named)
    return detail::failure(errc::invalid, "write_array", "name",
                           "an identifier of letters, digits and _", detail::printable(name));
  if (bytes.empty())
    return detail::failure(errc::invalid, "write_array", "bytes", "at least 1", "0");
  detail::file_writer file(path);
  const auto write = [&](std::string_view text) { file.write(std::as_bytes(std::span(text))); };
  write("#pragma once\nalignas(" + std::to_string(alignment) + ") inline constexpr unsigned char " +
        std::string(name) + "[] = {");
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    write(i == 0 ? "\n" : i % 20 == 0 ? ",\n" : ",");
    write(std::to_string(static_cast<int>(bytes[i])));
  }
  write("};\n");
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
