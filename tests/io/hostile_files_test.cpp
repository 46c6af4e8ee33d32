// SPDX-License-Identifier: MIT
// Files made to be slow or large to read: heap within the budget of docs/files.md, and time that
// grows as the file does.

#include <ctime>

#include "models.hpp"
#include "support/allocations.hpp"

namespace test::hostile_files_test {

namespace {

/// Files where the sanitizer watches, which looks for other faults.
constexpr std::size_t times_smaller = address_sanitizer ? 8 : 1;

std::string repeated(std::string_view text, std::size_t n, std::string_view between = "") {
  std::string all;
  for (std::size_t i = 0; i < n; ++i) (all += i > 0 ? between : "") += text;
  return all;
}
template <class F>
std::string listed(std::size_t n, F&& f) {
  std::string all;
  for (std::size_t i = 0; i < n; ++i) (all += i > 0 ? "," : "") += f(std::to_string(i));
  return all;
}
/// A tokenizer.json of byte pieces and more; ids from 256 on are free.
std::string tokenizer_json(const std::string& pieces, const std::string& merges,
                           const std::string& added) {
  std::string vocabulary;
  for (unsigned b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    (vocabulary += b > 0 ? "," : "") +=
        ln::detail::json_quoted(ln::letters_of({&byte, 1})) + ":" + std::to_string(b);
  }
  return "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{"
         "\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{" +
         vocabulary + pieces + "},\"merges\":[" + merges + "]},\"added_tokens\":[" + added + "]}";
}

/// Reads a file and checks the budget, with a constant far below the published one: 512 kB.
template <class F>
void check_budget(const char* name, const std::string& file, F&& read) {
  const std::size_t peak = peak_of([&] { (void)read(file); });
  BOOST_TEST(peak > 0u, name);
  BOOST_TEST(peak <= 2 * file.size() + 524288,
             name << ": " << peak << " bytes for a file of " << file.size());
}
/// Seconds of this process's processor time; a hundredth of what steps that grow with the square
/// would take. Not the clock's: others may use the machine.
template <class F>
void check_seconds(const char* name, double most, F&& f) {
  const std::clock_t before = std::clock();
  f();
  const double took = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  BOOST_TEST(took < most, name << " took " << took << " s");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(hostile_files)

BOOST_AUTO_TEST_CASE(heap_of_tokenizers) {
  const auto json = [](const std::string& f) { return ln::parse_hf_tokenizer(bytes(f)); };
  const auto only = [](const char* list, const std::string& items, const char* end) {
    return "{\"model\":{\"type\":\"BPE\",\"" + std::string(list) + items + end;
  };
  constexpr std::size_t n = 300000 / times_smaller;
  check_budget("merges", only("merges\":[", repeated("\"a b\"", n, ","), "]}}"), json);
  check_budget("empty merges", only("merges\":[", repeated("\" \"", n, ","), "]}}"), json);
  check_budget("pairs", only("merges\":[", repeated("[\"\",\"\"]", n, ","), "]}}"), json);
  check_budget("added tokens",
               "{\"added_tokens\":[" + repeated("{\"id\":0,\"content\":\"a\"}", n / 4, ",") + "]}",
               json);
  // All good; a piece of its own for each id.
  const auto letters = [](std::size_t i) {
    std::string text;
    for (int k = 0; k < 4; ++k, i /= 26) text += static_cast<char>('a' + i % 26);
    return text;
  };
  std::string pieces, added;
  for (std::size_t i = 0; i < n / 10; ++i) {
    pieces += ",\"" + letters(i) + "\":" + std::to_string(256 + i);
    added += std::string(i > 0 ? "," : "") + "{\"id\":" + std::to_string(256 + i) +
             ",\"content\":\"<" + letters(i) + ">\"}";
  }
  LINNET_REQUIRE_OK(json(tokenizer_json(pieces, "", "")));
  check_budget("vocabulary", tokenizer_json(pieces, "", ""), json);
}

BOOST_AUTO_TEST_CASE(heap_of_tables) {
  const auto tsv = [](bool header) {
    return [header](const std::string& f) {
      return ln::table::parse(f, ln::table_format::tsv(header));
    };
  };
  const auto csv = [](const std::string& f) {
    return ln::table::parse(f, ln::table_format::csv(false));
  };
  constexpr std::size_t n = 1000000 / times_smaller;
  check_budget("tabs", repeated("\t", n), tsv(false));
  check_budget("tabs as a header", repeated("\t", n), tsv(true));
  check_budget("newlines", repeated("\n", n), tsv(false));
  check_budget("rows of two", repeated("\t\n", n / 2), tsv(true));
  check_budget("commas", repeated(",", n), csv);
  check_budget("quotes", repeated("\"\",\n", n / 4), csv);
  check_budget("quoted newlines", repeated("\"\n\"\n", n / 4), csv);
  check_budget("one long field", "\"" + repeated("\"\"", n / 2) + "\"", csv);
  check_budget("JSON lines", repeated("{\"a\":1}\n", n / 8),
               [](const std::string& f) { return ln::parse_json_lines(f, {"a"}); });
  check_budget("JSON array", "[" + repeated("{\"a\":1}", n / 8, ",") + "]",
               [](const std::string& f) { return ln::parse_json_array(f, {"a"}); });
}

BOOST_AUTO_TEST_CASE(heap_of_items) {
  const auto check = [](const char* name, std::size_t each, std::size_t n, const std::string& file,
                        auto&& read) {
    const std::size_t peak = peak_of([&] { LINNET_REQUIRE_OK(read(file, "f")); });
    BOOST_TEST(peak > n * each / 16, name);  // so much is theirs
    BOOST_TEST(peak <= 3 * file.size() + each * n + 65536,
               name << ": " << peak << " bytes for " << n << " items of " << file.size());
  };
  constexpr std::size_t n = 5000;
  check("hellaswag", 1024, n, repeated("a\n0\nb\nb\nb\nb\n", n), ln::read_hellaswag);
  check("mmlu", 1024, n,
        "question,choice0,choice1,choice2,choice3,answer\n" + repeated("a,b,b,b,b,0\n", n),
        [](const std::string& f, const std::string& where) { return ln::read_mmlu(f, "", where); });
  check("blimp", 1024, n / 5,
        repeated("{\"sentence_good\":\"a\",\"sentence_bad\":\"b\",\"linguistics_term\":\"c\"}\n",
                 n / 5),
        ln::read_blimp);
  check("sst2", 512, n, "sentence\tlabel\n" + repeated("a\t0\n", n), ln::glue::read_sst2);
}

BOOST_AUTO_TEST_CASE(heap_of_models) {
  // These have bounds of their own: a header of 512 KiB, a config of 128 KiB.
  const auto check = [](const char* name, const std::string& file, auto&& read) {
    const std::size_t peak = peak_of([&] { (void)read(file); });
    BOOST_TEST(peak > 0u, name);
    BOOST_TEST(peak <= 16u << 20, name << ": " << peak << " bytes");
  };
  const auto tensors = [](const std::string& f) { return ln::parse_safetensors(bytes(f)); };
  check("tensors",
        safetensors_file(
            "{" +
            listed(9500,
                   [](const std::string& i) {
                     return "\"" + i + "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
                   }) +
            "}"),
        tensors);
  check("metadata",
        safetensors_file("{\"__metadata__\":{" +
                         listed(45000, [](const std::string& i) { return "\"" + i + "\":\"\""; }) +
                         "}}"),
        tensors);
  check("config.json",
        "{" + listed(12000, [](const std::string& i) { return "\"" + i + "\":1"; }) + "}",
        [](const std::string& f) { return ln::parse_hf_config(bytes(f)); });
}

// An index of 4 MiB, of the shortest entries and of files of their own.
BOOST_AUTO_TEST_CASE(heap_of_shards) {
  constexpr std::size_t most = (4u << 20) / times_smaller;
  const scratch_folder folder;
  const std::string path = folder.path("model.safetensors.index.json");
  for (const bool own : {false, true}) {
    const std::string file =
        "{\"weight_map\":{" +
        listed((own ? 200000 : 330000) / times_smaller,
               [&](const std::string& i) { return "\"" + i + "\":\"" + (own ? i : "a") + "\""; }) +
        "}}";
    BOOST_REQUIRE((file.size() > most / 8 * 5 && file.size() < most));
    LINNET_REQUIRE_OK(ln::write_file(path, bytes(file)));
    std::string got;
    const std::size_t peak = peak_of([&] { got = message(ln::read_safetensors_shards(path)); });
    BOOST_TEST(got.ends_with("expected a readable file, got No such file or directory"), got);
    BOOST_TEST(peak <= file.size() + 4 * most, peak << " bytes");
  }
}

BOOST_AUTO_TEST_CASE(tables_say_what_they_hold) {
  // Rows of many fields, and fields of many bytes, each in its place.
  std::string text;
  for (int row = 0; row < 50; ++row)
    for (int column = 0; column < 100; ++column)
      text += std::to_string(row) + "." +
              std::string(static_cast<std::size_t>(row * column % 300), 'x') +
              (column < 99 ? "\t" : "\n");
  const auto t = ln::table::parse(text, ln::table_format::tsv(false));
  LINNET_REQUIRE_OK(t);
  for (index row = 0; row < 50; ++row) {
    BOOST_TEST(t->line(row) == row + 1);
    for (index column = 0; column < 100; ++column)
      BOOST_TEST(t->at(row, column) ==
                 std::to_string(row) + "." + std::string(at(row * column % 300), 'x'));
  }
  const auto none = ln::table::parse("", ln::table_format::tsv());
  BOOST_TEST(none->rows() == 0);
  BOOST_TEST(message(none->column("a")).ends_with("got no header"));
}

BOOST_AUTO_TEST_CASE(time_of_tasks) {
  constexpr std::size_t n = 2000000 / times_smaller;
  const auto hellaswag = [](const std::string& context) {
    BOOST_TEST(ln::read_hellaswag("a: " + context + "\n0\nx\nx\nx\nx\n", "f").value().size() == 1u);
  };
  check_seconds("brackets", 3, [&] { hellaswag("b" + repeated("[", n)); });
  check_seconds("pairs of brackets", 3, [&] { hellaswag("b" + repeated("[]", n / 2)); });
  check_seconds("blanks", 3, [&] { hellaswag("b" + repeated(" ", n) + "c"); });
  check_seconds("titles", 3, [&] { hellaswag("b" + repeated(" [title]", n / 8)); });
  std::vector<index> classes(n / 8);
  std::iota(classes.begin(), classes.end(), index{0});
  check_seconds("classes", 2,
                [&] { BOOST_TEST(ln::majority_baseline(classes, classes).right == 1); });
}

BOOST_AUTO_TEST_CASE(time_of_tokenizers) {
  // Pieces for one slot of a hash without a key (see text_sets/hashes_have_a_key); any would do
  // that are many.
  std::string same, nested;
  std::vector<std::string> texts;
  for (int i = 0; i < 30000; ++i)
    same += std::string(i > 0 ? "," : "") + "{\"id\":" + std::to_string(256 + i) +
            ",\"content\":\"a" + std::to_string(1000000 + i) + "\"}";
  for (int i = 0; i < 1000; ++i)
    nested += std::string(i > 0 ? "," : "") + "{\"id\":" + std::to_string(256 + i) +
              ",\"content\":\"" + std::string(static_cast<std::size_t>(i + 1), 'a') + "b\"}";
  std::optional<ln::tokenizer> t;
  check_seconds("many added tokens", 5,
                [&] { t = ln::parse_hf_tokenizer(bytes(tokenizer_json("", "", same))).value(); });
  check_seconds("matching them", 3,
                [&] { BOOST_TEST(!t->encode(std::string(200000, 'a'), true).empty()); });
  check_seconds("finding them", 3, [&] {
    for (token id = 256; id < 30256; ++id) BOOST_TEST_REQUIRE(t->find_added(t->piece(id)) == id);
  });
  check_seconds("nested added tokens", 5,
                [&] { t = ln::parse_hf_tokenizer(bytes(tokenizer_json("", "", nested))).value(); });
  check_seconds("matching those", 3,
                [&] { BOOST_TEST(!t->encode(std::string(1000000, 'a'), true).empty()); });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::hostile_files_test
