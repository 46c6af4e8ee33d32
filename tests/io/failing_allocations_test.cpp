// SPDX-License-Identifier: MIT
// Where the heap has no room: every allocation of every reader, writer and open() fails once, and
// each says errc::out_of_memory.

#include <linnet/compression.hpp>

#include "models.hpp"
#include "support/allocations.hpp"
#include "support/models.hpp"

#if __has_include(<xxhash.h>)
#include <linnet/cached_logits.hpp>
#include <linnet/checkpoint.hpp>
#endif

namespace test::failing_allocations_test {

namespace {

std::string numbered(const char* before, int n, const char* behind) {
  std::string text;
  for (int i = 0; i < n; ++i) text += before + std::to_string(i) + behind;
  return text;
}
/// A tokenizer.json with some merges and added tokens.
std::string tokenizer_json() {
  std::string vocabulary, merges, added;
  for (unsigned b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    vocabulary +=
        ln::detail::json_quoted(ln::letters_of({&byte, 1})) + ":" + std::to_string(b) + ",";
  }
  vocabulary += "\"ab\":256,\"abc\":257";
  for (int i = 0; i < 9; ++i)
    added += std::string(i > 0 ? "," : "") + "{\"id\":" + std::to_string(258 + i) +
             ",\"content\":\"<" + std::to_string(i) +
             ">\",\"special\":true,\"normalized\":" + (i % 2 == 0 ? "true}" : "false}");
  return "{\"added_tokens\":[" + added +
         "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{"
         "\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{" +
         vocabulary + "},\"merges\":[\"a b\",[\"ab\",\"c\"]]}}";
}
/// A tokenizer.bin with the bytes and a few pieces.
std::string tokenizer_bin() {
  std::string file = raw(std::uint32_t{16});
  const auto add = [&](const std::string& piece) {
    file += raw(-1.0f) + raw(static_cast<std::uint32_t>(piece.size())) + piece;
  };
  for (const char* piece : {"<unk>", "\n<s>\n", "\n</s>\n"}) add(piece);
  for (int b = 0; b < 256; ++b) {
    char piece[8];
    std::snprintf(piece, sizeof piece, "<0x%02X>", b);
    add(piece);
  }
  add(" ");
  return file;
}

/// Success where a call refuses for its own reason, so that the words of that need memory, too.
template <class Result>
ln::result<void> refusal(const Result& r) {
  BOOST_REQUIRE(!r);
  if (r.error().code == ln::errc::out_of_memory) return ln::detail::out_of_memory("refusal");
  return {};
}
/// Checks a call that refuses.
template <class F>
void check_refusal(const char* name, F&& f) {
  check_failing_allocations(name, [&](auto arm) {
    arm();
    return refusal(f());
  });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(failing_allocations)

BOOST_AUTO_TEST_CASE(tokenizers) {
  const std::string json = tokenizer_json(), bin = tokenizer_bin();
  check_failing_allocations("tokenizer.json", [&] { return ln::parse_hf_tokenizer(bytes(json)); });
  const auto tokenizer = ln::parse_hf_tokenizer(bytes(json));
  std::string encoder = "{";
  for (token id = 0; id < tokenizer->vocabulary(); ++id)
    encoder += (id > 0 ? "," : "") +
               ln::detail::json_quoted(id < 258 ? ln::letters_of(tokenizer->piece(id))
                                                : std::string(tokenizer->piece(id))) +
               ":" + std::to_string(id);
  encoder += "}";
  check_failing_allocations("encoder.json",
                            [&] { return ln::check_encoder_json(*tokenizer, bytes(encoder)); });
  const std::string merges = "#version: 0.2\n" + numbered("a ", 9, "\n");
  const ln::bpe_rules rules{.added = {"<|endoftext|>", "<|another|>"}};
  check_failing_allocations("vocab.bpe", [&] { return ln::bpe_tokenizer::parse(merges, rules); });
  check_failing_allocations("tokenizer.bin",
                            [&] { return ln::llama2c_tokenizer::parse(bytes(bin), 260); });
  // Encoding says it by what no text gives.
  const std::string word(200, 'a'), text = "<0>" + word + " abc<1>";
  const auto scored = ln::llama2c_tokenizer::parse(bytes(bin), 260);
  const auto whole = [](std::vector<token> ids) {
    return ids.empty() ? ln::result<std::vector<token>>(ln::detail::out_of_memory("encode"))
                       : ln::result<std::vector<token>>(std::move(ids));
  };
  check_failing_allocations("encode", [&] { return whole(tokenizer->encode(text, true)); });
  check_failing_allocations("encode by scores", [&] { return whole(scored->encode(text)); });
  std::vector<token> ids{7};
  fail_allocation(2, true);
  BOOST_TEST(!tokenizer->encode(text, ids, true));
  BOOST_TEST(stop_failing());
  BOOST_TEST((ids == std::vector<token>{7}));

  ln::bpe_trainer trainer;
  trainer.add("the linnet that the other linnets are with");
  check_failing_allocations("bpe_trainer", [&] { return trainer.train(20); });
}

BOOST_AUTO_TEST_CASE(tables_and_tasks) {
  const std::string tsv = "sentence\tlabel\n" +
                          numbered("a bird that sings\t0\nanother ", 99, "\t1\n"),
                    csv = "a,b\n" + numbered("\"one\"\"two\"\"", 99, "\",x\n");
  check_failing_allocations("tsv", [&] { return ln::table::parse(tsv, ln::table_format::tsv()); });
  check_failing_allocations("csv", [&] { return ln::table::parse(csv, ln::table_format::csv()); });
  check_failing_allocations("SST-2", [&] { return ln::glue::read_sst2(tsv, "f"); });
  check_failing_allocations("CoLA", [] { return ln::glue::read_cola("a\t1\t*\tIt is.\n", "f"); });
  check_failing_allocations("MNLI", [] {
    return ln::glue::read_mnli("neutral\tIt is.\tIt is not.\n", ln::glue::mnli_layout::label_first,
                               "f");
  });
  check_failing_allocations("STS-B", [] {
    return ln::glue::read_stsb("sentence1\tsentence2\tscore\nIt is.\tIt is not.\t2.5\n", "f");
  });
  check_failing_allocations("RTE", [] {
    return ln::glue::read_rte("sentence1\tsentence2\tlabel\nIt is.\tIt is not.\tentailment\n", "f");
  });
  check_failing_allocations("SQuAD", [] {
    return ln::read_squad(R"({"data": [{"paragraphs": [{"context": "The linnet sings in May.",
        "qas": [{"id": "a name that is long", "question": "When does it sing, and what?",
                 "answers": [{"text": "in May, but not in November"}]}]}]}]})",
                          "f");
  });
  const std::string lines = numbered("{\"a\": ", 9, ", \"b\": \"a text of some length\"}\n");
  check_failing_allocations("JSON lines", [&](auto arm) {
    std::vector<std::string> names{"a", "b"};
    arm();
    return ln::parse_json_lines(lines, std::move(names));
  });
  check_failing_allocations("JSON array", [](auto arm) {
    std::vector<std::string> names{"a"};
    arm();
    return ln::parse_json_array("[{\"a\":1},{\"a\":2}]", std::move(names));
  });
  const auto task = [](const char* file, auto read) {
    const std::string text = contents(golden("eval_tasks/" + std::string(file)));
    check_failing_allocations(file, [&] { return read(text, "f"); });
  };
  task("arc_easy.json", ln::read_arc);
  task("blimp.jsonl", ln::read_blimp);
  task("gsm8k.jsonl", ln::read_gsm8k);
  task("hellaswag.txt", ln::read_hellaswag);
  task("lambada.jsonl", ln::read_lambada);
  task("mmlu.csv", [](const std::string& text, const std::string& where) {
    return ln::read_mmlu(text, "birds", where);
  });
  task("winogrande.json", ln::read_winogrande);
}

BOOST_AUTO_TEST_CASE(models) {
  const scratch_folder folder;
  const std::string config = contents(golden("llama_gqa_untied/config.json")),
                    tensors = contents(golden("llama_gqa_untied/model.safetensors"));
  check_failing_allocations("config.json", [&] { return ln::parse_hf_config(bytes(config)); });
  check_failing_allocations("safetensors", [&] { return ln::parse_safetensors(bytes(tensors)); });
  ln::weights<llama_gqa> w;
  const auto parsed = ln::parse_safetensors(bytes(tensors));
  check_failing_allocations("load_safetensors", [&] {
    return ln::load_safetensors(w, *parsed, ln::naming::hugging_face{});
  });
  check_failing_allocations("values",
                            [&] { return parsed->values<float>(parsed->tensors()[0].name); });
  const std::string path = folder.path("w.safetensors");
  check_failing_allocations("save_safetensors", [&] { return ln::save_safetensors(w, path); });
  ln::weights<llama_gqa_interleaved> other;
  const std::string bin = folder.path("w.bin");
  LINNET_REQUIRE_OK(ln::save_llama2c(other, bin));
  const std::string model = contents(bin);
  check_failing_allocations("llama2.c", [&] { return ln::load_llama2c(other, bytes(model)); });
}

// Names are longer than what a string holds in itself.
BOOST_AUTO_TEST_CASE(files) {
  using model = ln::decoder<tiny_decoder_shape>;
  const scratch_folder folder;
  const std::string file = folder.path("a_file"), none = folder.path("there is no such file"),
                    nowhere = none + "/file";
  const std::string text = "a text";
  check_failing_allocations("write_file", [&] { return ln::write_file(file, bytes(text)); });
  BOOST_TEST(contents(file) == text);
  for (const char* left : {".partial", ".1.partial"})
    BOOST_TEST(!std::filesystem::exists(file + left));
  check_refusal("write_file", [&] { return ln::write_file(nowhere, bytes(text)); });
  check_failing_allocations("check_writable", [&] { return ln::check_writable(file); });
  check_refusal("check_writable", [&] { return ln::check_writable(nowhere); });
  check_failing_allocations("read_file", [&] { return ln::read_file(file); });
  check_refusal("read_file", [&] { return ln::read_file(none); });
  check_failing_allocations("mapped_file", [&] { return ln::corpus::open(file); });
  check_refusal("mapped_file", [&] { return ln::mapped_file::open(none); });

  check_failing_allocations("line_file", [&] { return ln::line_file::open(file, text); });
  check_refusal("line_file", [&] { return ln::line_file::open(nowhere, text); });
  auto full = ln::line_file::open("/dev/full", "");
  check_refusal("line_file::write", [&] { return full->write("a line\n"); });
  auto lines = ln::line_file::open(file, "");
  ln::line_file moved = *std::move(lines);
  LINNET_REQUIRE_OK(moved.write("a line\n"));
  check_refusal("line_file, moved from", [&] { return lines->sync(); });

  const std::string log = folder.path("log.jsonl");
  auto metrics = ln::metrics_log::open(log, {"a column with a long name"});
  const std::vector<double> figures{0.1}, more{1, 2};
  check_failing_allocations("metrics_log::write", [&] { return metrics->write(1, figures); });
  check_refusal("metrics_log::write", [&] { return metrics->write(1, more); });
  LINNET_REQUIRE_OK(metrics->sync());

  const std::string tensors = golden("llama_gqa_untied/model.safetensors");
  ln::weights<llama_gqa> w;
  check_failing_allocations("read_safetensors", [&] { return ln::read_safetensors(tensors); });
  check_refusal("read_safetensors", [&] { return ln::read_safetensors(none); });
  check_refusal("read_safetensors_shards", [&] { return ln::read_safetensors_shards(none); });
  check_failing_allocations("load_safetensors", [&] {
    return ln::load_safetensors(w, tensors, ln::naming::hugging_face{});
  });
  check_refusal("load_safetensors",
                [&] { return ln::load_safetensors(w, none, ln::naming::hugging_face{}); });
  check_refusal("load_hugging_face", [&] { return ln::load_hugging_face(w, none); });
  check_refusal("read_hf_config", [&] { return ln::read_hf_config(none); });
  check_refusal("read_hf_tokenizer", [&] { return ln::read_hf_tokenizer(none); });
  check_refusal("read_llama2c_tokenizer", [&] { return ln::read_llama2c_tokenizer(none, 9); });
  ln::weights<llama_gqa_interleaved> other;
  check_refusal("load_llama2c", [&] { return ln::load_llama2c(other, none); });

  const std::string merges = "#version: 0.2\na b\n";
  LINNET_REQUIRE_OK(ln::write_file(file, bytes(merges)));
  check_failing_allocations("read_vocab_bpe", [&] { return ln::read_vocab_bpe(file); });
  check_refusal("read_vocab_bpe", [&] { return ln::read_vocab_bpe(none); });
  check_failing_allocations("vocab.bpe", [&] { return ln::bpe_tokenizer::parse(merges); });

  const auto table = ln::table::parse("one,two\n1,2\n", ln::table_format::csv());
  check_refusal("table::column", [&] { return table->column("a column of another name"); });
  check_refusal("sampler", [] { return ln::sampler::open({.temperature = -1}); });

#if __has_include(<xxhash.h>)
  ln::weights<model> trained;
  randomize(trained);
  auto train = ln::trainer<model>::open(trained, {.target = 8});
  check_refusal("load_checkpoint", [&] { return ln::load_checkpoint(none, *train); });
  const ln::cached_logits_format how{.vocabulary = 64, .k = 4};
  check_failing_allocations("cached_logits_writer", [&](auto arm) {
    auto recorder = ln::cached_logits_writer::open(file, how);
    arm();
    return recorder->commit();
  });
  check_refusal("cached_logits_writer", [&] {
    auto recorder = ln::cached_logits_writer::open(nowhere, how);
    return recorder ? recorder->commit() : ln::result<void>(recorder.error());
  });
  check_refusal("cached_logits_reader", [&] { return ln::cached_logits_reader<>::open({}, how); });
  // A second commit() does not publish what the first one could not.
  LINNET_REQUIRE_OK(ln::write_file(file, bytes(text)));
  auto recorder = ln::cached_logits_writer::open(file, how);
  fail_allocation(0, true);
  const auto first = recorder->commit();
  BOOST_TEST(stop_failing());
  BOOST_TEST((!first && !recorder->commit()));
  BOOST_TEST(contents(file) == text);
#endif
}

// What is no result says it by what is left out: all of it.
BOOST_AUTO_TEST_CASE(texts_and_figures) {
  const auto told = [](bool none, bool all) -> ln::result<void> {
    if (all) return {};
    return none ? ln::detail::out_of_memory("told") : ln::error{ln::errc::invalid, "", "", "", ""};
  };
  const auto same = [&](const auto& got, const auto& want) {
    return told(got.empty(), got == want);
  };
  const auto tokenizer = ln::bpe_tokenizer::parse("#version: 0.2\na b\n");
  const auto scored = ln::llama2c_tokenizer::parse(bytes(tokenizer_bin()), 260);
  const ln::byte_tokenizer plain;
  const std::string text(99, 'a');
  const auto ids = tokenizer->encode(text), letters = scored->encode(text);
  const auto codes = plain.encode(text);
  check_failing_allocations("decode", [&] { return same(tokenizer->decode(ids), text); });
  check_failing_allocations("decode by scores",
                            [&] { return same(scored->decode(letters), text); });
  check_failing_allocations("encode bytes", [&] { return same(plain.encode(text), codes); });
  check_failing_allocations("decode bytes", [&] { return same(plain.decode(codes), text); });

  const auto finite = [](const ln::estimate& e) {
    return ln::is_finite(e.value) && ln::is_finite(e.error);
  };
  std::vector<ln::eval_item> items;
  for (const char* group : {"a", "b", "a"})
    items.push_back({.options = {"x", "y"}, .answer = 1, .group = group});
  std::vector<ln::item_score> scores(3);
  for (auto& score : scores) score.options = {{.whole = -2}, {.whole = -1}};
  check_failing_allocations("summarize", [&] {
    const auto f = ln::summarize(items, scores, ln::choice_by::whole);
    return told(f.answers.total == 0, f.answers.total == 3 && finite(f.clustered) &&
                                          finite(f.confidence) && f.confidence.value > 0);
  });
  const std::vector<ln::text_score> documents{{1, 2, 3, 3}, {2, 2, 3, 3}};
  check_failing_allocations("summarize texts", [&] {
    const auto f = ln::summarize(documents);
    return told(f.documents == 0, f.documents == 2 && finite(f.mean_perplexity));
  });
  const std::vector<double> samples{1, 2, 3};
  const std::vector<index> clusters{0, 1, 1};
  check_failing_allocations("mean_estimate", [&] {
    const auto mean = ln::mean_estimate(samples, clusters);
    return told(!ln::is_finite(mean.value) && !ln::is_finite(mean.error), mean.value == 2);
  });
}

// Answers of yes or no: a scorer says why, and goes on afterwards.
BOOST_AUTO_TEST_CASE(scoring) {
  using model = ln::decoder<tiny_decoder_shape>;
  ln::weights<model> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto session = ln::session<model>::open(p, {.batch = 3, .target = 8, .max_logits = 4});
  LINNET_REQUIRE_OK(session);
  const std::vector<token> text = tokens(20, model::vocabulary, 1);
  const std::span<const token> given = std::span(text).first(3), rest = std::span(text).first(5);
  std::vector<ln::token_score> scores(5), more(5), windows(19);
  const auto told = [](bool done, bool lacks) -> ln::result<void> {
    if (done && !lacks) return {};
    return lacks ? ln::detail::out_of_memory("told") : ln::error{ln::errc::invalid, "", "", "", ""};
  };
  const auto check = [&](const char* name, auto open) {
    // A new scorer for each: what one has allocated stays.
    const auto with = [&](auto&& f) {
      return [&, f](auto arm) {
        auto scorer = open();
        return f(scorer, arm);
      };
    };
    check_failing_allocations(name, with([&](auto& s, auto arm) {
                                arm();
                                const bool done = s.begin(given, {});
                                return told(done, s.lacks_memory());
                              }));
    check_failing_allocations(name, with([&](auto& s, auto arm) {
                                arm();
                                const bool done = s.begin(given, std::span(scores).first(2));
                                return told(done, s.lacks_memory());
                              }));
    check_failing_allocations(name, with([&](auto& s, auto arm) {
                                BOOST_REQUIRE(s.begin(given, {}));
                                arm();
                                const bool done = s.score(rest, scores);
                                return told(done, s.lacks_memory());
                              }));
    for (const long n : {0L, 1L, 2L}) {  // the given tokens are still there afterwards
      auto scorer = open();
      BOOST_REQUIRE(scorer.begin(given, {}));
      fail_allocation(n, true);
      const bool done = scorer.score(rest, scores);
      BOOST_TEST((stop_failing() && !done && scorer.lacks_memory()));
      BOOST_TEST((scorer.score(rest, more) && !scorer.lacks_memory()));
      auto other = open();
      BOOST_REQUIRE((other.begin(given, {}) && other.score(rest, scores)));
      for (std::size_t i = 0; i < scores.size(); ++i)
        BOOST_TEST(scores[i].log_probability == more[i].log_probability);
    }
    {  // a text that could not begin is not the one before
      auto scorer = open();
      BOOST_REQUIRE(scorer.begin(given, {}));
      fail_allocation(0, true);
      const bool begun = scorer.begin(rest, std::span(more).first(4));
      BOOST_TEST((stop_failing() && !begun && scorer.lacks_memory()));
      BOOST_TEST((!scorer.score(rest, more) && !scorer.lacks_memory()));
    }
    const auto encode = [](std::string_view t) {
      std::vector<token> ids;
      for (const char c : t) ids.push_back(c % 11);
      return ids;
    };
    const ln::eval_item item{.context = "ab", .options = {"cd", "efgh"}};
    check_failing_allocations(name, with([&](auto& s, auto arm) {
                                arm();
                                return ln::score_text(s, encode, 0, "twenty letters of text");
                              }));
    check_failing_allocations(name, with([&](auto& s, auto arm) {
                                arm();
                                return ln::score_options(s, encode, item, {});
                              }));
    check_failing_allocations(name, with([&](auto& s, auto arm) {
                                arm();
                                const bool done = ln::score_windows(s, text, windows);
                                return told(done, !done);
                              }));
  };
  check("session_scorer", [&] { return ln::session_scorer(*session); });
  check("evaluator_scorer",
        [&] { return *ln::evaluator_scorer<model>::open(p, {.target = 8, .max_logits = 4}); });

  const std::span<const token> prompts[] = {given, rest};
  const auto on_token = [](std::size_t, token) { return true; };
  check_failing_allocations("generate_greedy", [&] {
    const bool done = ln::generate_greedy(*session, prompts, 2, on_token);
    return told(done, !done);
  });
  check_failing_allocations("generate_greedy one", [&] {
    const index n = ln::generate_greedy(*session, given, 2, [](token) { return true; });
    return told(n == 2, n == 0);
  });
  const std::string digits(40, '1'), solution = "it is\n#### " + digits;
  check_failing_allocations("last_number", [&] {
    const std::string number = ln::last_number(solution);
    return told(number == digits, number.empty());
  });
  check_failing_allocations("parse_gsm8k_answer", [&] {
    const std::string number = ln::parse_gsm8k_answer(solution);
    return told(number == digits, number.empty());
  });
  const std::string titled = digits + " [title] " + digits, clean = ln::clean_hellaswag(titled);
  check_failing_allocations("clean_hellaswag", [&] {
    const std::string got = ln::clean_hellaswag(titled);
    return told(got == clean, got.empty());
  });
  const std::vector<index> classes{1, 2, 2};
  check_failing_allocations("majority_baseline", [&] {
    const auto a = ln::majority_baseline(classes, classes);
    return told(a.right == 2 && a.total == 3, a.total == 0);
  });
}

BOOST_AUTO_TEST_CASE(streams) {
  const std::string text(500, 'a');
  const std::vector<std::string_view> texts{text};
  const ln::byte_source source(texts);
  const ln::seed key{1};
  check_failing_allocations("denoising_stream", [&](auto arm) {
    ln::byte_source copy = source;
    arm();
    return ln::denoising_stream<>::open(std::move(copy), {}, {.batch = 2, .source = 32}, key);
  });
  check_failing_allocations("window_stream", [&](auto arm) {
    ln::byte_source copy = source;
    arm();
    return ln::window_stream<ln::byte_source>::open(std::move(copy), 2, 32, key);
  });
  const std::vector<ln::text_pair> pairs{{"a bird", "sings"}, {"another bird", "does not"}};
  const ln::byte_tokenizer tokens;
  const auto encode = [&](std::string_view t) { return tokens.encode(t); };
  check_failing_allocations("pair_stream", [&] {
    return ln::pair_stream::open(pairs, encode, {.batch = 2, .source = 32, .target = 32}, key);
  });
  const std::vector<double> numbers{1, 2, 3};
  check_failing_allocations("mixture", [&] { return ln::mixture::open(numbers, key); });
  check_failing_allocations("curriculum",
                            [&] { return ln::curriculum::open(numbers, ln::pacing{}, key); });
}

BOOST_AUTO_TEST_CASE(sizes_that_no_memory_holds) {
  const std::string text(500, 'a');
  const std::vector<std::string_view> texts{text};
  const ln::byte_source source(texts);
  const ln::index huge = 1'000'000'000'000'000;
  const auto code = [](const auto& r) { return r ? ln::errc::invalid : r.error().code; };
  const auto none = ln::errc::out_of_memory;
  BOOST_TEST((code(ln::denoising_stream<>::open(source, {}, {.batch = huge, .source = 32},
                                                ln::seed{1})) == none));
  BOOST_TEST(
      (code(ln::window_stream<ln::byte_source>::open(source, huge, 32, ln::seed{1})) == none));
  const std::vector<ln::text_pair> pairs{{"a", "b"}};
  const auto encode = [](std::string_view) { return std::vector<token>{1}; };
  BOOST_TEST((code(ln::pair_stream::open(pairs, encode, {huge, 32, 32}, ln::seed{1})) == none));
}

// Sanitizers skip it: their heap, which gives the aligned blocks, does not fail.
BOOST_AUTO_TEST_CASE(what_computes, *boost::unit_test::label("numbers")) {
  using model = ln::decoder<tiny_decoder_shape>;
  ln::weights<model> w;
  randomize(w);
  const auto p = ln::pack(w);
  const ln::limits l{.batch = 2, .target = 8, .max_logits = 4};
  check_failing_allocations("session", [&] { return ln::session<model>::open(p, l); });
  check_failing_allocations("evaluator", [&] { return ln::evaluator<model>::open(p, l); });
  check_failing_allocations("evaluator_scorer",
                            [&] { return ln::evaluator_scorer<model>::open(p, l); });
  check_failing_allocations("trainer", [&] { return ln::trainer<model>::open(w, l); });
  check_failing_allocations("teachers", [&] {
    return ln::distillation<ln::packed<model>, ln::packed<model>>::open(p, l);
  });
  const auto data = decoder_data<model>(2, 8);
  const auto calibrated = [&] {
    return ln::calibrate(w, [&](index) { return data.view(); }, l, {.batches = 1});
  };
  check_failing_allocations("calibrate", calibrated);
  const auto statistics = calibrated();
  check_failing_allocations(
      "gptq", [&] { return ln::quantize<ln::storage::int4<>>(w, *statistics, ln::gptq{}); });
  check_failing_allocations("sparsegpt",
                            [&] { return ln::prune(w, *statistics, ln::sparsegpt{}); });
  check_failing_allocations(
      "magnitude", [&] { return ln::prune(w, ln::magnitude{.scope = ln::pruning_scope::global}); });
  check_failing_allocations("hqq", [&] { return ln::quantize<ln::storage::q4_1>(w, ln::hqq{}); });
  auto session = ln::session<model>::open(p, l), draft = ln::session<model>::open(p, l);
  check_failing_allocations("beam_search",
                            [&] { return ln::beam_search<model>::open(*session, {.width = 2}); });
  check_failing_allocations(
      "speculative", [&] { return ln::speculative<model, model>::open(*session, *draft, 2); });
  check_failing_allocations("self_speculative",
                            [&] { return ln::self_speculative<model>::open(*session, 1, 2); });
}

BOOST_AUTO_TEST_CASE(packed_files) {
  using model = ln::decoder<tiny_decoder_shape>;
  ln::weights<model> w;
  randomize(w);
  const auto p = ln::pack(w);
  const scratch_folder folder;
  const std::string path = folder.path("w"), none = folder.path("none"), array = folder.path("a.h");
  check_failing_allocations("save_packed", [&] { return ln::save_packed(p, path); });
  LINNET_REQUIRE_OK(ln::map_packed<model>(path));
  check_refusal("map_packed", [&] { return ln::map_packed<model>(none); });
  check_refusal("view_packed", [&] {
    return ln::view_packed<ln::decoder<tiny_decoder_shape, ln::tie::untied>>(p.block());
  });
  check_failing_allocations("write_array", [&] { return ln::write_array(array, "a", p.block()); });
}

#if __has_include(<xxhash.h>)
BOOST_AUTO_TEST_CASE(checkpoints) {
  using model = ln::decoder<tiny_decoder_shape>;
  const scratch_folder folder;
  ln::weights<model> w;
  randomize(w);
  auto train = ln::trainer<model>::open(w, {.target = 8});
  const std::string own(99, 'x');
  const std::vector<ln::section> more{{"own", bytes(own)}};
  const std::string path = folder.path("c");
  check_failing_allocations("save_checkpoint",
                            [&] { return ln::save_checkpoint(path, *train, more); });
  const std::string file = contents(path);
  check_failing_allocations("load_checkpoint",
                            [&] { return ln::load_checkpoint(bytes(file), *train); });
}
#endif

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::failing_allocations_test
