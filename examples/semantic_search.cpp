// SPDX-License-Identifier: MIT
// Semantic search: embeds the paragraphs of a text file with all-MiniLM-L6-v2, then answers queries
// with the nearest ones. `zoo fetch minilm` gets the model.
//   semantic_search [FILE [QUERY...]]   without a query, each line of standard input is one

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;

using Model = ln::zoo::minilm_l6;
using Words = std::vector<std::string>;
constexpr std::size_t batch = 32, longest = 256;  // texts at a time, tokens of one

// The folder that zoo fetch puts the model in.
std::string folder() {
  for (const auto& [name, rest] :
       {std::pair("LINNET_CACHE", ""), {"XDG_CACHE_HOME", "/linnet"}, {"HOME", "/.cache/linnet"}})
    if (const char* const value = std::getenv(name); value && *value)
      return std::string(value) + rest + "/all-MiniLM-L6-v2";
  return "all-MiniLM-L6-v2";
}

// One vector of length 1 for each text, so that products are cosines.
std::vector<float> embed(ln::embedder<Model>& run, ln::encoder_texts& read, const Words& texts) {
  std::vector<float> all;
  for (std::size_t i = 0; i < texts.size(); i += batch)
    if (const auto b = read.batch(std::span(texts).subspan(i, std::min(batch, texts.size() - i)))) {
      const auto vectors = run.embed(*b);
      all.insert(all.end(), vectors.begin(), vectors.end());
    }
  return all;
}

Words paragraphs_of(const std::string& path) {
  Words all(1);
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) all.emplace_back();
    all.back() += all.back().empty() ? line : ' ' + line;
  }
  std::erase(all, "");
  return all;
}

int main(int count, char** argument) {
  const Words given(argument + 1, argument + count);
  if (!std::filesystem::exists(folder()))
    return std::puts("the model is not there: zoo fetch minilm gets it (83 MB)"), 0;
  ln::weights<Model> w;
  const auto loaded = ln::load_hugging_face(w, folder());
  const auto pieces = ln::read_hf_tokenizer(folder() + "/tokenizer.json");
  const auto packed = ln::pack(w);
  auto run = ln::embedder<Model>::open(packed, {.batch = batch, .target = longest});
  using Reader = ln::result<ln::encoder_texts>;
  auto read = pieces ? ln::encoder_texts::open(*pieces, longest) : Reader(pieces.error());
  for (const auto* why : {loaded ? nullptr : &loaded.error(), read ? nullptr : &read.error(),
                          run ? nullptr : &run.error()})
    if (why) return std::fprintf(stderr, "%s\n", why->message().c_str()), 1;

  Words texts{"A linnet sings in the garden.", "Interest rates rose again last month.",
              "Fold the egg whites into the chocolate.", "The harbour froze over in January."};
  if (!given.empty()) texts = paragraphs_of(given[0]);
  if (texts.empty()) return std::fprintf(stderr, "%s: no text\n", given[0].c_str()), 1;
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> vectors = embed(*run, *read, texts);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  std::printf("%zu paragraphs, %.0f/s\n", texts.size(), double(texts.size()) / taken.count());

  const auto answer = [&](const std::string& query) {
    const std::vector<float> asked = embed(*run, *read, {query});
    std::vector<std::pair<float, std::string>> found;
    for (auto one = vectors.begin(); const std::string& text : texts) {
      found.emplace_back(std::inner_product(asked.begin(), asked.end(), one, 0.0F), text);
      one += Model::d;
    }
    std::sort(found.rbegin(), found.rend());
    std::printf("\n%s\n", query.c_str());
    for (std::size_t i = 0; i < std::min(found.size(), std::size_t{3}); ++i)
      std::printf("  %.3f  %s\n", double(found[i].first), found[i].second.c_str());
  };
  Words queries{"Which bird is that?", "How do I bake a cake?"};
  if (!given.empty()) queries.assign(given.begin() + 1, given.end());
  for (const std::string& query : queries) answer(query);
  if (given.size() == 1)
    for (std::string line; std::getline(std::cin, line);) answer(line);
  return std::fflush(stdout) == 0 ? 0 : 1;
}
