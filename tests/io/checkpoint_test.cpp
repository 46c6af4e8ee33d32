// SPDX-License-Identifier: MIT
// Checkpoints: a run that is resumed at any moment gives the bits of one that never stopped; damage
// of any kind is seen; whatever happens while one is written, the old or the new can be loaded.

#include "support/child.hpp"
#include "support/data.hpp"
#include "support/models.hpp"
#include "system_calls.hpp"

#if __has_include(<xxhash.h>)

#include <sys/resource.h>
#include <linnet/checkpoint.hpp>

#include <csignal>

namespace test::checkpoint_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
using trainer = ln::trainer<model>;
constexpr ln::decoder_shape wide_shape{.d_model = 128,
                                       .d_ff = 6,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .layers = 1,
                                       .vocabulary = 129,
                                       .context = 8};
using learned = ln::trainer<
    model, ln::adamw, float,
    ln::compute::fake_quantized<ln::storage::int4<8>, ln::compute::f32, ln::steps::learned>>;
using wide = ln::decoder<wide_shape, ln::tie::tied>;

/// A trainer with its weights and its data.
template <class Trainer>
struct run {
  using M = typename Trainer::model;
  decoder_tokens data = data_for<M>(3, 0, 5);
  ln::weights<M, typename Trainer::scalar> w;
  std::optional<Trainer> train{};

  explicit run(std::uint64_t seed = 1, ln::limits limits = {}, ln::training_options how = {}) {
    randomize(w, seed);
    how.dropout = 0.1;
    how.seed = 5;
    limits.batch = 3;
    limits.target = 5;
    train.emplace(std::move(Trainer::open(w, limits, {}, how)).value());
  }
  /// Call number i of a run that mixes whole steps and accumulated ones; its loss or norm.
  double call(int i) {
    if (i % 5 == 3) return train->update(), train->gradient_norm();
    if (i % 5 == 1) return train->accumulate(data.part(0, 1)).nats;
    if (i % 5 == 2) return train->accumulate(data.part(1, 2)).nats;
    return train->step(data.view());
  }
  /// Every bit of the trainer.
  std::string state() {
    const ln::training_progress at = train->progress();
    std::string all(reinterpret_cast<const char*>(&at), sizeof at);
    train->visit_state([&](std::string_view, std::span<std::byte> block) {
      all.append(reinterpret_cast<const char*>(block.data()), block.size());
    });
    return all;
  }
};

/// Stops after each of the calls, and goes on in a fresh trainer with as many threads. Of pruned
/// weights, whose zeros the trainers keep, the fresh one learns from the file.
template <class Trainer>
void check_resuming(int calls, int threads, bool pruned = false) {
  const scratch_folder folder;
  const ln::training_options how{.keep_zeros = pruned};
  run<Trainer> whole(1, {}, how);
  const auto zeros = [](auto& w, bool plant) {
    index count = 0;
    w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      for (index i = 0; i < info.size() && info.kind == ln::role::matrix; i += 3) {
        if (plant) values_of(leaf)[i] = 0;
        count += values_of(leaf)[i] == 0;
      }
    });
    return count;
  };
  const index planted = zeros(whole.w, pruned);
  whole.train->refresh();
  std::vector<double> want;
  for (int i = 0; i < calls; ++i) {
    LINNET_REQUIRE_OK(ln::save_checkpoint(folder.path(std::to_string(i)), *whole.train));
    want.push_back(whole.call(i));
  }
  for (int from = 0; from < calls; ++from) {
    run<Trainer> rest(2, {.threads = threads, .run_on = std_threads()}, how);
    (void)rest.train->accumulate(rest.data.view());
    const auto loaded = ln::load_checkpoint(folder.path(std::to_string(from)), *rest.train);
    LINNET_REQUIRE_OK(loaded);
    BOOST_TEST(loaded->note == "");
    std::vector<double> got(want.begin(), want.begin() + from);
    for (int i = from; i < calls; ++i) got.push_back(rest.call(i));
    BOOST_TEST(same_bits(got, want), "from call " << from);
    BOOST_TEST((rest.state() == whole.state()), "from call " << from);
    BOOST_TEST(zeros(rest.w, false) == planted);
  }
}

/// The bytes of a checkpoint after some steps.
std::string example(run<trainer>& r, const std::vector<ln::section>& own = {}) {
  const scratch_folder folder;
  (void)r.call(0);
  (void)r.call(1);
  LINNET_REQUIRE_OK(ln::save_checkpoint(folder.path("a"), *r.train, own));
  return contents(folder.path("a"));
}

void overwrite(const std::string& path, std::string_view text) {
  LINNET_REQUIRE_OK(ln::write_file(path, bytes(text)));
}

/// What a trainer of another type says about a checkpoint.
template <class Trainer>
std::string refusal(const std::string& file) {
  run<Trainer> other;
  const std::string before = other.state();
  const auto loaded = ln::load_checkpoint(bytes(file), *other.train, "f");
  BOOST_TEST((other.state() == before));
  return message(loaded);
}

/// Runs f in a child process; its exit status, or minus the signal that ended it. `until` may end
/// it.
template <class F, class Until>
int in_child(F&& f, Until&& until) {
  const pid_t child = start_child([&] {
    f();
    return 0;
  });
  until(child);
  return end_of_child(child);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(checkpoints)

BOOST_AUTO_TEST_CASE(resuming_adamw) {
  check_resuming<trainer>(16, 1);
  check_resuming<trainer>(6, 3);
}
// With factored matrices and others.
BOOST_AUTO_TEST_CASE(resuming_adafactor) {
  check_resuming<ln::trainer<wide, ln::adafactor>>(11, 1);
}
BOOST_AUTO_TEST_CASE(resuming_pruned_weights) { check_resuming<trainer>(6, 2, true); }
BOOST_AUTO_TEST_CASE(resuming_learned_steps) { check_resuming<learned>(6, 3); }

BOOST_AUTO_TEST_CASE(sections_of_ones_own) {
  const scratch_folder folder;
  const std::string path = folder.path("a");
  run<trainer> r;
  ln::random_stream random(ln::seed{3});
  (void)random.normal();
  const std::string log = "a\0b";
  LINNET_REQUIRE_OK(ln::save_checkpoint(
      path, *r.train, {ln::as_section("random", random), {"log", bytes(log)}, {"empty", {}}}));
  const auto loaded = ln::load_checkpoint(path, *r.train);
  LINNET_REQUIRE_OK(loaded);
  BOOST_TEST(loaded->path == path);
  ln::random_stream again(ln::seed{4});
  BOOST_TEST(loaded->read("random", again));
  BOOST_TEST(again.bits() == random.bits());
  BOOST_REQUIRE(loaded->find("log"));
  BOOST_TEST(std::ranges::equal(*loaded->find("log"), bytes(log)));
  BOOST_REQUIRE(loaded->find("empty"));
  BOOST_TEST(loaded->find("empty")->empty());
  BOOST_TEST(!loaded->find("linnet.weights"));
  BOOST_TEST(!loaded->find("other"));
  int wrong = 7;
  BOOST_TEST(!loaded->read("random", wrong));
  BOOST_TEST(wrong == 7);

  BOOST_TEST(message(ln::save_checkpoint(path, *r.train, {{"linnet.x", {}}})) ==
             path + ": linnet.x: expected a name that does not begin with linnet., got this one");
  BOOST_TEST(message(ln::save_checkpoint(path, *r.train, {{"x", {}}, {"x", {}}})) ==
             path + ": x: expected one section of this name, got two");
  const std::string endless(1 << 20, 'x');
  BOOST_TEST(message(ln::save_checkpoint(path, *r.train, {{endless, {}}}))
                 .starts_with(path + ": names of sections: expected at most 1048576 bytes, got"));
  BOOST_TEST(contents(path).find("random") != std::string::npos);
}

// No prefix of a file and no flipped bit passes, and the trainer stays as it was.
BOOST_AUTO_TEST_CASE(damage) {
  run<trainer> r;
  const std::string good = example(r, {{"own", bytes("something")}});
  const std::string before = r.state();
  index passed = 0, other = 0;
  const auto look_at = [&](const std::string& file) {
    const auto loaded = ln::load_checkpoint(bytes(file), *r.train);
    passed += static_cast<bool>(loaded);
    other += !loaded && loaded.error().code != ln::errc::malformed;
  };
  for (std::size_t n = 0; n < good.size(); ++n) look_at(std::string(good, 0, n));
  look_at(good + '\0');
  const auto flip = [&](std::size_t bit) {
    std::string file = good;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ 1 << bit % 8);
    look_at(file);
  };
  for (std::size_t bit = 0; bit < 8 * 700; ++bit) flip(bit);  // the header and some weights
  ln::random_stream random(ln::seed{1});
  for (int i = 0; i < 2000; ++i) flip(random.below(static_cast<std::uint32_t>(8 * good.size())));
  for (std::size_t byte = 1; byte <= 9; ++byte) flip(8 * (good.size() - byte));
  BOOST_TEST(passed == 0);
  BOOST_TEST(other == 0);
  BOOST_TEST((r.state() == before));
  LINNET_REQUIRE_OK(ln::load_checkpoint(bytes(good), *r.train));
}

// Well-formed as far as checksums tell, and still not right.
BOOST_AUTO_TEST_CASE(files_that_lie) {
  run<trainer> r;
  const std::string good = example(r);
  const auto file = ln::detail::parse_sections(bytes(good), "f");
  LINNET_REQUIRE_OK(file);
  const auto after = [&](auto&& change) {
    auto metadata = file->metadata;
    auto sections = file->sections;
    std::string bad = ln::detail::checkpoint_file_head(metadata, sections);
    change(metadata, sections, bad);
    if (bad.empty()) bad = ln::detail::checkpoint_file_head(metadata, sections);
    const auto sum = ln::detail::checksum(bytes(bad).first(bad.size() - 8));
    std::memcpy(bad.data() + bad.size() - 8, &sum, 8);
    for (const auto& one : sections)
      bad.append(reinterpret_cast<const char*>(one.bytes.data()), one.bytes.size());
    return message(ln::load_checkpoint(bytes(bad), *r.train, "f"));
  };
  BOOST_TEST(after([](auto&, auto&, auto&) {}) == "success");
  BOOST_TEST(after([](auto&, auto&, auto& head) { head[8] = 2; }) ==
             "f: version: expected 1, got 2");
  const std::string counts =
      "f: header: expected as many entries and sections as it says, got others";
  BOOST_TEST(after([](auto&, auto&, auto& head) { head[19] = '\xff'; }) == counts);
  BOOST_TEST(after([](auto&, auto&, auto& head) { head[20] = 4; }) == counts);
  BOOST_TEST(after([](auto&, auto&, auto& head) { head[27] = '\xff'; }) == counts);
  BOOST_TEST(after([](auto&, auto&, auto& head) {
               head[head.size() - 17] = '\xff';
             }).starts_with("f: linnet.gradients: expected 1837"));
  BOOST_TEST(after([](auto&, auto& sections, auto& head) {
               sections.pop_back();
               head = "";
             }) == "f: linnet.gradients: expected " +
                       std::to_string(ln::gradients<model>::bytes()) +
                       " bytes, got no such section");
  BOOST_TEST(after([](auto&, auto& sections, auto& head) {
               sections.push_back(sections[1]);
               head = "";
             }) == "f: linnet.weights: expected one section of this name, got two");
  BOOST_TEST(after([](auto&, auto& sections, auto& head) {
               sections.push_back({"linnet.more", {}});
               head = "";
             }) == "f: sections: expected 5 of the trainer, got 6");
  BOOST_TEST(after([](auto&, auto& sections, auto& head) {
               sections[1].bytes = sections[1].bytes.subspan(4);
               head = "";
             }) == "f: linnet.weights: expected " + std::to_string(ln::weights<model>::bytes()) +
                       " bytes, got " + std::to_string(ln::weights<model>::bytes() - 4));
  const std::vector<std::byte> longer(static_cast<std::size_t>(ln::weights<model>::bytes()) + 4);
  BOOST_TEST(after([&](auto&, auto& sections, auto& head) {
               sections[1].bytes = longer;
               head = "";
             }) == "f: linnet.weights: expected " + std::to_string(ln::weights<model>::bytes()) +
                       " bytes, got " + std::to_string(longer.size()));
  ln::training_progress progress = r.train->progress();
  progress.tokens = -1;
  BOOST_TEST(after([&](auto&, auto& sections, auto& head) {
               sections[0] = ln::as_section(sections[0].name, progress);
               head = "";
             }) == "f: linnet.progress.tokens: expected at least 0, got -1");
  for (index ln::training_progress::*const count :
       {&ln::training_progress::steps, &ln::training_progress::skipped,
        &ln::training_progress::tokens, &ln::training_progress::samples}) {
    progress = r.train->progress();
    progress.*count = std::numeric_limits<index>::max();
    BOOST_TEST(after([&](auto&, auto& sections, auto& head) {
                 sections[0] = ln::as_section(sections[0].name, progress);
                 head = "";
               }).find("expected at most 10^15, got 9223372036854775") != std::string::npos);
  }
  BOOST_TEST(after([](auto& metadata, auto&, auto& head) {
               metadata.erase(metadata.begin());
               head = "";
             }) == "f: d_model: expected 8 (the trainer's type), got nothing");
  std::string foreign = good;
  foreign[0] = 'x';
  BOOST_TEST(message(ln::load_checkpoint(bytes(foreign), *r.train, "f")) ==
             "f: expected a checkpoint, which begins with linnetCP, got another beginning");
}

BOOST_AUTO_TEST_CASE(other_types) {
  run<trainer> r;
  const std::string file = example(r);
  BOOST_TEST((refusal<ln::trainer<model, ln::adafactor>>(file)) ==
             "f: optimizer: expected adafactor (the trainer's type), got adamw");
  BOOST_TEST((refusal<ln::trainer<model, ln::adamw, double>>(file)) ==
             "f: scalar: expected f64 (the trainer's type), got f32");
  BOOST_TEST((refusal<ln::trainer<ln::decoder<tiny_decoder_shape, ln::norm::layer_norm>>>(file)) ==
             "f: norm: expected layer_norm (the trainer's type), got rms");
  BOOST_TEST(
      (refusal<learned>(file)) ==
      "f: compute: expected steps learned of int4 group 8 (the trainer's type), got nothing");
}

// A damaged or absent newest file gives way to the one before, which the next save keeps.
BOOST_AUTO_TEST_CASE(falling_back) {
  const scratch_folder folder;
  const std::string path = folder.path("a"), previous = path + ".previous";
  run<trainer> r, reader(2);
  BOOST_TEST((ln::load_checkpoint(path, *reader.train).error().code == ln::errc::missing));
  std::vector<std::string> states;
  for (int i = 0; i < 3; ++i) {
    (void)r.call(0);
    states.push_back(r.state());
    LINNET_REQUIRE_OK(ln::save_checkpoint(path, *r.train));
    BOOST_TEST(std::filesystem::exists(previous) == (i > 0));
  }
  BOOST_TEST(!std::filesystem::exists(path + ".partial"));
  const auto load = [&] {
    const auto loaded = ln::load_checkpoint(path, *reader.train);
    LINNET_REQUIRE_OK(loaded);
    return loaded->path + '|' + loaded->note;
  };
  BOOST_TEST(load() == path + "|");
  BOOST_TEST((reader.state() == states[2]));

  std::string torn = contents(path);
  torn.resize(torn.size() / 2);
  overwrite(path, torn);
  BOOST_TEST(load().starts_with(previous + '|' + path + ": linnet."));
  BOOST_TEST((reader.state() == states[1]));
  BOOST_TEST(contents(path + ".damaged") == torn);
  BOOST_TEST(!std::filesystem::exists(path));
  LINNET_REQUIRE_OK(ln::save_checkpoint(path, *r.train));
  BOOST_TEST(std::filesystem::exists(previous));
  BOOST_TEST(load() == path + "|");

  std::filesystem::remove(path);
  BOOST_TEST(load() ==
             previous + '|' + path + ": expected a readable file, got No such file or directory");
  BOOST_TEST((reader.state() == states[1]));

  // Both damaged: says so of the newest. A file of another type hides nothing.
  overwrite(path, "");
  const std::string before = contents(previous);
  overwrite(previous, torn);
  BOOST_TEST(message(ln::load_checkpoint(path, *reader.train)) ==
             path + ": expected a checkpoint, which begins with linnetCP, got another beginning");
  BOOST_TEST(std::filesystem::exists(path));
  overwrite(previous, before);
  run<ln::trainer<model, ln::adafactor>> other;
  LINNET_REQUIRE_OK(ln::save_checkpoint(path, *other.train));
  overwrite(previous, before);
  BOOST_TEST(message(ln::load_checkpoint(path, *reader.train)) ==
             path + ": optimizer: expected adamw (the trainer's type), got adafactor");
}

// The newest is damaged, and the process that was to replace it was killed before it did: what it
// had written is used, gets the name, and is what the next save keeps.
BOOST_AUTO_TEST_CASE(a_complete_partial_file_is_used) {
  for (const bool with_previous : {false, true}) {
    const scratch_folder folder;
    const std::string path = folder.path("a"), previous = path + ".previous";
    run<trainer> r, reader(2);
    for (int i = 0; i < 1 + with_previous; ++i) {
      (void)r.call(0);
      LINNET_REQUIRE_OK(ln::save_checkpoint(path, *r.train));
    }
    const std::string good = contents(path);
    (void)r.call(0);
    LINNET_REQUIRE_OK(ln::save_checkpoint(folder.path("b"), *r.train));
    overwrite(path, good.substr(0, good.size() - 1));
    if (with_previous) overwrite(previous, "rotten");
    const std::string half = contents(folder.path("b")).substr(0, 1000);
    overwrite(path + ".1.partial", contents(folder.path("b")));
    if (with_previous) overwrite(path + ".partial", half);  // or its writer has done
    const auto loaded = ln::load_checkpoint(path, *reader.train);
    LINNET_REQUIRE_OK(loaded);
    BOOST_TEST(loaded->path == path + ".1.partial");
    BOOST_TEST(loaded->note.starts_with(path + ": linnet."));
    BOOST_TEST((reader.state() == r.state()));
    BOOST_TEST((contents(path + ".damaged") == good.substr(0, good.size() - 1)));
    BOOST_TEST((contents(path) == contents(folder.path("b"))));
    LINNET_REQUIRE_OK(ln::save_checkpoint(path, *r.train));
    BOOST_TEST((contents(previous) == contents(folder.path("b"))));
    BOOST_TEST(!std::filesystem::exists(path + ".partial"));
  }
}

// A save that fails or is killed at any of its system calls, with the newest file sound or rotten:
// afterwards the state before or the new one loads, and the next save works.
BOOST_AUTO_TEST_CASE(every_call_of_a_save) {
  run<trainer> r, reader(2);
  std::vector<std::string> files, states;
  {
    const scratch_folder folder;
    for (int i = 0; i < 4; ++i) {
      (void)r.call(0);
      states.push_back(r.state());
      LINNET_REQUIRE_OK(ln::save_checkpoint(folder.path("a"), *r.train));
      files.push_back(contents(folder.path("a")));
    }
  }
  LINNET_REQUIRE_OK(ln::load_checkpoint(bytes(files[2]), *r.train));
  for (const bool killed : {false, true})
    for (const bool rotten : {false, true})
      for (int at = 0; at < 6; ++at) {
        const scratch_folder folder;
        const std::string path = folder.path("a"), previous = path + ".previous";
        overwrite(path, rotten ? "rotten" : files[1]);
        overwrite(previous, files[0]);
        const int ended = in_child(
            [&] {
              system_calls calls;
              if (killed)
                calls.leave_at = at;
              else
                calls.fail_at = {at};
              const bool saved = static_cast<bool>(ln::save_checkpoint(path, *r.train));
              if (killed || calls.made.size() <= static_cast<std::size_t>(at))
                _exit(calls.made == "FLRRf" ? 0 : 1);
              _exit(saved ? 3 : 2);
            },
            [](pid_t) {});
        // Without hard links, the file before is renamed.
        const int wanted = at == 5 ? 0 : killed ? -SIGKILL : at == 1 ? 3 : 2;
        BOOST_TEST(ended == wanted, "call " << at << ": " << ended);
        const auto loaded = ln::load_checkpoint(path, *reader.train);
        LINNET_REQUIRE_OK(loaded);
        const std::string state = reader.state();
        const bool saved = at > 2 || ended == 3;
        BOOST_TEST((state == states[saved || (rotten && killed) ? 2
                                    : rotten                    ? 0
                                                                : 1]),
                   "call " << at << ", killed " << killed << ", rotten " << rotten);
        LINNET_REQUIRE_OK(ln::save_checkpoint(path, *reader.train));
        LINNET_REQUIRE_OK(ln::load_checkpoint(path, *reader.train));
        LINNET_REQUIRE_OK(ln::load_checkpoint(previous, *reader.train));
        for (const auto& one : std::filesystem::directory_iterator(folder.path()))
          BOOST_TEST(one.path().string().find(".partial") == std::string::npos);
      }
  // Without hard links, when the new file cannot get its name: the one before gets it back.
  const scratch_folder folder;
  overwrite(folder.path("a"), files[1]);
  {
    system_calls calls;
    calls.fail_at = {1, 3};
    BOOST_TEST(!ln::save_checkpoint(folder.path("a"), *r.train));
    BOOST_TEST(calls.made == "FLRRR");
  }
  BOOST_TEST((contents(folder.path("a")) == files[1]));
}

// Two processes save to one path all the time: what is there is whole at every moment, both say
// that they saved, and the one before is another file than the newest.
BOOST_AUTO_TEST_CASE(two_processes_save) {
  const scratch_folder folder;
  const std::string path = folder.path("a");
  run<trainer> r, other(2), reader(3);
  LINNET_REQUIRE_OK(ln::save_checkpoint(path, *r.train));
  int looks = 0;
  const auto save = [&](run<trainer>& one) {
    for (int i = 0; i < 40; ++i)
      if (!ln::save_checkpoint(path, *one.train)) _exit(1);
  };
  const auto look = [&](pid_t child) {
    while (runs(child) || looks == 0) {
      LINNET_REQUIRE_OK(
          ln::load_checkpoint(bytes(contents(path)), *reader.train, "while it is written"));
      BOOST_TEST((reader.state() == r.state() || reader.state() == other.state()));
      ++looks;
    }
  };
  BOOST_TEST(in_child([&] { save(r); },
                      [&](pid_t child) {
                        BOOST_TEST(in_child([&] { save(other); }, look) == 0);
                        (void)child;
                      }) == 0);
  BOOST_TEST(!std::filesystem::equivalent(path, path + ".previous"));
  LINNET_REQUIRE_OK(ln::load_checkpoint(path + ".previous", *reader.train));
  BOOST_TEST(std::distance(std::filesystem::directory_iterator(folder.path()),
                           std::filesystem::directory_iterator()) == 2);
}

// The file and the one before lie where a link leads to.
BOOST_AUTO_TEST_CASE(through_a_link) {
  const scratch_folder folder;
  std::filesystem::create_directory(folder.path("d"));
  const std::string link = folder.path("a"), file = folder.path("d/a");
  std::filesystem::create_symlink("d/a", link);
  run<trainer> r, reader(2);
  LINNET_REQUIRE_OK(ln::save_checkpoint(link, *r.train));
  const std::string first = r.state();
  (void)r.call(0);
  LINNET_REQUIRE_OK(ln::save_checkpoint(link, *r.train));
  overwrite(file, "rotten");
  const auto loaded = ln::load_checkpoint(link, *reader.train);
  LINNET_REQUIRE_OK(loaded);
  BOOST_TEST(loaded->path == file + ".previous");
  BOOST_TEST((reader.state() == first));
  BOOST_TEST(contents(file + ".damaged") == "rotten");
  LINNET_REQUIRE_OK(ln::save_checkpoint(link, *r.train));
  BOOST_TEST(std::filesystem::is_symlink(link));
  BOOST_TEST(std::filesystem::exists(file));
  BOOST_TEST(std::distance(std::filesystem::directory_iterator(folder.path()),
                           std::filesystem::directory_iterator()) == 2);
}

BOOST_AUTO_TEST_CASE(a_stopped_trainer_leaves_the_last_good_checkpoint) {
  const scratch_folder folder;
  run<trainer> r(1, {}, {.if_not_finite = ln::bad_step::stop});
  LINNET_REQUIRE_OK(ln::save_checkpoint(folder.path("a"), *r.train));
  const std::string good = r.state();
  (void)r.call(1);
  r.train->gradient().tree().norm.weight[0] = std::numeric_limits<float>::infinity();
  r.train->update();
  BOOST_TEST(message(ln::save_checkpoint(folder.path("a"), *r.train)) ==
             folder.path("a") +
                 ": trainer: expected one that goes on, got one that stopped after step 0: " +
                 std::string(ln::to_string(ln::refusal::not_finite)));
  LINNET_REQUIRE_OK(ln::load_checkpoint(folder.path("a"), *r.train));
  BOOST_TEST((r.state() == good));
  BOOST_TEST(!r.train->stopped());
}

// Writing fails after any number of bytes, or on a full disk: the old file stays.
BOOST_AUTO_TEST_CASE(failing_writes) {
  const scratch_folder folder;
  const std::string path = folder.path("a");
  run<trainer> r, reader(2);
  LINNET_REQUIRE_OK(ln::save_checkpoint(path, *r.train));
  const std::string old = contents(path), state = r.state();
  (void)r.call(0);
  const auto check_old = [&] {
    BOOST_TEST((contents(path) == old));
    BOOST_TEST(!std::filesystem::exists(path + ".previous"));
    BOOST_TEST(!std::filesystem::exists(path + ".partial"));
  };
  const auto save_with_limit = [&](std::size_t most) {
    return in_child(
        [&] {
          std::signal(SIGXFSZ, SIG_IGN);
          const rlimit limit{most, most};
          setrlimit(RLIMIT_FSIZE, &limit);
          _exit(ln::save_checkpoint(path, *r.train) ? 2 : 3);
        },
        [](pid_t) {});
  };
  for (std::size_t n = 0; n < old.size(); n += n < 8 || n + 20 > old.size() ? 1u : 97u) {
    BOOST_TEST(save_with_limit(n) == 3);
    check_old();
  }
  BOOST_TEST(message(ln::save_checkpoint("/dev/full", *r.train)) ==
             "/dev/full: expected to write the whole file, got No space left on device");
  std::filesystem::create_directory(folder.path("d"));
  BOOST_TEST(message(ln::save_checkpoint(folder.path("d"), *r.train)) ==
             folder.path("d") + ": expected a file that can be written, got Is a directory");
  BOOST_TEST(!ln::save_checkpoint(folder.path("none/a"), *r.train));
  LINNET_REQUIRE_OK(ln::load_checkpoint(path, *reader.train));
  BOOST_TEST((reader.state() == state));
  BOOST_TEST(save_with_limit(old.size()) == 2);
  BOOST_TEST((contents(path + ".previous") == old));
}

// A process that trains and saves is killed at random moments, hundreds of times. Each time the
// next one finds a state of the one and only run, never an older one than before.
BOOST_AUTO_TEST_CASE(killed_while_saving) {
  const scratch_folder folder;
  const std::string path = folder.path("a");
  run<trainer> truth, found(2);
  ln::random_stream random(ln::seed{17});
  const auto begin = std::chrono::steady_clock::now();
  const auto microseconds = [&] {
    return static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                          std::chrono::steady_clock::now() - begin)
                                          .count());
  };
  LINNET_REQUIRE_OK(ln::save_checkpoint(path, *truth.train));
  const std::uint32_t one_save = microseconds();
  LINNET_REQUIRE_OK(ln::load_checkpoint(path, *found.train));
  int kills = 0, fell_back = 0, torn = 0;
  for (; kills < 50 || (kills < 400 && microseconds() < 8'000'000); ++kills) {
    const int ended = in_child(
        [&] {
          for (;;) {
            (void)found.call(0);
            if (!ln::save_checkpoint(path, *found.train)) _exit(1);
          }
        },
        [&](pid_t child) {
          std::this_thread::sleep_for(std::chrono::microseconds(random.below(2 * one_save + 2000)));
          kill(child, SIGKILL);
        });
    BOOST_REQUIRE(ended == -SIGKILL);
    torn += std::filesystem::exists(path + ".partial");
    const index before = truth.train->steps();
    const auto loaded = ln::load_checkpoint(path, *found.train);
    LINNET_REQUIRE_OK(loaded);
    fell_back += !loaded->note.empty();
    BOOST_REQUIRE(found.train->steps() >= before);
    while (truth.train->steps() < found.train->steps()) (void)truth.call(0);
    BOOST_REQUIRE((truth.state() == found.state()));
  }
  BOOST_TEST_MESSAGE(kills << " kills, " << truth.train->steps() << " steps, " << torn
                           << " partial files, " << fell_back << " times the one before");
  BOOST_TEST(kills >= 50);
  BOOST_TEST(truth.train->steps() > 0);
  BOOST_TEST(torn > 0);
}

// One changed bit, wherever it is in a section of any size.
BOOST_AUTO_TEST_CASE(checksums_of_large_sections) {
  for (const std::size_t size : {1u, 4095u, 4096u, 100'003u, 3'000'000u}) {
    const std::vector<std::byte> own(size, std::byte{7});
    const std::vector<ln::section> sections{{"own", own}};
    const std::string head = ln::detail::checkpoint_file_head({}, sections);
    std::vector<std::byte> file(head.size() + size);
    __builtin_memcpy(file.data(), head.data(), head.size());
    std::copy(own.begin(), own.end(), file.begin() + std::ssize(head));
    BOOST_TEST(
        static_cast<bool>(ln::detail::parse_sections(std::span<const std::byte>(file), "f")));
    for (const std::size_t place : {std::size_t{0}, size / 2, size - 1}) {
      file[head.size() + place] ^= std::byte{16};
      const auto parsed = ln::detail::parse_sections(std::span<const std::byte>(file), "f");
      BOOST_REQUIRE(!parsed);
      BOOST_TEST(parsed.error().message() == "f: own: expected bytes of its checksum, got others");
      file[head.size() + place] ^= std::byte{16};
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::checkpoint_test

#else

BOOST_AUTO_TEST_CASE(checkpoints) {
  std::cout << "SKIPPED: checkpoints: xxhash.h is not installed\n";
}

#endif
