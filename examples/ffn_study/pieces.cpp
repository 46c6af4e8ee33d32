// SPDX-License-Identifier: MIT
#include "pieces.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <linnet/file/file.hpp>

#include "support/basics.hpp"

namespace study {

namespace {

constexpr std::size_t most_asked = 2000;  // of an exam: 1% of standard error

/// Text as in books from text as in treebanks: the training set has the one form, the mismatched
/// sample the other.
std::string untokenized(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" n't", "n't"}, {" 's", "'s"}, {" 're", "'re"}, {" 've", "'ve"}, {" 'll", "'ll"},
      {" 'm", "'m"},   {" 'd", "'d"}, {" ,", ","},     {" .", "."},     {" ?", "?"},
      {" !", "!"},     {" ;", ";"},   {" :", ":"},     {" )", ")"},     {"( ", "("}};
  for (const auto& [from, to] : rules)
    for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size())
      text.replace(at, from.size(), to);
  return text;
}

/// Evenly spread, as many as an exam needs.
std::vector<ln::text_pair> spread(std::vector<ln::text_pair> all) {
  if (all.size() <= most_asked) return all;
  std::vector<ln::text_pair> some;
  for (std::size_t i = 0; i < most_asked; ++i) some.push_back(all[i * all.size() / most_asked]);
  return some;
}

}  // namespace

denoising_examples denoise(std::span<const std::string_view> text, ln::index batch, ln::index bytes,
                           std::uint64_t seed) {
  return support::take(denoising_examples::open(
      ln::byte_source(text, {}, bytes_of_text), {.mask = ln::masking::independent},
      {.batch = batch, .source = bytes + 1, .target = bytes / 2 + 1}, ln::seed{seed}));
}

ln::index masked_bytes(const ln::t5_batch& b) {
  const std::span labels(b.labels, static_cast<std::size_t>(b.batch * b.target_length));
  return std::count_if(labels.begin(), labels.end(), [](ln::token t) {
    return t >= bytes_of_text.offset && t < bytes_of_text.offset + 256;
  });
}

std::string folder_of(const std::string& data, std::string_view name) {
  return fmt::format("{}/{}", data, name == "mnli" ? "mnli_train10k" : name);
}

task read_task(const std::string& folder, std::string_view name) {
  const auto read = [&](const char* file, auto&& parse) {
    const std::string path = folder + "/" + file;
    const auto bytes = support::take(ln::read_file(path));
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return support::take(parse(text, path));
  };
  if (name == "sst2")
    return {ln::glue::sst2,
            read("sst2/train.tsv", ln::glue::read_sst2),
            {{"sst2", read("sst2/test.tsv", ln::glue::read_sst2)}}};
  const auto mnli = [&](const char* file, ln::glue::mnli_layout layout) {
    auto pairs = read(file, [&](std::string_view text, const std::string& path) {
      return ln::glue::read_mnli(text, layout, path);
    });
    for (ln::text_pair& p : pairs) p.input = untokenized(std::move(p.input));
    return pairs;
  };
  using enum ln::glue::mnli_layout;
  return {ln::glue::mnli,
          mnli("mnli_train10k/mnli_train.csv", question),
          {{"mnli-m", spread(mnli("mnli_m_dev/mnli_matched_dev.tsv", named))},
           {"mnli-mm", mnli("mnli_mm_sample1000/mnli_mismatched.tsv", label_first)}}};
}

}  // namespace study
