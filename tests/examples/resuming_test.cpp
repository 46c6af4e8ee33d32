// SPDX-License-Identifier: MIT
// What examples keep to go on from, without their programs: the settings of a training and the
// scores of a test. Others are refused in one sentence.

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "stlm_10m/verdicts.hpp"
#include "support/texts.hpp"
#include "support/training.hpp"

namespace test::resuming_test {

namespace {

namespace ln = linnet;

/// A fresh folder, removed at the end. support/data.hpp has one, too, with the whole library.
class scratch_folder {
 public:
  scratch_folder() { BOOST_REQUIRE(mkdtemp(path_.data()) != nullptr); }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_ = (std::filesystem::temp_directory_path() / "linnet-test-XXXXXX").string();
};

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}
/// The message of what `f` throws, or "".
template <class F>
std::string refused(F&& f) {
  try {
    f();
  } catch (const support::failure& e) {
    return e.what();
  }
  return "";
}

/// Learns nothing; its checkpoint is in memory.
struct counter {
  std::vector<std::byte>& kept;
  ln::index taken = 0;

  ln::index steps() const { return taken; }
  double norm() const { return 1; }
  void save_checkpoint(const std::string&, std::span<const std::byte> own) {
    kept.assign(own.begin(), own.end());
    const auto count = std::as_bytes(std::span(&taken, 1));
    kept.insert(kept.end(), count.begin(), count.end());
  }
  bool load_checkpoint(const std::string&, std::span<std::byte> own) {
    if (kept.empty()) return false;
    std::memcpy(own.data(), kept.data(), own.size());
    std::memcpy(&taken, kept.data() + own.size(), sizeof taken);
    return true;
  }
};
constexpr support::run_record usual{
    .steps = 3, .batch = 2, .length = 8, .rate = 2e-3, .data = 0x1234, .merges = 7};

/// Trains until `deadline`; whether it came to its end.
bool train(std::vector<std::byte>& kept, support::run_record r, double deadline) {
  counter model{kept};
  return support::take_steps(
      "base", model, r, deadline, [&](ln::index) { return 1.0 / double(++model.taken); },
      [](ln::index, support::run_record&) {}, {.logs = false});
}

/// A test of two questions, and weights that are a file of any bytes.
struct asked {
  scratch_folder folder;
  stlm_10m::options o;

  asked() {
    o.data = folder.path("tests");
    o.weights = folder.path("w.safetensors");
    o.merges = folder.path("vocab.bpe");
    std::string items;
    for (const char* const what : {"Who sings?", "Who barks?"})
      items += std::string(items.empty() ? "[" : ",") +
               R"({"instruction": "Please choose the correct answer to the question: )" + what +
               R"(\n\nAnswer1: birds Answer2: dogs\n\nAnswer format: answer1/answer2", )" +
               R"("answer": "answer1"})";
    write(o.data + "/arc_easy/test.json", items + "]");
    write(o.weights, "weights");
    write(o.merges, "merges");
  }
  std::string path() const { return o.weights + ".arc_easy.txt"; }
  stlm_10m::verdicts open() const { return {"arc_easy", o}; }
};
ln::item_score score(double first, double second) {
  return {
      .options = {{.whole = first, .continuation = -1.5, .bytes = 5, .tokens = 2, .best = true},
                  {.whole = second, .continuation = -2, .bytes = 4, .tokens = 1, .best = false}}};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(resuming)

BOOST_AUTO_TEST_CASE(trainings_of_other_settings) {
  std::vector<std::byte> kept;
  BOOST_TEST(!train(kept, usual, 0));  // one step
  const auto begun_with = [&](auto change) {
    support::run_record r = usual;
    change(r);
    return refused([&] { train(kept, r, HUGE_VAL); });
  };
  const std::string begin = "base.ckpt: its training was begun with ",
                    end = "; give the options it was begun with, or another --out";
  BOOST_TEST(begun_with([](auto& r) { r.rate = 1e-3; }) == begin + "rate 0.002, not 0.001" + end);
  BOOST_TEST(begun_with([](auto& r) { r.steps = 4; }) == begin + "steps 3, not 4" + end);
  BOOST_TEST(begun_with([](auto& r) { r.batch = 1; }) == begin + "batch 2, not 1" + end);
  BOOST_TEST(begun_with([](auto& r) { r.length = 9; }) == begin + "length 8, not 9" + end);
  BOOST_TEST(begun_with([](auto& r) { r.data = 1; }) ==
             begin + "data of mark 0000000000001234, not 0000000000000001" + end);
  BOOST_TEST(begun_with([](auto& r) { r.merges = 8; }).starts_with(begin + "merges of mark "));
  BOOST_TEST(begun_with([](auto& r) { r.seconds = 5; }) == "");  // no setting
  BOOST_TEST(train(kept, usual, HUGE_VAL));
  support::run_record wrong = usual;
  wrong.points = -1;
  counter{kept}.save_checkpoint("", std::as_bytes(std::span(&wrong, 1)));
  BOOST_TEST(refused([&] { train(kept, usual, HUGE_VAL); }) ==
             "base.ckpt: not a checkpoint of this study");
}

// Trainers in f16 leave steps out until the scale of their loss is small enough.
BOOST_AUTO_TEST_CASE(a_step_that_is_left_out_is_taken_again) {
  std::vector<std::byte> kept;
  const auto trained = [&](ln::index left_out, ln::index& looked) {
    counter model{kept};
    support::run_record r = usual;
    return support::take_steps(
        "base", model, r, HUGE_VAL,
        [&](ln::index) { return left_out-- > 0 ? 2.0 : 1.0 / double(++model.taken); },
        [&](ln::index, support::run_record&) { ++looked; }, {.logs = false});
  };
  ln::index looked = 0;
  BOOST_TEST(trained(5, looked));
  BOOST_TEST(looked == 4);  // before each of three steps and after the last
  BOOST_TEST(refused([&] { trained(1000, looked); }) ==
             "base: the loss is not finite in step 1; begin again with a lower learning rate");
}

BOOST_AUTO_TEST_CASE(texts_have_marks) {
  const scratch_folder folder;
  const auto mark = [&](const std::string& one, const std::string& two) {
    write(folder.path("1"), one);
    write(folder.path("2"), two);
    return support::read_texts({folder.path("1"), folder.path("2")}, {"1", "2"}).mark();
  };
  const std::uint64_t usual_mark = mark("a bird sings", "a dog barks");
  BOOST_TEST(mark("a bird sings", "a dog barks") == usual_mark);
  BOOST_TEST(mark("a bird sings", "a dog barkt") != usual_mark);
  BOOST_TEST(mark("a dog barks", "a bird sings") != usual_mark);
}

// Any score comes back, so an interrupted run scores nothing twice.
BOOST_AUTO_TEST_CASE(scores_go_on) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  const asked test;
  {
    auto first = test.open();
    BOOST_REQUIRE(first.next() != nullptr);
    first.add(score(std::nan(""), -infinite));
    BOOST_TEST(first.next()->context == "Who barks?");
  }
  {
    auto second = test.open();
    BOOST_REQUIRE(second.next() != nullptr);
    BOOST_TEST(second.next()->context == "Who barks?");
    second.add(score(infinite, -3.25));
    BOOST_TEST(second.next() == nullptr);
  }
  const std::string kept = support::file_text(test.path());
  BOOST_TEST(kept.find("\n0 nan -1.5 5 2 1 -inf -2 4 1 0\n") != kept.npos, kept);
  BOOST_TEST(test.open().next() == nullptr);
  BOOST_TEST(support::file_text(test.path()) == kept);
  // A line that is cut, or has more on it, is scored again.
  for (const std::string& last :
       {kept.substr(0, kept.size() - 1), kept.substr(0, kept.size() - 5),
        kept.substr(0, kept.size() - 1) + " 7\n", kept.substr(0, kept.size() - 1) + "x\n"}) {
    write(test.path(), last);
    const auto again = test.open();
    BOOST_REQUIRE(again.next() != nullptr);
    BOOST_TEST(again.next()->context == "Who barks?");
  }
}

BOOST_AUTO_TEST_CASE(scores_of_something_else) {
  const asked test;
  test.open().add(score(-1, -2));
  const auto why = [&] { return refused([&] { test.open(); }); };
  const auto other = [&](const std::string& path, const std::string& name) {
    const std::string before = support::file_text(path);
    write(path, "trained anew");
    BOOST_TEST(why().starts_with(test.path() + ": its scores are of " + name + " of mark "), why());
    write(path, before);
    BOOST_TEST(why() == "");
  };
  other(test.o.weights, "weights");
  other(test.o.merges, "merges");
  const std::string items = test.o.data + "/arc_easy/test.json", before = support::file_text(items);
  std::string changed = before;
  changed.replace(changed.find("birds"), 5, "cocks");
  write(items, changed);
  BOOST_TEST(why().starts_with(test.path() + ": its scores are of items of mark "), why());
  write(items, before);
  // A file of an earlier version begins with a score.
  write(test.path(), "0 -1 -1 5 2 1 -2 -2 4 1 0\n");
  BOOST_TEST(why() == test.path() + ": does not say what its scores are of; remove it");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::resuming_test
