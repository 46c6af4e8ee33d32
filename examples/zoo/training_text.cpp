// SPDX-License-Identifier: MIT
#include "training_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <numbers>
#include <numeric>

#include "support.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

/// The paths and names of all files to read.
void find_files(const std::string& path, std::vector<std::string>& paths,
                std::vector<std::string>& names) {
  if (!fs::exists(path)) throw failure("--text: " + path + " does not exist");
  if (!fs::is_directory(path)) {
    paths.push_back(path);
    names.push_back(fs::path(path).filename().string());
    return;
  }
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file() && entry.path().extension() == ".txt" && entry.file_size() > 0)
      found.push_back(entry.path().string());
  if (found.empty()) throw failure("--text: " + path + ": no .txt file with text in it");
  std::sort(found.begin(), found.end());
  for (std::string& file : found) {
    names.push_back(fs::path(file).lexically_relative(path).generic_string());
    paths.push_back(std::move(file));
  }
}

/// "wiki.txt=3,code=1" as groups of the files of these names.
std::vector<text_group> groups_of(const std::string& mix, const std::vector<std::string>& names) {
  std::vector<text_group> groups;
  std::vector<bool> taken(names.size());
  for (std::size_t at = 0; at <= mix.size();) {
    const std::size_t end = std::min(mix.find(',', at), mix.size());
    const std::string item = mix.substr(at, end - at);
    const std::size_t equals = item.rfind('=');
    text_group g{item.substr(0, equals), 0, {}};
    const std::string number = equals == item.npos ? "" : item.substr(equals + 1);
    const auto [last, problem] =
        std::from_chars(number.data(), number.data() + number.size(), g.weight);
    if (problem != std::errc() || last != number.data() + number.size() || !(g.weight > 0) ||
        !ln::is_finite(g.weight))
      throw failure(fmt::format("--mix: '{}': expected name=weight, such as wiki.txt=3", item));
    while (g.name.ends_with('/')) g.name.pop_back();
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i] != g.name && !names[i].starts_with(g.name + "/")) continue;
      if (taken[i]) throw failure(fmt::format("--mix: {} is named twice", names[i]));
      taken[i] = true;
      g.files.push_back(i);
    }
    if (g.files.empty())
      throw failure(
          fmt::format("--mix: there is no text {} (known: {})", g.name, fmt::join(names, ", ")));
    groups.push_back(std::move(g));
    at = end + 1;
  }
  return groups;
}

/// Tokens of one group, and the bytes of its held-out part.
struct tokens {
  std::string name;
  double weight;
  std::vector<ln::token> training, held_out;
  ln::index training_bytes = 0, held_out_bytes = 0;

  double bytes_per_token() const {
    return static_cast<double>(held_out_bytes) / static_cast<double>(held_out.size());
  }
};

std::vector<tokens> tokenized(const training_text& text, const tokenizing& by) {
  std::vector<tokens> all;
  for (std::size_t g = 0; g < text.groups.size(); ++g) {
    tokens t{text.groups[g].name, text.groups[g].weight, {}, {}};
    const auto read = [&](const std::vector<std::string_view>& parts, std::vector<ln::token>& to,
                          ln::index& bytes) {
      for (const std::string_view part : parts) {
        const std::vector<ln::token> ids = by.encode(part);
        to.insert(to.end(), ids.begin(), ids.end());
        bytes += std::ssize(part);
      }
    };
    read(text.training(g), t.training, t.training_bytes);
    read(text.held_out(g), t.held_out, t.held_out_bytes);
    all.push_back(std::move(t));
  }
  return all;
}

/// Refuses a text that is shorter than an example.
void check_long_enough(const std::vector<tokens>& all, ln::index needed) {
  for (const tokens& t : all)
    if (const ln::index n = std::min(std::ssize(t.training), std::ssize(t.held_out)); n < needed)
      throw failure(
          fmt::format("{}: too short: {} tokens, a tenth of them held out, but an example "
                      "has {}; give more text or a smaller --length",
                      t.name, std::ssize(t.training) + std::ssize(t.held_out), needed));
}

ln::mixture mixture_of(const std::vector<tokens>& all, std::uint64_t seed) {
  std::vector<ln::index> sizes;
  for (const tokens& t : all) sizes.push_back(std::ssize(t.training));
  std::vector<double> weights = ln::mixing_weights(sizes, 1);
  for (std::size_t k = 0; k < all.size(); ++k)
    if (all[k].weight > 0) weights[k] = all[k].weight;
  return take(ln::mixture::open(weights, ln::seed{seed}));
}

/// Examples of mixed texts from a stream of any kind, and from one of what is held out.
template <class Stream>
class mixed_examples : public examples {
 public:
  any_batch batch(std::uint64_t first) final { return training_.batch(first); }
  text_score held_out(trainee& model, std::size_t group, ln::index most) final {
    const auto k = static_cast<ln::index>(group);
    const ln::index windows = held_out_.epoch(k),
                    calls = (std::min(most, windows) + batch_ - 1) / batch_;
    text_score s;
    for (ln::index i = 0; i < calls; ++i) {
      const auto some =
          held_out_.in_order(calls * batch_ >= windows ? i * batch_ : i * windows / calls, k);
      s += {model.loss(some).nats,
            static_cast<double>(labels_of_text(some)) * all_[group].bytes_per_token()};
    }
    return s;
  }

 protected:
  using batch_type = decltype(std::declval<Stream&>().batch(0));

  /// `open(sources, mixture, seed)` makes a stream; `ids` are the vocabulary's.
  template <class Open>
  mixed_examples(std::vector<tokens> all, const ln::t5_ids& ids, ln::index batch,
                 std::uint64_t seed, Open&& open)
      : all_(std::move(all)),
        batch_(batch),
        training_(opened(&tokens::training, ids, seed, open)),
        held_out_(opened(&tokens::held_out, ids, 0, open)) {
    double bytes = 0, count = 0;
    for (const tokens& t : all_) {
      bytes += static_cast<double>(t.training_bytes);
      count += static_cast<double>(t.training.size());
    }
    bytes_per_label = bytes / count;
  }
  /// Number of labels that are text.
  virtual ln::index labels_of_text(const batch_type& b) const = 0;

  std::vector<tokens> all_;
  ln::index batch_;
  Stream training_, held_out_;

 private:
  template <class Open>
  Stream opened(std::vector<ln::token> tokens::*part, const ln::t5_ids& ids, std::uint64_t seed,
                Open&& open) const {
    std::vector<ln::token_source> sources;
    for (const tokens& t : all_) sources.emplace_back(t.*part, ids);
    return take(open(std::move(sources), mixture_of(all_, seed), ln::seed{seed}));
  }
};

/// Windows of texts, each token's label the next one.
class window_examples final : public mixed_examples<ln::window_stream<>> {
 public:
  window_examples(std::vector<tokens> all, ln::index batch, ln::index length, std::uint64_t seed)
      : mixed_examples(std::move(all), {}, batch, seed,
                       [&](auto sources, auto mix, ln::seed key) {
                         return ln::window_stream<>::open(std::move(sources), std::move(mix), batch,
                                                          length, key);
                       }),
        length_(length) {
    const auto& first = all_[0].held_out;
    prompt.assign(first.begin(), first.begin() + std::min<ln::index>(length / 4 + 1, 24));
  }
  ln::index source() const override { return 0; }
  ln::index target() const override { return length_; }

 private:
  ln::index length_;

  ln::index labels_of_text(const ln::decoder_batch& b) const override {
    const ln::index all = b.batch * b.length;
    return all - std::count(b.labels, b.labels + all, ln::ignored);
  }
};

/// T5's span corruption.
class denoised_examples final : public mixed_examples<ln::denoising_stream<ln::token_source>> {
 public:
  denoised_examples(std::vector<tokens> all, const ln::t5_ids& ids, ln::index batch,
                    ln::index length, std::uint64_t seed)
      : mixed_examples(std::move(all), ids, batch, seed,
                       [&](auto sources, auto mix, ln::seed key) {
                         return ln::denoising_stream<ln::token_source>::open(
                             std::move(sources), std::move(mix), {},
                             {.batch = batch, .source = length}, key);
                       }),
        ids_(ids) {
    const ln::t5_batch some = training_.batch(0);
    const ln::index labels = some.batch * some.target_length;
    bytes_per_label *=
        static_cast<double>(labels_of_text(some)) /
        static_cast<double>(labels - std::count(some.labels, some.labels + labels, ln::ignored));
    const ln::t5_batch first = held_out_.in_order(0);
    prompt.assign(first.source, first.source + first.source_lengths[0]);
  }
  ln::index source() const override { return training_.planned().source; }
  ln::index target() const override { return training_.planned().target; }

 private:
  ln::t5_ids ids_;

  ln::index labels_of_text(const ln::t5_batch& b) const override {
    return std::count_if(b.labels, b.labels + b.batch * b.target_length, [&](ln::token id) {
      return id > ln::t5_ids::end && !ids_.is_sentinel(id);
    });
  }
};

}  // namespace

std::vector<std::string_view> training_text::training(std::size_t group) const {
  std::vector<std::string_view> all;
  for (const std::size_t file : groups[group].files)
    for (std::size_t i = 0; i < texts.stretches; ++i)
      all.push_back(texts.training[file * texts.stretches + i]);
  return all;
}
std::vector<std::string_view> training_text::held_out(std::size_t group) const {
  std::vector<std::string_view> all;
  for (const std::size_t file : groups[group].files)
    for (std::size_t i = 0; i < texts.stretches; ++i)
      all.push_back(texts.held_out[file * texts.stretches + i]);
  return all;
}

training_text read_training_text(const std::vector<std::string>& paths, const std::string& mix) {
  std::vector<std::string> files, names;
  for (const std::string& path : paths) find_files(path, files, names);
  training_text t{support::read_texts(files, names), {}, 0, {}};
  for (std::size_t i = 0; i < names.size(); ++i)
    if (t.texts.files.texts()[i].empty())
      throw failure("--text: " + files[i] + " is empty; give a file with text");
  if (mix.empty()) {
    text_group all{names.size() == 1 ? names[0] : "all texts", 0, {}};
    for (std::size_t i = 0; i < names.size(); ++i) all.files.push_back(i);
    t.groups.push_back(std::move(all));
  } else {
    t.groups = groups_of(mix, names);
  }
  std::uint64_t mark = 0;
  for (const text_group& g : t.groups)
    for (const std::size_t file : g.files) {
      const std::string_view all = t.texts.files.texts()[file];
      t.bytes += std::ssize(all);
      mark = mark * 0x9e3779b97f4a7c15u + ln::stream_of(all);
    }
  t.mark = fmt::format("{:016x}", mark);
  return t;
}

double text_score::bits() const { return nats / bytes / std::numbers::ln2; }

std::unique_ptr<examples> open_examples(const training_text& text, const tokenizing& by,
                                        bool encodes, ln::index batch, ln::index length,
                                        std::uint64_t seed) {
  std::vector<tokens> all = tokenized(text, by);
  check_long_enough(all, length + 1);
  if (encodes)
    return std::make_unique<denoised_examples>(std::move(all), by.t5, batch, length, seed);
  return std::make_unique<window_examples>(std::move(all), batch, length, seed);
}

}  // namespace zoo
