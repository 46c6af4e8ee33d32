// SPDX-License-Identifier: MIT
// Semantic search: embeds the paragraphs of a text file with all-MiniLM-L6-v2, then answers queries
// with the nearest ones. `zoo fetch minilm` gets the model.
//
//   semantic_search [FILE [QUERY...]]   without a query, each line of standard input is one

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;

using Model = ln::zoo::minilm_l6;
using Words = std::vector<std::string>;
constexpr ln::index batch = 32, longest = 256;  // texts at a time, tokens of one

// The folder that zoo fetch puts the model in.
std::string folder() {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string(value ? value : "");
  };
  std::string cache = variable("LINNET_CACHE");
  if (cache.empty() && !variable("XDG_CACHE_HOME").empty())
    cache = variable("XDG_CACHE_HOME") + "/linnet";
  if (cache.empty()) cache = variable("HOME") + "/.cache/linnet";
  return cache + "/all-MiniLM-L6-v2";
}

// One vector of length 1 for each text, so that products are cosines.
std::vector<float> embed(ln::embedder<Model>& run, const ln::tokenizer& pieces,
                         const Words& texts) {
  std::vector<float> all;
  for (std::size_t first = 0; first < texts.size(); first += batch) {
    const std::size_t count = std::min(texts.size() - first, std::size_t{batch});
    std::vector<ln::index> lengths;
    std::vector<ln::token> ids(count * longest, 0);  // padded on the right
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<ln::token> one{pieces.find("[CLS]")};
      pieces.encode(texts[first + i], one);
      one.resize(std::min(one.size(), std::size_t{longest - 1}));
      one.push_back(pieces.find("[SEP]"));
      lengths.push_back(std::ssize(one));
      std::copy(one.begin(), one.end(), ids.begin() + std::ptrdiff_t(i) * longest);
    }
    const ln::index length = *std::max_element(lengths.begin(), lengths.end());
    for (std::size_t i = 1; i < count; ++i)  // no more padding than the longest needs
      std::copy_n(ids.begin() + std::ptrdiff_t(i) * longest, length,
                  ids.begin() + std::ptrdiff_t(i) * length);
    const auto vectors = run.embed({.tokens = ids.data(),
                                    .lengths = lengths.data(),
                                    .batch = std::ssize(lengths),
                                    .length = length});
    all.insert(all.end(), vectors.begin(), vectors.end());
  }
  return all;
}

Words paragraphs_of(const std::string& path) {
  const auto file = ln::read_file(path);
  if (!file) return {};
  Words all(1);
  std::string text(reinterpret_cast<const char*>(file->data()), file->size());
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text.compare(at, 2, "\n\n") == 0 && !all.back().empty())
      all.emplace_back();
    else if (text[at] != '\n' || !all.back().empty())
      all.back() += text[at] == '\n' ? ' ' : text[at];
  }
  if (all.back().empty()) all.pop_back();
  return all;
}

int main(int count, char** argument) {
  const Words given(argument + 1, argument + count);
  if (!std::filesystem::exists(folder())) {
    std::puts("the model is not there: zoo fetch minilm gets it (83 MB)");
    return 0;
  }
  const auto pieces = ln::read_hf_tokenizer(folder() + "/tokenizer.json");
  ln::weights<Model> w;
  const auto loaded = ln::load_hugging_face(w, folder());
  if (!pieces || !loaded)
    return std::fprintf(stderr, "%s\n",
                        (pieces ? loaded.error() : pieces.error()).message().c_str()),
           1;
  const auto packed = ln::pack(w);
  auto run = ln::embedder<Model>::open(packed, {.batch = batch, .target = longest});
  if (!run) return std::fprintf(stderr, "%s\n", run.error().message().c_str()), 1;

  Words texts{"A linnet sings in the garden.", "Interest rates rose again last month.",
              "Fold the egg whites into the chocolate.", "The harbour froze over in January."};
  if (!given.empty()) texts = paragraphs_of(given[0]);
  if (texts.empty()) return std::fprintf(stderr, "%s: no text\n", given[0].c_str()), 1;
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> vectors = embed(*run, *pieces, texts);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  std::printf("%zu paragraphs, %.0f a second\n", texts.size(),
              double(texts.size()) / taken.count());

  const auto answer = [&](const std::string& query) {
    const std::vector<float> asked = embed(*run, *pieces, {query});
    std::vector<std::pair<float, std::size_t>> found;
    for (std::size_t i = 0; i < texts.size(); ++i)
      found.emplace_back(std::inner_product(asked.begin(), asked.end(),
                                            vectors.begin() + std::ptrdiff_t(i) * Model::d, 0.0F),
                         i);
    std::sort(found.rbegin(), found.rend());
    std::printf("\n%s\n", query.c_str());
    for (std::size_t i = 0; i < std::min<std::size_t>(3, found.size()); ++i)
      std::printf("  %.3f  %s\n", double(found[i].first), texts[found[i].second].c_str());
  };
  Words queries = given.empty() ? Words{"Which bird is that?", "How do I bake a cake?"} : Words{};
  if (given.size() > 1) queries.assign(given.begin() + 1, given.end());
  for (const std::string& query : queries) answer(query);
  if (given.size() == 1)
    for (std::string line; std::getline(std::cin, line);) answer(line);
  return std::fflush(stdout) == 0 ? 0 : 1;
}
