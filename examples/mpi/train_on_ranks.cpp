// SPDX-License-Identifier: MIT
// A byte-level decoder learns a text on several processes: mpirun -n 2 train_on_ranks [TEXT
// CHECKPOINT STEPS THREADS]. Each has its part of each batch and, by zero<2>, its shard of
// gradients and moments. It saves every 20 steps and goes on where it was, on any number of ranks,
// with the same losses. Without arguments it learns a sentence, and saves nothing.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <linnet/linnet.hpp>
#include <linnet/mpi_checkpoint.hpp>

namespace ln = linnet;

using Model = ln::decoder<ln::decoder_shape{.d_model = 32,
                                            .d_ff = 96,
                                            .heads = 4,
                                            .kv_heads = 2,
                                            .layers = 2,
                                            .vocabulary = 256,
                                            .context = 256}>;
using Trainer = ln::distributed_trainer<Model, ln::adamw, ln::zero<2>>;
constexpr ln::index parts = 4, sequences = 8, length = 32;  // of each batch, on any number of ranks

/// Windows of a text, the same ones on all ranks for a step.
struct windows {
  std::vector<ln::token> tokens, labels;

  windows(const std::string& text, ln::index step) {
    ln::random_stream random(ln::seed{11}, static_cast<std::uint64_t>(step));
    for (ln::index row = 0; row < sequences; ++row) {
      const std::size_t at = random.below(static_cast<std::uint32_t>(std::ssize(text) - length));
      for (std::size_t i = at; i < at + length; ++i) {
        tokens.push_back(static_cast<unsigned char>(text[i]));
        labels.push_back(static_cast<unsigned char>(text[i + 1]));
      }
    }
  }
  /// Sequences [first, last).
  ln::decoder_batch part(ln::index first, ln::index last) const {
    return {tokens.data() + first * length, labels.data() + first * length, last - first, length};
  }
};

/// Says why and returns the status of the program.
int stop(const ln::error& why) {
  std::fprintf(stderr, "%s\n", why.message().c_str());
  return 1;
}

/// What the command line says.
struct task {
  std::string text{}, path{};
  ln::index steps = 20;
  int threads = 1;  ///< of each rank
};

int run(ln::communicator& ranks, const task& given) {
  const auto& [text, path, steps, threads] = given;
  ln::weights<Model> w;
  ln::initialize(w, ln::seed{1});
  const ln::adamw optimizer{.rate = ln::schedule::cosine(3e-3, 10, steps, 3e-4)};
  auto train =
      Trainer::open(w, ranks, {.batch = sequences / parts, .target = length, .threads = threads},
                    optimizer, {.clip = 1, .seed = 7}, {.parts = parts});
  if (!train) return stop(train.error());
  if (!path.empty()) {
    const auto loaded = ln::load_checkpoint(path, *train);
    if (!loaded && loaded.error().code != ln::errc::missing) return stop(loaded.error());
  }
  const auto [first, last] = train->part_of(sequences);
  while (train->steps() < steps) {
    const double loss = train->step(windows(text, train->steps()).part(first, last));
    if (!train->last_refusal().empty()) return stop(train->error());
    const ln::index step = train->steps();
    if (ranks.rank() == 0 && step % 10 == 0) {
      std::printf("step %td: loss %.4f\n", step, loss);
      (void)std::fflush(stdout);
    }
    if (!path.empty() && (step % 20 == 0 || step == steps))
      if (const auto saved = ln::save_checkpoint(path, *train); !saved) return stop(saved.error());
  }
  return 0;
}

int main(int count, char** words) {
  task given;
  for (int i = 0; i < 20; ++i)
    given.text += "Many ranks make one sum, and none of them minds the order. ";
  if (count > 1) {
    const auto bytes = ln::read_file(words[1]);
    if (!bytes) return stop(bytes.error());
    given.text.assign(reinterpret_cast<const char*>(bytes->bytes().data()), bytes->bytes().size());
  }
  if (count > 2) given.path = words[2];
  if (count > 3) given.steps = std::atoi(words[3]);
  if (count > 4) given.threads = std::atoi(words[4]);
  const auto size = std::ssize(given.text);
  if (size <= length || size > 1'000'000'000 || given.steps < 11 || given.threads < 1) {
    std::fprintf(stderr, "train_on_ranks: a text of 33 bytes to 1 GB, 11 steps or more, threads\n");
    return 1;
  }
  int level = 0;
  MPI_Init_thread(&count, &words, MPI_THREAD_SERIALIZED, &level);
  int status = 1;
  {
    auto ranks = ln::communicator::open(MPI_COMM_WORLD, 600);
    status = ranks ? run(*ranks, given) : stop(ranks.error());
  }
  if (status != 0) MPI_Abort(MPI_COMM_WORLD, status);  // others may wait
  MPI_Finalize();
}
