// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Images of Netpbm's binary formats: PGM (P5, grey) and PPM (P6, red, green and blue).

#include <cstddef>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <linnet/core/finite.hpp>
#include <linnet/file/file.hpp>
#include <linnet/nn/patch_embedding.hpp>

LINNET_NAMESPACE_BEGIN

/// An image that owns its pixels, [height, width, channels], numbers from 0 to 1.
struct pnm_image {
  index height = 0, width = 0, channels = 0;
  std::vector<float> pixels;

  /// The pixels for encoders of images; valid as long as this object.
  image_view view() const { return {pixels.data(), height, width, channels}; }
};

namespace detail {

/// The header of a binary PNM file.
struct pnm_header {
  index channels = 0, width = 0, height = 0, most = 0;  ///< most: the number of white
  std::size_t size = 0;                                 ///< bytes of the header

  index sample_bytes() const { return most < 256 ? 1 : 2; }
};

/// Reads a header; the pixels are not looked at. Errors: errc::malformed, errc::unsupported.
LINNET_COLD inline result<pnm_header> parse_pnm_header(std::span<const std::byte> file,
                                                       const std::string& where) {
  const auto at = [&](std::size_t i) {
    return i < file.size() ? static_cast<char>(file[i]) : '\0';
  };
  const char kind = at(1);
  if (at(0) != 'P' || kind < '1' || kind > '7')
    return failure(errc::malformed, where, "magic", "P5 or P6", "other bytes");
  if (kind != '5' && kind != '6')
    return failure(errc::unsupported, where, "magic", "P5 or P6", std::string("P") + kind);
  pnm_header made;
  made.channels = kind == '6' ? 3 : 1;
  made.size = 2;
  const auto space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  for (const auto& [field, value, limit] :
       {std::tuple{"width", &made.width, index{1'000'000'000}},
        std::tuple{"height", &made.height, index{1'000'000'000}},
        std::tuple{"maxval", &made.most, index{65535}}}) {
    const std::size_t before = made.size;
    while (space(at(made.size)) || (at(made.size) == '#' && made.size > before)) {
      if (at(made.size) == '#')  // a comment, to the end of its line
        while (made.size < file.size() && at(made.size) != '\n') ++made.size;
      else
        ++made.size;
    }
    const std::size_t digits = made.size;
    while (at(made.size) >= '0' && at(made.size) <= '9' && *value <= limit)
      *value = *value * 10 + (at(made.size++) - '0');
    if (digits == before || made.size == digits || *value < 1 || *value > limit)
      return failure(errc::malformed, where, field, "a number from 1 to " + std::to_string(limit),
                     digits == before || made.size == digits ? "none" : std::to_string(*value));
  }
  if (!space(at(made.size)))
    return failure(errc::malformed, where, "maxval", "white space behind it", "another byte");
  ++made.size;
  return made;
}

}  // namespace detail

/// The image of a PGM or PPM file (P5 or P6, of 8 or 16 bits): its samples divided by its maxval.
/// `where` names the file in errors. Errors: errc::malformed (a bad header, too few or too many
/// bytes, a sample above maxval), errc::unsupported (P1 to P4, P7), errc::out_of_memory.
inline result<pnm_image> parse_pnm(std::span<const std::byte> file,
                                   const std::string& where = "pnm") LINNET_TRY {
  const auto header = detail::parse_pnm_header(file, where);
  if (!header) return header.error();
  const auto raster = file.subspan(header->size);
  const index each = header->channels * header->sample_bytes();
  // Divided, as a product might be more than an index holds.
  const index held = std::ssize(raster) / each / header->width;
  if (held < header->height || std::ssize(raster) != each * header->width * header->height)
    return detail::failure(errc::malformed, where, "pixels",
                           std::to_string(header->width) + " x " + std::to_string(header->height) +
                               " of " + std::to_string(each) + " bytes",
                           std::to_string(raster.size()) + " bytes");
  pnm_image made{header->height, header->width, header->channels, {}};
  const std::size_t samples = raster.size() / static_cast<std::size_t>(header->sample_bytes());
  if (!detail::has_memory(samples * sizeof(float))) return detail::out_of_memory(where);
  made.pixels.resize(samples);
  for (std::size_t i = 0; i < made.pixels.size(); ++i) {
    const auto byte = [&](std::size_t n) { return static_cast<index>(raster[n]); };
    const index sample = header->most < 256 ? byte(i) : 256 * byte(2 * i) + byte(2 * i + 1);
    if (sample > header->most)
      return detail::failure(errc::malformed, where, "sample " + std::to_string(i),
                             "no more than maxval, " + std::to_string(header->most),
                             std::to_string(sample));
    made.pixels[i] = static_cast<float>(sample) / static_cast<float>(header->most);
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads a PGM or PPM file, see parse_pnm(). Also errc::io.
inline result<pnm_image> read_pnm(const std::string& path) LINNET_TRY {
  const auto file = read_file(path);
  if (!file) return file.error();
  return parse_pnm(*file, path);
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Writes an image of one or three channels as a PGM or PPM file of 8 bits. Numbers below 0 become
/// black, those above 1 white, and what is no number black. Errors: errc::invalid (no pixels, or
/// another number of channels), errc::io, errc::out_of_memory.
inline result<void> write_pnm(const std::string& path, const image_view& image) LINNET_TRY {
  if (image.pixels == nullptr || image.height < 1 || image.width < 1)
    return detail::failure(errc::invalid, path, "image", "at least one pixel", "none");
  if (image.channels != 1 && image.channels != 3)
    return detail::failure(errc::invalid, path, "image.channels", "1 or 3",
                           std::to_string(image.channels));
  std::string text = std::string(image.channels == 3 ? "P6\n" : "P5\n") +
                     std::to_string(image.width) + ' ' + std::to_string(image.height) + "\n255\n";
  for (index i = 0; i < image.height * image.width * image.channels; ++i) {
    const float x = image.pixels[i];
    const float shade = !is_nan(x) && x > 0 ? (x < 1 ? x : 1.0F) * 255 + 0.5F : 0.0F;
    text += static_cast<char>(static_cast<unsigned char>(shade));
  }
  return write_file(path, std::as_bytes(std::span(text)));
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
