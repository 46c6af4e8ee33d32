// SPDX-License-Identifier: MIT
// A teacher's file: what stands in it, that students learn from it as from the teacher, and that
// every wrong file is refused.

#include <deque>

#include "support/data.hpp"
#include "support/resumed.hpp"
#include "support/scoring.hpp"

#if __has_include(<xxhash.h>)
#include <linnet/cached_logits.hpp>

namespace test::cached_logits_test {

namespace {

using t5 = ln::t5<tiny_t5_shape>;
using t5_teacher = ln::t5<tiny_t5_shape, ln::ffn::gated_gelu, ln::tie::untied>;
using decoder = ln::decoder<tiny_decoder_shape, ln::tie::untied>;
using decoder_teacher = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm>;

template <class M>
auto stream_of_batches() {
  return std::vector{data_for<M>(5, 6, 31), data_for<M>(3, 4, 7)};
}
/// The file of a teacher on these batches.
template <class M, class T>
std::string recorded(const ln::packed<M, T>& p, const auto& batches,
                     const ln::cached_logits_format& how, int threads = 1) {
  const scratch_folder folder;
  ln::limits l = batches[0].limits(threads);
  l.run_on = std_threads();
  auto score = ln::evaluator<M, T>::open(p, l);
  auto book = ln::cached_logits_writer::open(folder.path("teacher"), how, l);
  LINNET_REQUIRE_OK(book);
  for (const auto& data : batches) {
    const double nats = score->loss(data.view(), *book).nats;
    BOOST_TEST(nats == score->loss(data.view()).nats);
  }
  BOOST_TEST(book->batches() == std::ssize(batches));
  LINNET_REQUIRE_OK(book->commit());
  return contents(folder.path("teacher"));
}
template <class T>
T number(const std::string& file, std::size_t at) {
  T x{};
  std::memcpy(&x, file.data() + at, sizeof x);
  return x;
}

/// Gradients that a student gets from an objective on a batch.
template <class M, class T>
ln::gradients<M, T> gradient_of(const auto& data, auto&& lesson, ln::loss_sum& loss,
                                int threads = 1) {
  ln::weights<M, T> w;
  randomize(w);
  ln::limits l = data.limits(threads);
  l.run_on = std_threads();
  auto train = ln::trainer<M, ln::adamw, T>::open(w, l);
  loss = train->accumulate(data.view(), lesson);
  return std::move(train->gradient());
}
template <class M, class T>
double distance_of_gradients(const ln::gradients<M, T>& a, const ln::gradients<M, T>& b) {
  double worst = 0, size = 0;
  ln::each_tensor_of(
      [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& x, const auto& y) {
        for (index i = 0; i < info.size(); ++i) {
          worst = (std::max)(worst, distance_of(x[i], y[i]));
          size = (std::max)(size, distance_of(x[i], 0));
        }
      },
      a, b);
  BOOST_TEST(size > 0.1);
  return worst / size;
}

/// All of a teacher's logits in a file are the teacher.
template <class M, class Teacher>
void check_whole_vocabulary() {
  const auto batches = stream_of_batches<M>();
  const auto p = random_packed<Teacher, double>(5);
  const ln::limits l = batches[0].limits();
  const ln::distillation_options how{.alpha = 0.3, .temperature = 2};
  auto live = ln::distillation<ln::packed<M, double>, ln::packed<Teacher, double>>::open(p, l, how);
  for (const bool half : {false, true}) {
    const ln::cached_logits_format all{M::vocabulary, M::vocabulary, 2, half, 77};
    const std::string file = recorded(p, batches, all);
    auto read = ln::cached_logits_reader<double>::open(bytes(file), all, how.alpha, l);
    LINNET_REQUIRE_OK(read);
    BOOST_TEST(read->batches() == 2);
    for (index i = 0; i < 2; ++i) {
      ln::loss_sum want_loss, loss;
      const auto want = gradient_of<M, double>(batches[at(i)], *live, want_loss);
      const auto got = gradient_of<M, double>(batches[at(i)], read->batch(i), loss);
      BOOST_TEST(distance_of_gradients(want, got) < (half ? 2e-3 : 2e-7));
      BOOST_TEST(distance_of(loss.nats, want_loss.nats) < (half ? 1e-3 : 1e-7) * want_loss.nats);
      BOOST_TEST(loss.tokens == want_loss.tokens);
    }
  }
}

/// A file with its checksum made right again.
std::string sealed(std::string file) {
  const std::uint64_t hash = XXH3_64bits(file.data(), file.size() - 8);
  std::memcpy(file.data() + file.size() - 8, &hash, 8);
  return file;
}
template <class T>
std::string with(std::string file, std::size_t at, T x) {
  std::memcpy(file.data() + at, &x, sizeof x);
  return sealed(file);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cached_logits_reader)

// Byte by byte: the header, the rows whose labels count, sorted ids with their logits, and a rest
// that has the probability it had.
BOOST_AUTO_TEST_CASE(what_stands_in_a_file) {
  constexpr index n = decoder::vocabulary, k = 3;
  const std::vector batches{data_for<decoder>(2, 4, 5)};
  const auto p = random_packed<decoder, float>(5);
  const auto logits = logits_of<decoder>(p, batches[0]);
  for (const bool half : {false, true}) {
    const ln::cached_logits_format how{n, k, 2.5, half, 0x123456789abcdefu};
    const std::size_t width = half ? 2 : 4, row_size = 4 * width + 3 * 2;
    const std::string file = recorded(p, batches, how);
    BOOST_TEST(file.size() == 40 + 16 + 8 * row_size + 16);
    BOOST_TEST(file.substr(0, 8) == "linnetKD");
    BOOST_TEST(number<std::uint32_t>(file, 8) == 1u);
    BOOST_TEST(number<std::uint32_t>(file, 12) == 11u);
    BOOST_TEST(number<std::uint32_t>(file, 16) == 3u);
    BOOST_TEST(number<std::uint16_t>(file, 20) == width);
    BOOST_TEST(number<std::uint16_t>(file, 22) == 2u);
    BOOST_TEST(number<double>(file, 24) == 2.5);
    BOOST_TEST(number<std::uint64_t>(file, 32) == 0x123456789abcdefu);
    BOOST_TEST(number<std::uint64_t>(file, 48) == 8u);  // 2 x 5, two ignored
    BOOST_TEST(number<std::uint64_t>(file, file.size() - 16) == 1u);
    std::size_t from = 56;
    for (index i = 0; i < 10; ++i) {
      if (batches[0].labels[at(i)] == ln::ignored) continue;
      const auto row = row_of<decoder>(logits, i);
      std::vector<std::size_t> order(at(n));
      for (std::size_t j = 0; j < order.size(); ++j) order[j] = j;
      std::sort(order.begin(), order.end(), [&](auto a, auto b) { return row[a] > row[b]; });
      const auto logit = [&](std::size_t j) {
        return half ? ln::storage::f16::decode(number<std::uint16_t>(file, from + 2 * j))
                    : static_cast<double>(number<float>(file, from + 4 * j));
      };
      double all = 0, rest = 0;
      for (std::size_t j = 0; j < order.size(); ++j) {
        const double e = std::exp(static_cast<double>(row[order[j]] - row[order[0]]) / 2.5);
        all += e;
        if (j >= at(k)) rest += e;
      }
      const double tolerance = half ? 5e-4 : 1e-6;
      for (std::size_t j = 0; j < at(k); ++j) {
        BOOST_TEST(number<std::uint16_t>(file, from + 4 * width + 2 * j) == order[j]);
        BOOST_TEST(distance_of(logit(j + 1), row[order[j]] - row[order[0]]) <
                   tolerance * (1 - logit(j + 1)));
      }
      BOOST_TEST(distance_of((n - k) * std::exp(logit(0) / 2.5) / all, rest / all) < tolerance);
      from += row_size;
    }
  }
}

// Students learn from a whole recorded vocabulary as from the live teacher.
BOOST_AUTO_TEST_CASE(whole_vocabulary_is_the_teacher) {
  check_whole_vocabulary<t5, t5_teacher>();
  check_whole_vocabulary<decoder, decoder_teacher>();
}

// Of fewer, the loss is that of the distribution which the documentation states, from the teacher's
// logits.
BOOST_AUTO_TEST_CASE(some_of_the_vocabulary) {
  constexpr index n = decoder::vocabulary;
  const auto batches = stream_of_batches<decoder>();
  const auto p = random_packed<decoder_teacher, double>(5);
  const auto s = random_packed<decoder, double>(1);
  auto score = ln::evaluator<decoder, double>::open(s, batches[0].limits());
  double before = 1e300;
  for (const index k : {1, 4, 10}) {
    const ln::cached_logits_format how{n, k, 2, false};
    const std::string file = recorded(p, batches, how);
    auto read = ln::cached_logits_reader<double>::open(bytes(file), how, 0, batches[0].limits());
    LINNET_REQUIRE_OK(read);
    for (index b = 0; b < 2; ++b) {
      const auto& data = batches[at(b)];
      const auto teacher = logits_of<decoder_teacher>(p, data),
                 student = logits_of<decoder>(s, data);
      double want = 0, variation = 0, most = 0;
      for (index i = 0; i < std::ssize(data.labels); ++i) {
        if (data.labels[at(i)] == ln::ignored) continue;
        const auto t = row_of<decoder>(teacher, i), l = row_of<decoder>(student, i);
        std::vector<double> law;
        double sum = 0, students = 0, rest = 1;
        for (const double x : t) law.push_back(std::exp(x / 2)), sum += law.back();
        for (double& x : law) x /= sum;
        for (const double x : l) students += std::exp(x / 2);
        std::vector<double> sorted = law, kept = law;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        for (index j = 0; j < k; ++j) rest -= sorted[at(j)];
        for (double& x : kept)
          if (x < sorted[at(k - 1)]) x = rest / static_cast<double>(n - k);
        for (std::size_t j = 0; j < kept.size(); ++j) {
          want -= 4 * kept[j] * (l[j] / 2 - std::log(students));
          variation += std::abs(kept[j] - law[j]) / 2;
        }
        most += rest;
      }
      const ln::loss_sum got = score->loss(data.view(), read->batch(b));
      BOOST_TEST(distance_of(got.nats, want) < 1e-6 * want);
      BOOST_TEST(variation <= most);
      if (b == 0) {
        BOOST_TEST(variation < before);
        before = variation + 1e-12;
      }
    }
  }
}

// Neither the recorder's threads nor the student's change a bit.
BOOST_AUTO_TEST_CASE(threads, *boost::unit_test::label("tsan")) {
  const auto batches = stream_of_batches<t5>();
  const auto p = random_packed<t5_teacher, float>(5);
  const ln::cached_logits_format how{t5::vocabulary, 4};
  const std::string file = recorded(p, batches, how);
  BOOST_TEST((recorded(p, batches, how, 3) == file));
  ln::loss_sum alone, shared;
  auto read = ln::cached_logits_reader<>::open(bytes(file), how, 0.1, {.threads = 3});
  LINNET_REQUIRE_OK(read);
  const auto a = gradient_of<t5, float>(batches[0], read->batch(0), alone);
  const auto b = gradient_of<t5, float>(batches[0], read->batch(0), shared, 3);
  BOOST_TEST(same_bytes(a, b));
  BOOST_TEST(alone.nats == shared.nats);
  // alpha = 1 asks nothing of the file.
  auto hard = ln::cached_logits_reader<>::open(bytes(file), how, 1);
  const auto c = gradient_of<t5, float>(batches[0], hard->batch(0), alone);
  const auto d = gradient_of<t5, float>(batches[0], ln::cross_entropy_objective{}, shared);
  BOOST_TEST(same_bytes(c, d));
  BOOST_TEST(alone.nats == shared.nats);
}

// A run that goes on from another reader of the file has the same bits.
BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  const auto batches = stream_of_batches<t5>();
  const ln::cached_logits_format how{t5::vocabulary, 4};
  const std::string file = recorded(random_packed<t5_teacher, float>(5), batches, how);
  std::deque<ln::cached_logits_reader<>> readers;  // outlive what refers to them
  ln::weights<t5> w;
  randomize(w);
  check_resumed(w, batches[0], [&](const ln::limits& l) {
    auto read = ln::cached_logits_reader<>::open(bytes(file), how, 0.1, l);
    LINNET_REQUIRE_OK(read);
    readers.push_back(*std::move(read));
    return readers.back().batch(0);
  });
}

// Only the batch that was recorded is taught, and only to its vocabulary.
BOOST_AUTO_TEST_CASE(other_batches_are_refused) {
  auto batches = stream_of_batches<t5>();
  const auto p = random_packed<t5, float>(5);
  const ln::cached_logits_format how{t5::vocabulary, 4};
  const std::string file = recorded(p, batches, how);
  auto read = ln::cached_logits_reader<>::open(bytes(file), how);
  LINNET_REQUIRE_OK(read);
  auto score = ln::evaluator<t5>::open(p, batches[0].limits());
  const auto refused = [&](const auto& data, index i) {
    return !ln::is_finite(score->loss(data.view(), read->batch(i)).nats);
  };
  BOOST_TEST(!refused(batches[0], 0));
  BOOST_TEST(!refused(batches[1], 1));
  BOOST_TEST(refused(batches[0], 1));
  BOOST_TEST(refused(batches[0], -1));
  BOOST_TEST(refused(batches[0], 2));
  auto& data = batches[0];
  for (token* const t : {&data.source[3], &data.labels[7]}) {
    const token kept = *t;
    *t = kept == 4 ? 5 : 4;
    BOOST_TEST(refused(data, 0));
    *t = kept;
  }
  --data.lengths[1];
  BOOST_TEST(refused(data, 0));
  ++data.lengths[1];
  BOOST_TEST(!refused(data, 0));
  auto more = ln::evaluator<t5>::open(p, data.limits(2));
  BOOST_TEST(!ln::is_finite(more->loss(data.view(), read->batch(0)).nats));
  auto small = how;
  small.vocabulary = 10;
  const scratch_folder folder;
  auto book = ln::cached_logits_writer::open(folder.path("x"), small);
  BOOST_TEST(!ln::is_finite(score->loss(data.view(), *book).nats));
  BOOST_TEST(book->batches() == 0);
}

// Another file than the one expected, a flipped bit anywhere, a missing end.
BOOST_AUTO_TEST_CASE(wrong_files_are_refused) {
  const std::vector batches{data_for<decoder>(2, 4, 5)};
  const auto p = random_packed<decoder, float>(5);
  const ln::cached_logits_format right{11, 3, 2, true, 42};
  const std::string file = recorded(p, batches, right);
  const auto why = [&](const std::string& f, const ln::cached_logits_format& r) {
    const std::vector<char> exact(f.begin(), f.end());  // so that ASan sees every overread
    return message(ln::cached_logits_reader<>::open(std::as_bytes(std::span(exact)), r));
  };
  const std::string head = "cached_logits_reader::open: ";
  BOOST_TEST(why(file, right) == "success");
  auto r = right;
  r.vocabulary = 12;
  BOOST_TEST(why(file, r) == head + "vocabulary: expected 12, got 11");
  r = right, r.k = 4;
  BOOST_TEST(why(file, r) == head + "k: expected 4, got 3");
  r = right, r.half = false;
  BOOST_TEST(why(file, r) == head + "bytes of a logit: expected 4, got 2");
  r = right, r.temperature = 3;
  BOOST_TEST(why(file, r) == head + "temperature: expected 3.000000, got 2.000000");
  r = right, r.stream = 43;
  BOOST_TEST(why(file, r) == head + "stream: expected 43, got 42");
  r = right, r.k = 12;
  BOOST_TEST(why(file, r) == head + "cached_logits_format.k: expected 1 to the vocabulary, got 12");
  r = right, r.temperature = -1;
  BOOST_TEST(why(file, r) ==
             head + "cached_logits_format.temperature: expected above 0, finite, got -1");
  r = right, r.vocabulary = 0;
  BOOST_TEST(why(file, r) ==
             head +
                 "cached_logits_format.vocabulary: expected 1 <= vocabulary <= 2147483647, got 0");
  BOOST_TEST(
      message(ln::cached_logits_reader<>::open(bytes(file), right, 2)) ==
      head +
          "distillation_options.alpha: expected 0 <= alpha <= 1 (at 1 no teacher is asked), got 2");

  for (std::size_t i = 0; i < file.size(); ++i) {
    for (const int bit : {0, 7}) {
      std::string broken = file;
      broken[i] = static_cast<char>(broken[i] ^ (1 << bit));
      BOOST_REQUIRE_MESSAGE(why(broken, right) != "success", "byte " << i);
    }
    BOOST_REQUIRE_MESSAGE(why(file.substr(0, i), right) != "success", i << " bytes");
    // Cut, with a right checksum: the counts are wrong.
    if (i >= 56) BOOST_REQUIRE_MESSAGE(why(sealed(file.substr(0, i)), right) != "success", i);
  }
  BOOST_TEST(why(file.substr(0, 55), right) ==
             head + "file: expected 56 bytes or more that begin with linnetKD, got 55 bytes");
  BOOST_TEST(why('L' + file.substr(1), right).ends_with("got another beginning"));
  BOOST_TEST(why(with(file, 8, 2u), right) == head + "version: expected 1, got 2");
  std::string flipped = file;
  flipped[100] ^= 1;
  BOOST_TEST(why(flipped, right).starts_with(head + "checksum: expected "));

  // Right checksums over wrong counts, ids and logits.
  const std::uint64_t huge = 0x8000000000000001u;
  BOOST_TEST(why(with(file, file.size() - 16, huge), right) ==
             head + "batches: expected no more than the bytes hold, got 9223372036854775809");
  BOOST_TEST(why(with(file, file.size() - 16, std::uint64_t{0}), right) ==
             head + "bytes behind the last batch: expected 0, got 128");
  BOOST_TEST(why(with(file, file.size() - 16, std::uint64_t{2}), right) ==
             head + "batch 1: expected 16 bytes, got 0");
  for (const std::uint64_t rows : {std::uint64_t{9}, huge})
    BOOST_TEST(why(with(file, 48, rows), right) ==
               head + "batch 0: rows: expected no more than the bytes hold, got " +
                   std::to_string(rows));
  BOOST_TEST(why(with(file, 48, std::uint64_t{7}), right) ==
             head + "bytes behind the last batch: expected 0, got 14");
  BOOST_TEST(why(with(file, 56 + 8, std::uint16_t{11}), right) ==
             head + "batch 0: id: expected less than 11, got 11");
  BOOST_TEST(why(with(file, 56 + 14 + 2, std::uint16_t{0x7c00}), right) ==
             head + "batch 0: logit: expected a finite number, got inf");
}

// What cannot be recorded, and files that cannot be written.
BOOST_AUTO_TEST_CASE(recorder_refuses) {
  const std::vector batches{data_for<decoder>(2, 4, 5)};
  const scratch_folder folder;
  const auto path = folder.path("teacher");
  BOOST_TEST(message(ln::cached_logits_writer::open(path, {.vocabulary = 11, .k = 0})) ==
             "cached_logits_writer::open: cached_logits_format.k: expected at least 1, got 0");
  BOOST_TEST(
      message(ln::cached_logits_writer::open(path, {.vocabulary = 11, .k = 1}, {.threads = 0})) ==
      "cached_logits_writer::open: limits.threads: expected 1 <= threads <= 65536, got 0");
  auto lost = ln::cached_logits_writer::open(folder.path("no/teacher"), {.vocabulary = 11, .k = 1});
  LINNET_REQUIRE_OK(lost);
  BOOST_TEST(message(lost->commit()).find("No such file") != std::string::npos);
  ln::weights<decoder> w;
  randomize(w);
  w.tree().embedding.data[0] = std::numeric_limits<float>::quiet_NaN();
  for (index i = 0; i < 11 * 8; ++i)
    w.tree().head.data[i] = std::numeric_limits<float>::quiet_NaN();
  const auto p = ln::pack(w);
  auto score = ln::evaluator<decoder>::open(p, batches[0].limits());
  auto book = ln::cached_logits_writer::open(path, {.vocabulary = 11, .k = 3});
  (void)score->loss(batches[0].view(), *book);
  BOOST_TEST(
      message(book->commit()) ==
      "cached_logits_writer::commit: the teacher's logits: expected finite numbers, got others");
  book = ln::cached_logits_writer::open(path, {.vocabulary = 11, .k = 3});
  BOOST_TEST(!std::filesystem::exists(path));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::cached_logits_test

#else

BOOST_AUTO_TEST_CASE(cached_logits_reader) {
  std::cout << "SKIPPED: recorded teachers want xxhash.h (Debian: libxxhash-dev)\n";
}

#endif
