// SPDX-License-Identifier: MIT
// zoo finetune with prefixes and bottlenecks, and zoo distil --match relations and minilm.

#include <algorithm>

#include "workshop.hpp"

namespace test::teachers {

using test::check_refused, test::bits_of;
namespace fs = std::filesystem;

namespace {

/// The arguments of a command that goes on from a folder.
std::vector<std::string> tuning(const std::string& command, const std::string& from,
                                const std::string& text, const std::string& out,
                                const std::vector<std::string>& more) {
  std::vector<std::string> all{command, command == "distil" ? "--teacher-weights" : "--weights",
                               from,    "--text",
                               text,    "--out",
                               out,     "--batch",
                               "2",     "--threads",
                               "1",     "--length",
                               "24"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

nlohmann::json described(const std::string& folder) {
  return nlohmann::json::parse(test::contents(folder + "/zoo.json"));
}

}  // namespace

/// A trained model of these tests.
struct teacher_workshop : test::training_workshop {
  std::string first = folder.path("first");
  double bits = bits_of(test::zoo_prints(train(first, "40", {"--rate", "0.01"})));
};

BOOST_FIXTURE_TEST_SUITE(zoo_teachers, teacher_workshop)

// Adapters that cannot be merged learn another text beside weights that stay as they are.
BOOST_AUTO_TEST_CASE(prefixes_and_bottlenecks_learn) {
  const std::string other = written("other.txt", 1'500, "a wren answers ");
  const auto tuned = [&](const std::string& out, const std::vector<std::string>& more) {
    return bits_of(test::zoo_prints(tuning("finetune", first, other, out, more)));
  };
  for (const std::string kind : {"prefix", "bottleneck"}) BOOST_TEST_CONTEXT(kind) {
      const std::string out = folder.path(kind), begun = folder.path(kind + "-begun");
      const double before = tuned(begun, {"--" + kind, "4", "--steps", "1", "--rate", "1e-7"}),
                   after = tuned(out, {"--" + kind, "4", "--steps", "25", "--rate", "0.03"});
      BOOST_CHECK_MESSAGE(after < before - 0.2, after << " after " << before);
      BOOST_CHECK(test::contents(out + "/model.safetensors") ==
                  test::contents(first + "/model.safetensors"));
      BOOST_CHECK_EQUAL(described(out)[kind], 4);
      const bool in_peft = kind == "prefix";
      BOOST_CHECK_EQUAL(fs::exists(out + "/adapter/adapter_config.json"), in_peft);
      BOOST_CHECK_EQUAL(fs::exists(out + "/adapter/adapter.safetensors"), !in_peft);
      // It runs beside the weights.
      const auto writes = [&](const std::string& folder_of) {
        return test::zoo_prints({"generate", "--weights", folder_of, "--prompt", "a ", "--tokens",
                                 "20", "--temperature", "1", "--seed", "3"});
      };
      BOOST_CHECK(writes(out) != writes(first));
      check_refused({"generate", "--weights", out, "--prompt", "a ", "--storage", "int8"},
                    "has an adapter (" + kind + " 4)");
    }
}

// Relations alone are learned, without the text's tokens and the teacher's logits: the module is
// one for both methods.
BOOST_AUTO_TEST_CASE(relations_of_the_last_layer_are_learned) {
  const std::string model = "decoder:layers=1,d_model=8,heads=2,context=32,d_ff=16";
  const auto taught = [&](const std::string& out, const std::string& steps,
                          const std::vector<std::string>& more) {
    std::vector<std::string> all =
        tuning("distil", first, text, out,
               {"--model", model, "--alpha", "0", "--rate", "0.02", "--steps", steps});
    all.insert(all.end(), more.begin(), more.end());
    test::zoo_prints(all);
    std::vector<double> losses;
    std::ifstream log(out + "/training.jsonl");
    for (std::string line; std::getline(log, line);)
      losses.push_back(nlohmann::json::parse(line)["nats"].get<double>());
    return losses;
  };
  std::string before;
  for (const std::string match : {"relations", "minilm"}) BOOST_TEST_CONTEXT(match) {
      const std::string out = folder.path(match);
      const auto losses = taught(out, "20", {"--match", match});
      BOOST_REQUIRE_EQUAL(losses.size(), 20u);
      BOOST_CHECK_MESSAGE(losses.back() < 0.8 * losses.front(), losses.back()
                                                                    << " after " << losses.front());
      const auto told = described(out);
      BOOST_CHECK_EQUAL(told["match"], match);
      BOOST_CHECK_EQUAL(told["result"]["steps"], 20);
      const std::string weights = test::contents(out + "/model.safetensors");
      BOOST_CHECK(weights != before);
      before = weights;
    }
  // The weight of what is matched is that of the loss.
  const auto once = taught(folder.path("once"), "1", {"--match", "relations"}),
             twice =
                 taught(folder.path("twice"), "1", {"--match", "relations", "--match-weight", "2"});
  BOOST_REQUIRE(once.size() == 1 && twice.size() == 1);
  BOOST_CHECK_CLOSE(twice[0], 2 * once[0], 1e-3);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::teachers
