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

/// Windows of a text, each token's label the next one.
class window_examples final : public examples {
 public:
  window_examples(std::vector<tokens> all, ln::index batch, ln::index length, std::uint64_t seed)
      : all_(std::move(all)),
        batch_(batch),
        length_(length),
        training_(open(&tokens::training, mixture_of(all_, seed), seed)),
        held_out_(open(&tokens::held_out, mixture_of(all_, 0), 0)) {
    double bytes = 0, labels = 0;
    for (const tokens& t : all_) {
      bytes += static_cast<double>(t.training_bytes);
      labels += static_cast<double>(t.training.size());
    }
    bytes_per_label = bytes / labels;
    const auto& first = all_[0].held_out;
    prompt.assign(first.begin(), first.begin() + std::min<ln::index>(length / 4 + 1, 24));
  }
  ln::index source() const override { return 0; }
  ln::index target() const override { return length_; }
  any_batch batch(std::uint64_t first) override { return training_.batch(first); }
  text_score held_out(trainee& model, std::size_t group, ln::index most) override {
    const auto k = static_cast<ln::index>(group);
    const ln::index windows = held_out_.epoch(k),
                    calls = (std::min(most, windows) + batch_ - 1) / batch_;
    text_score s;
    for (ln::index i = 0; i < calls; ++i) {
      const ln::index at = calls * batch_ >= windows ? i * batch_ : i * windows / calls;
      const ln::loss_sum sum = model.loss(held_out_.in_order(at, k));
      s += {sum.nats, static_cast<double>(sum.tokens) * all_[group].bytes_per_token()};
    }
    return s;
  }

 private:
  std::vector<tokens> all_;
  ln::index batch_, length_;
  ln::window_stream<> training_, held_out_;

  ln::window_stream<> open(std::vector<ln::token> tokens::*part, ln::mixture mix,
                           std::uint64_t seed) const {
    std::vector<ln::token_source> sources;
    for (const tokens& t : all_) sources.emplace_back(t.*part, ln::t5_ids{});
    return take(ln::window_stream<>::open(std::move(sources), std::move(mix), batch_, length_,
                                          ln::seed{seed}));
  }
};

/// T5's span corruption. Each group has a stream of its own, of one example at a time.
class denoised_examples final : public examples {
  using stream = ln::denoising_stream<ln::token_source>;

 public:
  denoised_examples(std::vector<tokens> all, const ln::t5_ids& ids, ln::index batch,
                    ln::index length, std::uint64_t seed)
      : all_(std::move(all)), ids_(ids), batch_(batch), mix_(mixture_of(all_, seed)) {
    for (const tokens& t : all_) {
      training_.push_back(open(t.training, length, seed));
      held_out_.push_back(open(t.held_out, length, 0));
    }
    const auto& planned = training_[0].planned();
    source_ = planned.source;
    target_ = planned.target;
    sources_.resize(static_cast<std::size_t>(batch * source_));
    labels_.resize(static_cast<std::size_t>(batch * target_));
    lengths_.resize(static_cast<std::size_t>(batch));
    (void)this->batch(0);
    const auto labels = std::count_if(labels_.begin(), labels_.end(),
                                      [](ln::token id) { return id != ln::ignored; });
    bytes_per_label = all_[0].bytes_per_token() * static_cast<double>(labels_of_text()) /
                      static_cast<double>(labels);
    const ln::t5_batch first = held_out_[0].batch(0);
    prompt.assign(first.source, first.source + first.source_lengths[0]);
  }
  ln::index source() const override { return source_; }
  ln::index target() const override { return target_; }
  any_batch batch(std::uint64_t first) override {
    for (ln::index b = 0; b < batch_; ++b) {
      const std::uint64_t i = first + static_cast<std::uint64_t>(b);
      put(b, training_[static_cast<std::size_t>(mix_(i))].batch(i));
    }
    return view();
  }
  text_score held_out(trainee& model, std::size_t group, ln::index most) override {
    stream& from = held_out_[group];
    text_score s;
    const ln::index calls = std::max<ln::index>(1, std::min(most, from.epoch()) / batch_);
    for (ln::index i = 0; i < calls; ++i) {
      for (ln::index b = 0; b < batch_; ++b)
        put(b, from.batch(static_cast<std::uint64_t>(i * batch_ + b)));
      s += {model.loss(view()).nats,
            static_cast<double>(labels_of_text()) * all_[group].bytes_per_token()};
    }
    return s;
  }

 private:
  std::vector<tokens> all_;
  ln::t5_ids ids_;
  ln::index batch_, source_ = 0, target_ = 0;
  ln::mixture mix_;
  std::vector<stream> training_, held_out_;
  std::vector<ln::token> sources_, labels_;
  std::vector<ln::index> lengths_;

  stream open(const std::vector<ln::token>& from, ln::index length, std::uint64_t seed) const {
    return take(stream::open(ln::token_source(from, ids_), {}, {.batch = 1, .source = length},
                             ln::seed{seed}));
  }
  /// Copies one example into a row.
  void put(ln::index b, const ln::t5_batch& one) {
    const auto row = [&](std::vector<ln::token>& of, ln::index width) {
      return of.begin() + b * width;
    };
    std::fill_n(row(sources_, source_), source_, ln::t5_ids::padding);
    std::fill_n(row(labels_, target_), target_, ln::ignored);
    std::copy_n(one.source, std::min(one.source_length, source_), row(sources_, source_));
    std::copy_n(one.labels, std::min(one.target_length, target_), row(labels_, target_));
    lengths_[static_cast<std::size_t>(b)] =
        one.source_lengths ? one.source_lengths[0] : one.source_length;
  }
  ln::t5_batch view() const {
    return {.source = sources_.data(),
            .source_lengths = lengths_.data(),
            .labels = labels_.data(),
            .batch = batch_,
            .source_length = source_,
            .target_length = target_};
  }
  ln::index labels_of_text() const {
    return std::count_if(labels_.begin(), labels_.end(), [&](ln::token id) {
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
