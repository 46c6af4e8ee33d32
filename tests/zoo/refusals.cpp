// SPDX-License-Identifier: MIT
// Wrong input: one clear line on standard error, status 2.

#include <fstream>

#include "program.hpp"

namespace test::refusals {

using test::check_refused;

BOOST_AUTO_TEST_SUITE(zoo_refusals)

BOOST_AUTO_TEST_CASE(commands_and_options) {
  check_refused({}, "a command is missing");
  check_refused({"frobnicate"}, "frobnicate");
  check_refused({"--frobnicate"}, "--frobnicate");
  check_refused({"list", "more"}, "more");
  check_refused({"count"}, "preset");
  check_refused({"count", "t5-min"}, "did you mean t5-mini?");
  check_refused({"count", "x\ny"}, "unknown preset");
  check_refused({"count", "t5-mini", "--ffn", "4w"}, "known: standard, skip, skip-encoder");
  check_refused({"count", "gpt2-small", "--ffn", "skip-encoder"}, "decoder-only");
  check_refused({"count", "t5-mini", "--expansion", "2"}, "--expansion");
  check_refused({"count", "t5-mini", "--ffn", "3w", "--expansion", "3"}, "4, 2, 1.5, 1.2");
  check_refused({"count", "t5-mini", "--ffn", "3w", "--expansion", "nan"}, "--expansion");
  check_refused({"count", "t5-mini", "--source", "0"}, "--source");
  check_refused({"count", "t5-mini", "--target", "12.5"}, "--target");
  check_refused({"generate"}, "--weights");
  check_refused({"logits", "--model", "t5-mini"}, "--weights");
  check_refused({"fetch"}, "model");
  check_refused({"chat", "--context", "63"}, "--context");
  check_refused({"chat", "--temperature", "nan"}, "--temperature");
  check_refused({"chat", "--model", "t5-mini"}, "encoder-decoder");
  check_refused({"embed", "--model", "bert"}, "minilm");
  check_refused({"embed", "--weights", LINNET_TEST_DIR, "--text", "a"}, "tokenizer.json");
}

BOOST_AUTO_TEST_CASE(files_and_values) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text"), tiny = folder.path("tiny"),
                    other = folder.path("other.safetensors");
  std::ofstream(text) << std::string(30'000, 'x');
  std::ofstream(tiny) << "too short";
  std::ofstream(other) << std::string(500, '\xff');

  check_refused({"train", folder.path("absent")}, "does not exist");
  check_refused({"train", folder.path()}, "directory");
  check_refused({"train", tiny}, "at least 20,000 bytes");
  check_refused({"train", text, "--model", "t5-mini"}, "byte-decoder, byte-t5");
  check_refused({"train", text, "--ffn", "skip-encoder"}, "unknown feed-forward");
  check_refused({"train", text, "--steps", "0"}, "--steps");
  check_refused({"train", text, "--steps", "5", "--minutes", "1"}, "--minutes");
  check_refused({"train", text, "--minutes", "inf"}, "--minutes");
  check_refused({"train", text, "--threads", "0"}, "--threads");
  check_refused({"train", text, "--batch", "-3"}, "--batch");
  check_refused({"train", text, "--rate", "0"}, "--rate");
  check_refused({"train", text, "--out", folder.path("none/here")}, "no directory");
  check_refused({"train", text, "--out", folder.path()}, "directory");
  check_refused({"quickstart", text, "--report", folder.path("none/here.html")}, "no directory");
  check_refused({"sweep", tiny}, "at least 20,000 bytes");

  check_refused({"generate", "--weights", folder.path("absent")}, "does not exist");
  check_refused({"generate", "--weights", folder.path("absent")}, "(see zoo generate --help)");
  check_refused({"train", text, "--stepz", "5"}, "(see zoo train --help)");
  check_refused({"--nothing"}, "(see zoo --help)");
  check_refused({"generate", "--weights", text}, text);
  check_refused({"generate", "--weights", other}, other);
  check_refused({"generate", "--model", "t5-mini", "--weights", text}, "SentencePiece");
  check_refused({"generate", "--model", "stories260k", "--weights", text}, "--tokenizer");
  check_refused({"generate", "--model", "stories260k", "--weights", text, "--tokenizer", tiny},
                tiny);
  check_refused({"generate", "--model", "stories", "--weights", text, "--tokenizer", tiny},
                "unknown model");
  check_refused({"generate", "--model", "minilm", "--weights", text},
                "--model minilm: is an encoder");
  check_refused({"generate", "--weights", text, "--temperature", "-0.1"}, "--temperature");
  check_refused({"generate", "--weights", text, "--temperature", "nan"}, "--temperature");
  check_refused({"generate", "--weights", text, "--top-p", "0"}, "--top-p");
  check_refused({"generate", "--weights", text, "--top-k", "-1"}, "--top-k");
  check_refused({"generate", "--weights", text, "--tokens", "-1"}, "--tokens");
  check_refused({"generate", "--weights", text, "--seed", "x"}, "--seed");
  for (const char* const seed : {"-1", " -1", "18446744073709551616", "99999999999999999999999",
                                 "1.5", "0x", "1e3", "", " "})
    check_refused({"generate", "--weights", text, "--seed", seed}, "--seed");
  check_refused({"train", text, "--steps", "99999999999999999999"}, "--steps");
  check_refused({"generate", "--weights", text, "--beams", "0"}, "--beams");
  check_refused({"generate", "--weights", text, "--beams", "2", "--top-k", "3"}, "--beams");
  check_refused({"generate", "--weights", text, "--alpha", "1"}, "--beams");
  check_refused({"generate", "--weights", text, "--min-p", "1.5"}, "--min-p");
  check_refused({"generate", "--weights", text, "--repetition-penalty", "0"},
                "--repetition-penalty");

  check_refused({"logits", "--model", "stories260k", "--weights", text}, "--tokens");
  check_refused({"logits", "--model", "stories260k", "--weights", text, "--tokens", "1,512"},
                "from 0 to 511");
  check_refused({"logits", "--model", "stories260k", "--weights", text, "--tokens", "1,,2"},
                "--tokens");
  check_refused({"logits", "--model", "stories260k", "--weights", text, "--tokens", "1"}, text);
  check_refused({"logits", "--model", "stories260k", "--weights", folder.path(), "--tokens", "1"},
                "config.json");
  check_refused({"logits", "--model", "t5-tiny", "--weights", text, "--tokens", "1"}, "--source");
  check_refused(
      {"logits", "--model", "t5-tiny", "--weights", other, "--source", "1", "--target", "0"},
      other);
  check_refused({"logits", "--model", "t5-v1.1-small", "--weights", text, "--tokens", "1"},
                "unknown model");
}

BOOST_AUTO_TEST_CASE(files_that_are_read_are_not_written) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text"), link = folder.path("link"),
                    second = folder.path("second"), saved = folder.path("m.items.jsonl"),
                    shard = folder.path("hf/model.safetensors"),
                    blimp = folder.path("data/blimp/a.jsonl");
  for (const char* const made : {"hf", "data", "data/blimp"})
    std::filesystem::create_directory(folder.path(made));
  for (const std::string& path : {text, saved, shard, blimp, folder.path("m.ckpt.previous")})
    std::ofstream(path) << std::string(30'000, 'x');
  std::filesystem::create_symlink("text", link);
  std::filesystem::create_hard_link(text, second);
  const std::string why = "would be overwritten";
  for (const std::string& out : {text, link, second, folder.path("./text")}) {
    check_refused({"train", text, "--steps", "1", "--out", out}, why);
    check_refused({"train", link, "--steps", "1", "--out", out}, why);
    check_refused({"sweep", text, "--steps", "1", "--report", out}, why);
    check_refused({"quickstart", text, "--steps", "1", "--report", out}, why);
    check_refused({"bench", "--attention", "fnet", "--train", text, "--html", out}, why);
    check_refused({"eval", "--weights", text, "--text", saved, "--out", out}, why);
    check_refused({"eval", "--weights", saved, "--text", text, "--out", out}, why);
    check_refused({"eval", "--weights", saved, "--model", "gpt2-small", "--tokenizer", text,
                   "--text", saved, "--out", out},
                  why);
  }
  check_refused(
      {"train", folder.path("m.ckpt.previous"), "--steps", "1", "--out", folder.path("m")}, why);
  check_refused({"eval", "--weights", text, "--text", saved, "--out", folder.path("m")}, why);
  check_refused({"eval", "--weights", folder.path("hf"), "--text", text, "--out", shard}, why);
  check_refused({"eval", "--weights", text, "--data", folder.path("data"), "--out", blimp}, why);
  for (const std::string& path : {text, saved, shard, blimp})
    BOOST_CHECK_EQUAL(test::contents(path), std::string(30'000, 'x'));
  // Results beside what is read may be written again.
  const std::string beside = folder.path("hf/results.json");
  std::ofstream(beside) << "{}";
  check_refused({"eval", "--weights", folder.path("hf"), "--text", text, "--out", beside},
                "without --model");
}

BOOST_AUTO_TEST_CASE(weights_that_do_not_say_their_model) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text"), file = folder.path("other.safetensors");
  std::ofstream(text) << std::string(30'000, 'x');
  std::ofstream(file) << std::string("\x02\0\0\0\0\0\0\0{}", 10);
  for (const std::string& path : {text, file, folder.path()}) {
    check_refused({"generate", "--weights", path}, "without --model");
    check_refused({"eval", "--weights", path, "--text", text}, "without --model");
  }
}

// What --match cannot do is said before anything is compiled.
BOOST_AUTO_TEST_CASE(teachers_that_do_not_match) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text"), teacher = folder.path("teacher");
  std::ofstream(text) << std::string(30'000, 'x');
  std::filesystem::create_directory(teacher);
  std::ofstream(teacher + "/zoo.json")
      << R"({"format":"linnet zoo","model":"t5:encoder_layers=2,decoder_layers=1,d_model=16,heads=2,)"
         R"(vocabulary=384","ffn":"standard","optimizer":"adamw","compute":"f32","tokenizer":"byt5"})";
  check_refused({"generate", "--weights", teacher}, "holds no model yet; zoo train --resume");
  std::ofstream(teacher + "/model.safetensors") << "weights";
  const auto refused = [&](const std::string& layers, const std::vector<std::string>& more,
                           const std::string& words) {
    std::vector<std::string> all{"distil",
                                 "--teacher-weights",
                                 teacher,
                                 "--text",
                                 text,
                                 "--model",
                                 "t5:d_model=8,heads=2,layers=" + layers,
                                 "--out"};
    all.push_back(folder.path("student"));
    all.insert(all.end(), more.begin(), more.end());
    check_refused(all, words);
  };
  refused("1", {"--match", "ted"}, "--match ted: is of decoders");
  refused("2", {"--match", "hidden"}, "2 decoder layers, more than the 1 of its teacher");
  refused("1", {"--match", "cosine", "--divergence", "jsd"},
          "--divergence jsd is of learning from logits alone");
}

BOOST_AUTO_TEST_CASE(no_message_reaches_the_terminal_raw) {
  const test::scratch_folder folder;
  // Title, colour, C1, a turn of the direction of writing.
  const std::string evil =
      "\x1b]0;OWNED\x07\x1b[31mred\xc2\x9b"
      "2J\xe2\x80\xae";
  const auto harmless = [&](const std::vector<std::string>& arguments) {
    const test::outcome o = test::zoo(arguments);
    BOOST_CHECK_EQUAL(o.status, 2);
    for (const char* const bad : {"\x1b", "\x07", "\xc2\x9b", "\xe2\x80\xae"})
      BOOST_CHECK_MESSAGE(o.err.find(bad) == o.err.npos && o.out.find(bad) == o.out.npos, o.err);
    BOOST_CHECK_MESSAGE(o.err.find("red") != o.err.npos, o.err);
  };
  std::string json =
      R"({"__metadata__":{"zoo.model":"\u001b]0;OWNED\u0007\u001b[31mred\u009b2J\u202e","zoo.ffn":"standard"}})";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::ofstream(folder.path("note"))
      << static_cast<char>(json.size()) << std::string(7, '\0') << json;
  harmless({"generate", "--weights", folder.path("note")});
  harmless({"generate", "--weights", folder.path("note"), "--model", "byte-decoder"});
  harmless({"count", evil});
  harmless({evil});
  harmless({"count", "t5-mini", "--" + evil});
  harmless(
      {"logits", "--model", "stories260k", "--weights", folder.path("note"), "--tokens", evil});
  const std::string name = folder.path(evil);
  std::ofstream(name) << "short";
  harmless({"train", name});
  harmless({"generate", "--weights", name});
}

BOOST_AUTO_TEST_CASE(help_is_not_an_error) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"--help"},
                                                    {"--version"},
                                                    {"train", "--help"},
                                                    {"quickstart", "--help"}}) {
    const test::outcome o = test::zoo(arguments);
    BOOST_CHECK_EQUAL(o.status, 0);
    BOOST_CHECK(!o.out.empty());
    BOOST_CHECK(o.err.empty());
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::refusals
