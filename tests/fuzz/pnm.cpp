// SPDX-License-Identifier: MIT
// Any bytes as a PGM or PPM image; and good images whose sizes, samples and spaces the input
// chooses, which have to be read as they are, and then with some bytes changed. What is read and
// written again is read as the same.

#include <linnet/linnet.hpp>

#include <string>
#include <vector>

namespace ln = linnet;

namespace fuzz::pnm {

namespace {

/// Takes numbers from the input; zeros behind its end.
struct choices {
  const std::uint8_t* at;
  std::size_t left;
  std::uint8_t byte() { return left > 0 ? (--left, *at++) : std::uint8_t{0}; }
  ln::index below(ln::index n) {
    const ln::index high = byte();
    return (256 * high + byte()) % n;
  }
};

/// An image as its file has it.
struct samples {
  ln::index channels = 1, width = 1, height = 1, most = 255;
  std::vector<ln::index> all{};
};

void add_samples(std::string& file, const samples& image) {
  for (const ln::index one : image.all) {
    if (image.most > 255) file += static_cast<char>(one / 256);
    file += static_cast<char>(one % 256);
  }
}

ln::result<ln::pnm_image> parsed(const std::string& file) {
  return ln::parse_pnm(std::as_bytes(std::span(file)), "f");
}

/// Whether pixels are these samples over the number of white.
bool same(const ln::pnm_image& read, const samples& image) {
  if (read.channels != image.channels || read.width != image.width || read.height != image.height ||
      read.pixels.size() != image.all.size())
    return false;
  for (std::size_t i = 0; i < image.all.size(); ++i)
    if (read.pixels[i] != static_cast<float>(image.all[i]) / static_cast<float>(image.most))
      return false;
  return true;
}

/// Reads a file, and what it has read written with no more than is needed.
void use(const std::string& file) {
  const auto read = parsed(file);
  if (!read) {
    if (read.error().message().empty()) __builtin_trap();
    return;
  }
  const auto header = ln::detail::parse_pnm_header(std::as_bytes(std::span(file)), "f");
  if (!header || read->view().pixels != read->pixels.data()) __builtin_trap();
  if (std::ssize(read->pixels) != read->height * read->width * read->channels) __builtin_trap();
  samples image{read->channels, read->width, read->height, header->most};
  for (const float x : read->pixels) {
    if (!(x >= 0 && x <= 1)) __builtin_trap();
    image.all.push_back(static_cast<ln::index>(x * static_cast<float>(image.most) + 0.5F));
  }
  if (!same(*read, image)) __builtin_trap();
  std::string again = (image.channels == 3 ? "P6 " : "P5 ") + std::to_string(image.width) + ' ' +
                      std::to_string(image.height) + ' ' + std::to_string(image.most) + '\n';
  add_samples(again, image);
  const auto twice = parsed(again);
  if (!twice || !same(*twice, image)) __builtin_trap();
}

/// White space, and comments among it.
std::string space(choices& from) {
  std::string text(1, " \t\n\v\f\r"[from.byte() % 6]);
  for (ln::index n = from.byte() % 4; n > 0; --n) {
    if (from.byte() % 2 == 0) {
      text += " \t\n\v\f\r"[from.byte() % 6];
      continue;
    }
    text += '#';
    for (ln::index m = from.byte() % 8; m > 0; --m) {
      const char c = static_cast<char>(from.byte());
      text += c == '\n' ? '#' : c;
    }
    text += '\n';
  }
  return text;
}

/// A number, maybe behind zeros.
std::string number(choices& from, ln::index n) {
  return std::string(from.byte() % 3u, '0') + std::to_string(n);
}

void use_made(choices from) {
  samples image;
  image.channels = from.byte() % 2 == 0 ? 1 : 3;
  image.width = 1 + from.below(9);
  image.height = 1 + from.below(9);
  image.most = from.byte() % 2 == 0 ? 1 + from.below(255) : 1 + from.below(65535);
  std::string file = image.channels == 3 ? "P6" : "P5";
  for (const ln::index n : {image.width, image.height, image.most}) {
    file += space(from);
    file += number(from, n);
  }
  file += " \t\n\v\f\r"[from.byte() % 6];
  for (ln::index i = image.channels * image.width * image.height; i > 0; --i)
    image.all.push_back(from.below(image.most + 1));
  add_samples(file, image);
  const auto read = parsed(file);
  if (!read || !same(*read, image)) __builtin_trap();
  use(file);
  for (int edits = from.byte() % 4; edits > 0 && !file.empty(); --edits) {
    const auto at = static_cast<std::size_t>(from.below(std::ssize(file)));
    switch (from.byte() % 4) {
      case 0:
        file[at] = static_cast<char>(from.byte());
        break;
      case 1:
        file.insert(at, 1, "0 #9P\n"[from.byte() % 6]);
        break;
      case 2:
        file.erase(at, 1);
        break;
      default:
        file.resize(at);
    }
    use(file);
  }
}

}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  if (data[0] % 2 == 0)
    use({reinterpret_cast<const char*>(data + 1), size - 1});
  else
    use_made({data + 1, size - 1});
  return 0;
}

}  // namespace fuzz::pnm
