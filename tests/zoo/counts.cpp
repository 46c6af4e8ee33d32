// SPDX-License-Identifier: MIT
// zoo count against formulas written down once more, from the papers' tables and not from types.

#include "program.hpp"

#include <cmath>

namespace test::counts {

namespace {

/// A model as a list of its tensors.
struct tally {
  long parameters = 0, bytes_int8 = 0, bytes_bf16 = 0, flops = 0;

  void vector(long size, long times = 1) {
    parameters += size * times;
    bytes_int8 += 4 * size * times;
    bytes_bf16 += 4 * size * times;
  }
  /// A linear map that is applied to `rows` tokens.
  void matrix(long out, long in, long times, long rows) {
    parameters += out * in * times;
    bytes_int8 += (out * in + 4 * out) * times;
    bytes_bf16 += 2 * out * in * times;
    flops += 2 * rows * out * in * times;
  }
};

struct preset {
  std::string name;
  bool t5;
  long d, ff, kv, heads, kv_heads, layers,
      vocabulary;  ///< kv: width of a head; layers: of one stack
  bool gated, tied, gpt2;
  long context;
};

const preset presets[] = {
    {"t5-tiny", true, 256, 1024, 64, 4, 4, 4, 32128, false, true, false, 0},
    {"t5-mini", true, 384, 1536, 64, 8, 8, 4, 32128, false, true, false, 0},
    {"t5-small", true, 512, 2048, 64, 8, 8, 6, 32128, false, true, false, 0},
    {"t5-base", true, 768, 3072, 64, 12, 12, 12, 32128, false, true, false, 0},
    {"t5-tiny-kv32", true, 256, 1024, 32, 4, 4, 4, 32128, false, true, false, 0},
    {"t5-mini-kv32", true, 384, 1536, 32, 8, 8, 4, 32128, false, true, false, 0},
    {"t5-small-kv32", true, 512, 2048, 32, 8, 8, 6, 32128, false, true, false, 0},
    {"t5-v1.1-small", true, 512, 1024, 64, 6, 6, 8, 32128, true, false, false, 0},
    {"t5-v1.1-base", true, 768, 2048, 64, 12, 12, 12, 32128, true, false, false, 0},
    {"stlm-10m", false, 128, 384, 16, 8, 4, 18, 50257, true, true, false, 0},
    {"stlm-50m", false, 512, 1536, 32, 16, 4, 10, 50257, true, true, false, 0},
    {"stlm-100m", false, 512, 1536, 32, 16, 4, 25, 50257, true, true, false, 0},
    {"gpt2-small", false, 768, 3072, 64, 12, 12, 12, 50257, false, true, true, 1024},
    {"stories260k", false, 64, 172, 8, 8, 4, 5, 512, true, true, false, 0},
    {"tinyllama-1.1b", false, 2048, 5632, 64, 32, 4, 22, 32000, true, false, false, 0},
    {"mobilellm-125m", false, 576, 1536, 64, 9, 3, 30, 32000, true, true, false, 0},
    {"smollm2-135m", false, 576, 1536, 64, 9, 3, 30, 49152, true, true, false, 0},
    {"smollm2-360m", false, 960, 2560, 64, 15, 5, 32, 49152, true, true, false, 0},
    {"mt5-small", true, 512, 1024, 64, 6, 6, 8, 250112, true, false, false, 0},
    {"mt5-base", true, 768, 2048, 64, 12, 12, 12, 250112, true, false, false, 0},
    {"babyllama-58m", false, 512, 1024, 64, 8, 8, 16, 16000, true, false, false, 0},
    {"babyllama-teacher-360m", false, 1024, 3072, 128, 8, 8, 24, 16000, true, false, false, 0},
    {"babyllama-teacher-705m", false, 1536, 6144, 96, 16, 16, 24, 16000, false, true, true, 256},
};

/// BERT's kin as rows of the same table: `gpt2` says biases, as there; `masked` the head.
struct encoder_preset {
  preset body;
  long types;
  bool masked;
};
const encoder_preset encoders[] = {
    {{"bert-base", false, 768, 3072, 64, 12, 12, 12, 30522, false, true, true, 512}, 2, true},
    {{"distilbert-base", false, 768, 3072, 64, 12, 12, 6, 30522, false, true, true, 512}, 0, true},
    {{"minilm", false, 384, 1536, 32, 12, 12, 6, 30522, false, true, true, 512}, 2, false},
};

/// Adds `layers` feed-forwards with their norms.
void add_feed_forwards(tally& t, const preset& p, const std::string& ffn, double e, long layers,
                       long rows) {
  if (ffn == "skip") return;
  const long d = p.d, inner = std::lround(e * static_cast<double>(d));
  t.vector(p.gpt2 ? 2 * d : d, layers);
  if (ffn == "1w" || ffn == "1w-relu") {
    t.matrix(d, d, layers, rows);
    if (p.gpt2) t.vector(d, layers);
  } else if (ffn == "2w" || ffn == "3w") {
    t.matrix(inner, d, layers, rows);
    if (ffn == "3w") t.matrix(inner, inner, layers, rows);
    t.matrix(d, inner, layers, rows);
  } else {
    t.matrix(p.ff, d, (p.gated ? 2 : 1) * layers, rows);
    t.matrix(d, p.ff, layers, rows);
    if (p.gpt2) t.vector(p.ff + d, layers);
  }
}

tally count_t5(const preset& p, const std::string& ffn, double e, long source, long target) {
  const long d = p.d, n = p.heads * p.kv;
  tally t;
  t.matrix(p.vocabulary, d, 1, p.tied ? target : 0);  // the embedding; tied it is the head, too
  if (!p.tied) t.matrix(p.vocabulary, d, 1, target);
  t.vector(32 * p.heads, 2);  // relative positions
  t.vector(d, 2);             // final norms
  // Encoder.
  t.vector(d, p.layers);
  t.matrix(n, d, 3 * p.layers, source);
  t.matrix(d, n, p.layers, source);
  t.flops += p.layers * 4 * source * source * n;
  add_feed_forwards(t, p, ffn == "skip-encoder" ? "skip" : ffn, e, p.layers, source);
  // Decoder: itself, then the encoder's output.
  t.vector(d, 2 * p.layers);
  t.matrix(n, d, 3 * p.layers, target);
  t.matrix(d, n, p.layers, target);
  t.matrix(n, d, p.layers, target);
  t.matrix(n, d, 2 * p.layers, source);
  t.matrix(d, n, p.layers, target);
  t.flops += p.layers * 4 * (target * target + target * source) * n;
  add_feed_forwards(t, p, ffn == "skip-encoder" ? "standard" : ffn, e, p.layers, target);
  return t;
}

tally count_decoder(const preset& p, const std::string& ffn, double e, long length) {
  const long d = p.d, n = p.heads * p.kv, kv = p.kv_heads * p.kv;
  tally t;
  t.matrix(p.vocabulary, d, 1, p.tied ? length : 0);
  if (!p.tied) t.matrix(p.vocabulary, d, 1, length);
  t.vector(p.context * d);  // learned positions
  t.vector(p.gpt2 ? 2 * d : d, p.layers + 1);
  t.matrix(n, d, p.layers, length);
  t.matrix(kv, d, 2 * p.layers, length);
  t.matrix(d, n, p.layers, length);
  if (p.gpt2) t.vector(n + 2 * kv + d, p.layers);
  t.flops += p.layers * 4 * length * length * n;
  add_feed_forwards(t, p, ffn, e, p.layers, length);
  return t;
}

tally count_encoder(const encoder_preset& e, const std::string& ffn, double expansion,
                    long length) {
  const preset& p = e.body;
  tally t;
  t.matrix(p.vocabulary, p.d, 1, 0);
  t.vector((p.context + e.types) * p.d);
  t.vector(2 * p.d, p.layers + 1);
  t.matrix(p.d, p.d, 4 * p.layers, length);
  t.vector(p.d, 4 * p.layers);
  t.flops += p.layers * 4 * length * length * p.d;
  add_feed_forwards(t, p, ffn, expansion, p.layers, length);
  t.matrix(p.d, p.d, 1, 0);  // the pooler, or the head's first map
  t.vector(p.d);
  if (e.masked) t.vector(2 * p.d + p.vocabulary);
  return t;
}

nlohmann::json count(const std::string& preset, const std::string& ffn,
                     const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"count", preset, "--ffn", ffn, "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const std::string printed = test::zoo_prints(arguments);
  BOOST_CHECK_EQUAL(std::count(printed.begin(), printed.end(), '\n'), 1);
  return nlohmann::json::parse(printed);
}

void check_counts(const nlohmann::json& json, const preset& p, const tally& t, long types = 0) {
  BOOST_CHECK_EQUAL(json["parameters"], t.parameters);
  BOOST_CHECK_EQUAL(json["non_embedding"], t.parameters - p.vocabulary * p.d * (p.tied ? 1 : 2) -
                                               (p.context + types) * p.d);
  BOOST_CHECK_EQUAL(json["forward_flops"], t.flops);
  BOOST_CHECK_EQUAL(json["bytes"], 4 * t.parameters);
  BOOST_CHECK_EQUAL(json["bytes_bf16"], t.bytes_bf16);
  BOOST_CHECK_EQUAL(json["bytes_int8"], t.bytes_int8);
}

tally count_by_hand(const preset& p, const std::string& ffn, double e) {
  return p.t5 ? count_t5(p, ffn, e, 128, 128) : count_decoder(p, ffn, e, 128);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(zoo_count)

BOOST_AUTO_TEST_CASE(every_preset_with_every_feed_forward) {
  for (const preset& p : presets)
    for (const std::string ffn :
         {"standard", "skip", "skip-encoder", "1w", "1w-relu", "2w", "3w"}) {
      if (ffn == "skip-encoder" && !p.t5) continue;
      BOOST_TEST_CONTEXT(p.name << " " << ffn) {
        const auto json = count(p.name, ffn);
        BOOST_CHECK_EQUAL(json["preset"], p.name);
        BOOST_CHECK_EQUAL(json["ffn"], ffn);
        check_counts(json, p, count_by_hand(p, ffn, 4));
        const bool collapses = ffn == "2w" || ffn == "3w";
        tally shipped = count_by_hand(p, collapses ? "1w" : ffn, 4);
        check_counts(json["deployed"], p, shipped);
      }
    }
}

BOOST_AUTO_TEST_CASE(encoders_with_every_feed_forward) {
  for (const encoder_preset& e : encoders)
    for (const std::string ffn : {"standard", "skip", "1w", "1w-relu", "2w", "3w"}) {
      BOOST_TEST_CONTEXT(e.body.name << " " << ffn) {
        const auto json = count(e.body.name, ffn);
        BOOST_CHECK_EQUAL(json["family"], "encoder");
        check_counts(json, e.body, count_encoder(e, ffn, 4, 128), e.types);
      }
    }
  check_counts(count("minilm", "2w", {"--expansion", "1.5", "--target", "9"}), encoders[2].body,
               count_encoder(encoders[2], "2w", 1.5, 9), 2);
}

BOOST_AUTO_TEST_CASE(expansions) {
  for (const preset& p : {presets[0], presets[5], presets[10]})
    for (const std::string ffn : {"2w", "3w"})
      for (const std::string e : {"4", "2", "1.5", "1.2"}) {
        BOOST_TEST_CONTEXT(p.name << " " << ffn << " " << e)
        check_counts(count(p.name, ffn, {"--expansion", e}), p,
                     count_by_hand(p, ffn, std::stod(e)));
      }
}

BOOST_AUTO_TEST_CASE(other_lengths) {
  check_counts(count("t5-mini", "standard", {"--source", "77", "--target", "5"}), presets[1],
               count_t5(presets[1], "standard", 4, 77, 5));
  check_counts(count("gpt2-small", "standard", {"--target", "1024"}), presets[12],
               count_decoder(presets[12], "standard", 4, 1024));
  const auto json = count("t5-mini", "standard", {"--source", "77", "--target", "5"});
  BOOST_CHECK_EQUAL(json["flops_for"]["source_tokens"], 77);
  BOOST_CHECK_EQUAL(json["flops_for"]["target_tokens"], 5);
}

// Numbers of the literature, as they are printed there.
BOOST_AUTO_TEST_CASE(published_counts) {
  const std::pair<const char*, long> totals[] = {{"t5-tiny", 15'570'688},
                                                 {"t5-mini", 31'220'480},
                                                 {"t5-small", 60'506'624},
                                                 {"t5-base", 222'903'552},
                                                 {"t5-tiny-kv32", 13'997'824},
                                                 {"t5-mini-kv32", 26'501'888},
                                                 {"t5-small-kv32", 51'069'440},
                                                 {"stlm-50m", 55'888'896},
                                                 {"mt5-small", 300'176'768},
                                                 {"byt5-small", 299'637'760},
                                                 {"byt5-base", 581'653'248},
                                                 {"stlm-10m-ffn-shared", 7'469'824},
                                                 {"stlm-50m-ffn-shared", 34'655'232},
                                                 {"stlm-100m-ffn-shared", 44'500'992},
                                                 {"stlm-10m-albert", 3'421'632},
                                                 {"stlm-50m-albert", 9'514'624},
                                                 {"stlm-100m-albert", 9'514'624},
                                                 {"babyllama-58m", 58'343'936},
                                                 {"babyllama-teacher-360m", 359'973'888},
                                                 {"babyllama-teacher-705m", 704'928'768},
                                                 {"gpt2-small", 124'439'808},
                                                 {"stories260k", 260'032},
                                                 {"tinyllama-1.1b", 1'100'048'384},
                                                 {"smollm2-135m", 134'515'008},
                                                 {"smollm2-360m", 361'821'120},
                                                 {"rwkv4-660k", 661'504},
                                                 {"rwkv7-834k", 829'888},
                                                 {"bert-base", 109'514'298},
                                                 {"distilbert-base", 66'985'530},
                                                 {"minilm", 22'713'216},
                                                 {"albert-base", 11'221'680},
                                                 {"roberta-base", 124'697'433}};
  for (const auto& [name, total] : totals)
    BOOST_CHECK_EQUAL(count(name, "standard")["parameters"], total);
  const std::tuple<const char*, const char*, long> parts[] = {
      {"t5-mini-kv32", "standard", 14'164'736},    {"t5-mini-kv32", "skip", 4'724'480},
      {"t5-mini-kv32", "skip-encoder", 9'444'608}, {"t5-mini-kv32", "1w", 5'907'200},
      {"t5-mini", "standard", 18'883'328},         {"t5-mini", "skip", 9'443'072},
      {"t5-mini", "skip-encoder", 14'163'200},     {"t5-mini", "1w", 10'625'792}};
  for (const auto& [name, ffn, total] : parts)
    BOOST_CHECK_EQUAL(count(name, ffn)["non_embedding"], total);
  for (const auto& [name, total] : {std::pair("stlm-10m", 10e6), std::pair("stlm-100m", 100e6)})
    BOOST_CHECK_CLOSE(count(name, "standard")["parameters"].get<double>(), total, 5);
}

BOOST_AUTO_TEST_CASE(list_names_every_preset) {
  const std::string list = test::zoo_prints({"list"});
  for (const preset& p : presets) BOOST_CHECK(list.find(p.name + " ") != std::string::npos);
  for (const encoder_preset& e : encoders)
    BOOST_CHECK(list.find(e.body.name + " ") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(columns_of_the_list_are_as_wide_as_their_texts) {
  const std::string said = test::zoo_prints({"list"});
  const std::string table = said.substr(0, said.find("\n\n") + 1);
  const std::size_t family = table.find("family"), width = table.find('\n');
  std::size_t rows = 0;
  for (std::size_t at = 0; at < table.size(); at = table.find('\n', at) + 1, ++rows) {
    const std::string line = table.substr(at, table.find('\n', at) - at);
    BOOST_CHECK_EQUAL(line.size(), width);
    BOOST_CHECK_MESSAGE(line[family - 1] == ' ' && line[family] != ' ', line);
  }
  BOOST_CHECK_GT(rows, 20u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::counts
