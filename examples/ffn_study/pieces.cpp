#include "pieces.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <linnet/io/file.hpp>
#include <span>

#include "support/basics.hpp"

namespace study {

namespace {
constexpr double masked_share = 0.15;
constexpr std::uintmax_t shortest_text = 100'000;
constexpr std::size_t stretches = 10;
}  // namespace

texts read_texts(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".txt" &&
        entry.file_size() >= shortest_text)
      paths.push_back(entry.path().string());
  if (paths.empty())
    throw support::failure(fmt::format("{}: no .txt file of at least {} bytes in it", folder,
                                       support::grouped(shortest_text)));
  std::sort(paths.begin(), paths.end());
  texts t;
  for (const std::string& path : paths) {
    const auto file = support::take(ln::read_file(path));
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    for (std::size_t i = 0; i < stretches; ++i) {
      const auto at = [&](std::size_t tenth) { return text.size() * tenth / (stretches * 10); };
      t.training += text.substr(at(10 * i), at(10 * i + 9) - at(10 * i));
      t.held_out += text.substr(at(10 * i + 9), at(10 * i + 10) - at(10 * i + 9));
    }
  }
  return t;
}

denoising_examples::denoising_examples(std::string_view text, ln::index batch, ln::index bytes,
                                       std::uint64_t seed)
    : text_(text),
      batch_(batch),
      bytes_(bytes),
      target_(bytes / 2 + 1),
      seed_(seed),
      sources_(static_cast<std::size_t>(batch * (bytes + 1))),
      labels_(static_cast<std::size_t>(batch * target_)),
      lengths_(static_cast<std::size_t>(batch)) {
  if (std::ssize(text) <= bytes) throw support::failure("too little text for one example");
}

ln::t5_batch denoising_examples::batch(std::uint64_t first) {
  std::fill(sources_.begin(), sources_.end(), 0);
  std::fill(labels_.begin(), labels_.end(), ln::ignored);
  for (ln::index b = 0; b < batch_; ++b) {
    ln::random_stream random(ln::seed{seed_}, first + static_cast<std::uint64_t>(b));
    const auto places = static_cast<std::uint32_t>(std::ssize(text_) - bytes_);
    const std::string_view window =
        text_.substr(random.below(places), static_cast<std::size_t>(bytes_));
    ln::token *source = &sources_[static_cast<std::size_t>(b * (bytes_ + 1))],
              *label = &labels_[static_cast<std::size_t>(b * target_)];
    const ln::token *const start = source, *const last = label + target_ - 3;
    ln::token sentinel = first_sentinel;
    bool inside = false;
    for (const char c : window) {
      const ln::token id = static_cast<unsigned char>(c) + first_byte;
      const bool mask = random.uniform() < masked_share && label < last && sentinel > 258;
      if (mask && !inside) *source++ = *label++ = sentinel--;
      if (mask)
        *label++ = id;
      else
        *source++ = id;
      inside = mask;
    }
    *source++ = *label = end_id;
    lengths_[static_cast<std::size_t>(b)] = source - start;
  }
  return {sources_.data(), lengths_.data(), labels_.data(), batch_, bytes_ + 1, target_};
}

ln::index masked_bytes(const ln::t5_batch& b) {
  const std::span labels(b.labels, static_cast<std::size_t>(b.batch * b.target_length));
  return std::count_if(labels.begin(), labels.end(),
                       [](ln::token t) { return t >= first_byte && t < first_byte + 256; });
}

}  // namespace study
